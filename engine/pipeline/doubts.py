"""What a configuration allows and its owner may not mean: warnings of `handoff check`, `run` and `reload`.

Nothing here keeps anything from starting; `handoff check --strict` takes each for a problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from engine.errors import Problem
from engine.settings import Channel, Configuration, MllpDestination, Site
from engine.yamlfile import SECRET, Document, Path

_REFERENCES: Final = frozenset({"env", "file", "credential"})
_CHECKED_TLS: Final = frozenset({"verify-full", "verify-ca"})


def doubts(configuration: Configuration) -> tuple[Problem, ...]:
    """All warnings about a valid configuration, those of its reading included."""
    snapshot, site = configuration.snapshot, configuration.site
    document = snapshot.document(snapshot.site_file)
    found = [*configuration.warnings, *_literal_secrets(document, document.value, ()), *_site(document, site)]
    for name, channel in configuration.channels.items():
        found += _channel(snapshot.document(configuration.channel_documents[name].file), channel)
    return tuple(dict.fromkeys(found))


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host, or listened for at it, stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _of_loopback(network: IPv4Network | IPv6Network) -> bool:
    loopback = ip_network("127.0.0.0/8" if network.version == 4 else "::1/128")
    return network.overlaps(loopback)


def _literal_secrets(document: Document, value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, dict):
        for key, inner in value.items():
            here = (*path, key)
            if isinstance(inner, str) and SECRET.search(key) and here != ("store", "keys") and "tls" not in path:
                text = "a secret in the file: keep it elsewhere, as {env: NAME}, {file: PATH} or {credential: NAME}"
                yield document.warning(here, text)
            yield from _literal_secrets(document, inner, here)


def _site(document: Document, site: Site) -> Iterator[Problem]:
    yield from _store(document, site)
    if not is_loopback(site.console.host):
        text = "open to other machines: until there are log-ins only /healthz and /readyz answer there"
        yield document.warning(("console", "host"), text)
    for name, destination in site.destinations.items():
        match destination:
            case MllpDestination(tls=None) if not is_loopback(destination.host):
                text = "messages of patients leave this machine in clear: give it tls, or a tunnel on loopback"
                yield document.warning(("destinations", name, "host"), text)
            case _:
                pass


def _store(document: Document, site: Site) -> Iterator[Problem]:
    try:
        url = urlsplit(site.store.url)
        password, host = url.password, url.hostname
    except ValueError:
        return
    options = parse_qs(url.query)
    written = document.value.get("store") if isinstance(document.value, dict) else None
    literal = isinstance(written, dict) and isinstance(written.get("url"), str)
    if literal and (password or "password" in options):
        text = "a password in the file: keep the whole URL elsewhere, as {env: NAME} or {credential: NAME}"
        yield document.warning(("store", "url"), text)
    hosts = [*options.get("host", ()), *([host] if host else [])]
    far = [one for one in hosts if not one.startswith("/") and not is_loopback(one)]
    if url.scheme.startswith("postgresql") and far and options.get("sslmode", [""])[0] not in _CHECKED_TLS:
        text = "the database is on another machine: add ?sslmode=verify-full, so that nobody reads along or stands in"
        yield document.warning(("store", "url"), text)


def _channel(document: Document, channel: Channel) -> Iterator[Problem]:
    listen = channel.listen
    everybody = not listen.allow or any(
        network == ip_network(network.supernet(new_prefix=0)) for network in listen.allow
    )
    if listen.tls is None and not is_loopback(listen.host) and everybody:
        text = "listens in clear for everybody who reaches this machine: give it tls, or the senders' networks in allow"
        yield document.warning(("listen", "host"), text)
    if is_loopback(listen.host) and listen.allow and not any(_of_loopback(network) for network in listen.allow):
        text = "only this machine reaches this address, and `listen.allow` leaves it out: nobody can connect"
        yield document.warning(("listen", "allow"), text)
    for index, target in enumerate(channel.deliver):
        for what, needed in (("task", "protocol"), ("score", "risk")):
            if what in target.what and not getattr(channel, needed):
                text = f"the channel has no `{needed}`, so there is never a {what} to deliver"
                yield document.warning(("deliver", index, "what"), text)
    address = channel.ack.return_to
    if address is not None and not is_loopback(address.host):
        text = "these answers leave this machine in clear: they name control ids, and no patient"
        yield document.warning(("ack", "return_to", "host"), text)
