"""Files for TLS: which of them can't be used, and why; what OpenSSL says of them fits none or all."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from engine.errors import Problem
from engine.files import SECRET_BYTES_MAX, UnreadableFileError, foreign_owner, read_with_status
from engine.settings import Configuration, ConsoleTls, TlsClient, TlsServer
from engine.tls import harden
from engine.yamlfile import Document

_CERTIFICATES: Final = ("cert", "client_ca", "ca")


def tls_problems(
    document: Document, path: tuple[str, ...], tls: TlsServer | TlsClient | ConsoleTls, folder: Path
) -> Iterator[Problem]:
    """folder: what the paths in this part of the document are relative to."""
    content: dict[str, bytes] = {}
    for part, file in tls:
        if part not in {*_CERTIFICATES, "key"} or file is None:
            continue
        try:
            content[part], _ = read_with_status(folder / file, bytes_max=SECRET_BYTES_MAX)
        except UnreadableFileError as error:
            relative = "" if Path(file).is_absolute() else f" (paths here are relative to {folder})"
            yield document.problem((*path, part), f"{file} {error.reason}{relative}")
            return
    for part, text in content.items():
        if (reason := _reason(part, text)) is not None:
            yield document.problem((*path, part), f"{getattr(tls, part)} {reason}")
            return
    if "cert" in content and not _belong(content["cert"], content.get("key", content["cert"])):
        where = (*path, "key" if "key" in content else "cert")
        yield document.problem(where, f"{tls.key or tls.cert} is not the key of the certificate {tls.cert}")
    elif (wrong := _refused(tls, folder)) is not None:
        yield document.problem(path, wrong)


def exposed_key(
    document: Document, path: tuple[str, ...], tls: TlsServer | TlsClient | ConsoleTls, folder: Path
) -> Iterator[Problem]:
    """A private key that others on this machine may read or change, or that belongs to somebody else."""
    part, file = ("key", tls.key) if tls.key is not None else ("cert", None)
    if file is None:
        return
    try:
        _, status = read_with_status(folder / file, bytes_max=SECRET_BYTES_MAX)
    except UnreadableFileError:
        return
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        yield document.problem((*path, part), f"{file} can be read or changed by others: chmod 600 {folder / file}")
    elif foreign_owner(status, (folder / file).parent):
        yield document.problem(
            (*path, part), f"{file} belongs to another user: chown it to root or to the service's user"
        )


def _reason(part: str, content: bytes) -> str | None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if part in _CERTIFICATES:
        try:
            x509.load_pem_x509_certificates(content)
        except ValueError:
            return "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        return None
    try:
        load_pem_private_key(content, None)
    except TypeError:
        return "is a key with a passphrase: nobody is there to type it; take it off (openssl pkey -in KEY -out KEY)"
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        return "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
    return None


def _belong(certificate: bytes, key: bytes) -> bool:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    def spelled(public: object) -> bytes:
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]

    try:
        ours = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError):
        return False
    return spelled(x509.load_pem_x509_certificates(certificate)[0].public_key()) == spelled(ours)


def _refused(tls: TlsServer | TlsClient | ConsoleTls, folder: Path) -> str | None:
    """What OpenSSL itself does not like about files that are all right one by one (a key that is too short)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authorities = tls.client_ca if isinstance(tls, TlsServer) else tls.ca if isinstance(tls, TlsClient) else None
    try:
        if tls.cert is not None:
            context.load_cert_chain(folder / tls.cert, folder / tls.key if tls.key else None, password="")
        if authorities is not None:
            context.load_verify_locations(folder / authorities)
    except OSError as error:
        reason = getattr(error, "reason", None)
        return "can't be used" + (f": {str(reason).replace('_', ' ').lower()}" if reason else "")
    return None


def console_context(configuration: Configuration) -> ssl.SSLContext | None:
    """What the console speaks TLS with; none: it speaks plain HTTP. Raises OSError when a file can't be used."""
    if configuration.site.console.tls is None:
        return None
    context = harden(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    load_console_certificate(context, configuration)
    return context


def load_console_certificate(context: ssl.SSLContext, configuration: Configuration) -> None:
    """Connections that come from now on are shown what the files hold now. Raises OSError."""
    tls = configuration.site.console.tls
    if tls is not None:
        context.load_cert_chain(configuration.path(tls.cert), configuration.path(tls.key), password="")
