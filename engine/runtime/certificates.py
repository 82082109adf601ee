"""When the certificates end that this site shows to others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.pipeline.trouble import Certificate
from engine.settings import Configuration


def certificates(configuration: Configuration) -> tuple[Certificate, ...]:
    """Those of channels and destinations that can be read; what can't be is a problem of the configuration."""
    return tuple(_found(configuration))


def _found(configuration: Configuration) -> Iterator[Certificate]:
    from cryptography import x509

    for use, file in _files(configuration):
        try:
            chain = x509.load_pem_x509_certificates(file.read_bytes())
        except (OSError, ValueError):
            continue
        yield Certificate(use=use, expires_at=min(one.not_valid_after_utc for one in chain))


def _files(configuration: Configuration) -> Iterator[tuple[str, Path]]:
    for name, channel in configuration.channels.items():
        if channel.listen.tls is not None:
            folder = configuration.path(configuration.channel_documents[name].file).parent
            yield f"channel {name}", folder / channel.listen.tls.cert
    for name, destination in configuration.site.destinations.items():
        if destination.certificate is not None:
            yield f"destination {name}", configuration.path(destination.certificate)
