"""What a configuration allows and its owner may not mean: warnings of `handoff check`, `run` and `reload`.

Nothing here keeps anything from starting; `handoff check --strict` takes each for a problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from engine.errors import Problem
from engine.settings import Channel, Configuration, Site
from engine.yamlfile import Document, Path

_REFERENCES: Final = frozenset({"env", "file", "credential"})
_ABBREVIATIONS: Final = {"EST": "UTC-5", "MST": "UTC-7", "HST": "UTC-10"}
"""Names of the IANA database that mean a fixed offset, though people mean a place by them."""
_REVERSED: Final = re.compile(r"(?i)(?:Etc/)?GMT([+-])([1-9][0-9]?)")
"""POSIX counts west of Greenwich as positive."""
SAY_WHY: Final = 'say why not (plaintext: "REASON")'


def doubts(configuration: Configuration) -> tuple[Problem, ...]:
    """All warnings about a valid configuration, those of its reading included."""
    snapshot, site = configuration.snapshot, configuration.site
    document = snapshot.document(snapshot.site_file)
    found = [*configuration.warnings, *_site(document, site)]
    found += _double(document, document.value, ())
    for name, channel in configuration.channels.items():
        of_channel = snapshot.document(configuration.channel_documents[name].file)
        found += _channel(of_channel, channel)
        found += _double(of_channel, of_channel.value, ())
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


def _double(document: Document, value: Any, path: Path) -> Iterator[Problem]:
    """What stands twice in a list counts once, or twice: hardly anybody means either."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _double(document, inner, (*path, key))
    elif isinstance(value, list):
        seen: list[Any] = []
        for index, one in enumerate(value):
            if isinstance(one, dict):
                yield from _double(document, one, (*path, index))
            elif one in seen:
                yield document.warning((*path, index), "stands twice in this list")
            seen.append(one)


def _zone(document: Document, path: Path, name: str) -> Iterator[Problem]:
    if name.upper() in _ABBREVIATIONS:
        text = f"is always {_ABBREVIATIONS[name.upper()]}, without summer time: name the place, like America/New_York"
        yield document.warning(path, text)
    elif reverse := _REVERSED.fullmatch(name):
        sign = "behind" if reverse[1] == "+" else "ahead of"
        yield document.warning(
            path, f"is {reverse[2]} hours {sign} UTC, and without summer time: name the place instead"
        )


def _site(document: Document, site: Site) -> Iterator[Problem]:
    yield from _store(document, site)
    yield from _zone(document, ("calendar", "timezone"), site.calendar.timezone)
    console = site.console
    if not is_loopback(console.host) and console.plaintext is None and console.tls is None and site.access is None:
        text = "open to other machines, in clear; without `access` only /healthz and /readyz answer there: put a"
        yield document.warning(("console", "host"), f"{text} proxy with TLS on this machine before it, or {SAY_WHY}")
    if site.hooks is not None and not is_loopback(site.hooks.host) and site.hooks.plaintext is None:
        text = "open to other machines, in clear: put a proxy with TLS on this machine before it, or"
        yield document.warning(("hooks", "host"), f"{text} {SAY_WHY}")
    for name, destination in site.destinations.items():
        for key, text in destination.doubts():
            yield document.warning(("destinations", name, key), text)
        if destination.is_heard_by_hooks:
            yield from _unheard(document, site, name)


def _unheard(document: Document, site: Site, destination: str) -> Iterator[Problem]:
    if site.hooks is None:
        text = "no reply, and no STOP, reaches us from there without `hooks`: see docs/guides/texts.md"
        yield document.warning(("destinations", destination, "type"), text)
    elif site.hooks.public_url is not None and "_" in (urlsplit(site.hooks.public_url).hostname or ""):
        text = "has an underscore in its host name: carriers call none such"
        yield document.warning(("hooks", "public_url"), text)


def log_ins_in_clear(document: Document, site: Site) -> Iterator[Problem]:
    """People would log in over a network on which others read along."""
    console = site.console
    if site.access is not None and not is_loopback(console.host) and console.tls is None and console.plaintext is None:
        text = "people would log in here in clear: give it tls: {cert: FILE, key: FILE}, bind it to 127.0.0.1, or"
        yield document.problem(("console", "host"), f"{text} {SAY_WHY}")


def _store(document: Document, site: Site) -> Iterator[Problem]:
    try:
        url = urlsplit(site.store.url)
        host = url.hostname
    except ValueError:
        return
    options = parse_qs(url.query)
    hosts = [*options.get("host", ()), *([host] if host else [])]
    far = [one for one in hosts if not one.startswith("/") and not is_loopback(one)]
    checked = options.get("sslmode", [""])[-1] == "verify-full"
    if url.scheme.startswith("postgresql") and far and not checked and site.store.plaintext is None:
        text = "the database is on another machine: add ?sslmode=verify-full, so that nobody reads along or stands in,"
        text = f"{text} or {SAY_WHY}"
        yield document.warning(("store", "url"), text)


def _channel(document: Document, channel: Channel) -> Iterator[Problem]:
    listen = channel.listen
    everybody = not listen.allow or any(
        network == ip_network(network.supernet(new_prefix=0)) for network in listen.allow
    )
    if listen.tls is None and not is_loopback(listen.host):
        if listen.plaintext is None:
            text = f"listens in clear for other machines: give it tls, or {SAY_WHY}"
            yield document.warning(("listen", "host"), text)
        elif everybody:
            text = "whoever reaches this machine may send in clear: give the senders' networks in allow"
            yield document.warning(("listen", "host"), text)
    if is_loopback(listen.host) and listen.allow and not any(_of_loopback(network) for network in listen.allow):
        text = "only this machine reaches this address, and `listen.allow` leaves it out: nobody can connect"
        yield document.warning(("listen", "allow"), text)
    if listen.tls is not None and listen.tls.client_ca is not None and not listen.tls.client_names:
        text = "whoever has a certificate of these authorities may send: name those that may in client_names"
        yield document.warning(("listen", "tls", "client_ca"), text)
    yield from _channel_zones(document, channel)
    if "batch" not in channel.ack.model_fields_set and channel.ack.answers == "one":
        text = (
            "a sender that reads one answer a message may read one a batch too: then write batch: single, else messages"
        )
        yield document.warning(("ack",), text)
    given: dict[tuple[str, str], int] = {}
    for index, target in enumerate(channel.deliver):
        again = [what for what in target.what if given.setdefault((target.to, what), index) != index]
        if again:
            text = f"{target.to} is given {', '.join(again)} above already; it gets each once"
            yield document.warning(("deliver", index, "what"), text)
        for what, needed in (("task", "protocol"), ("score", "risk")):
            if what in target.what and not getattr(channel, needed):
                text = f"the channel has no `{needed}`, so there is never a {what} to deliver"
                yield document.warning(("deliver", index, "what"), text)
    address = channel.ack.return_to
    if address is not None and not is_loopback(address.host) and address.plaintext is None:
        text = f"these answers leave this machine in clear, and there is no TLS for them: {SAY_WHY}"
        yield document.warning(("ack", "return_to", "host"), text)


def _channel_zones(document: Document, channel: Channel) -> Iterator[Problem]:
    written = document.value["timezone"]
    path: Path = ("timezone",) if isinstance(written, str) else ("timezone", "default")
    yield from _zone(document, path, channel.timezone.default)
    for sender, zone in channel.timezone.senders.items():
        yield from _zone(document, ("timezone", "senders", sender), zone)
