"""`handoff inventory`: what there is of the site, and what speaks to what."""

from __future__ import annotations

import platform
import ssl
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from engine.cli.common import Cli, config_option, json_option
from engine.cli.desk import open_desk
from engine.cli.tables import Column, table

if TYPE_CHECKING:
    from engine.settings import Configuration, DestinationBase

_DISTRIBUTION: Final = "handoff-engine"
_URLS: Final = ("url", "base_url", "login_url")
_PACKAGES: Final = ("cryptography", "sqlalchemy", "aiohttp", "pydantic", "psycopg")


@click.command("inventory", short_help="What there is of the site, and what speaks to what.")
@json_option
@config_option
@click.pass_obj
def inventory(cli: Cli) -> None:
    """Show the assets of this node and the map of its network: versions, listeners, destinations, certificates.

    It is read from the configuration as it stands; nothing of a patient, and no secret, is in it. That it was made is
    on the trail.
    """
    with open_desk(cli) as desk:
        found = collected(desk.configuration, cli.store)
        desk.audit("inventory-made", ["site"])
    network = [(one["from"], one["to"], one["what"], "yes" if one["encrypted"] else "no") for one in found["network"]]
    certificates = [(one["use"], one["expires_at"]) for one in found["certificates"]]
    text = "\n".join(
        (
            f"node {found['node']}, Handoff {found['versions']['handoff']}, store {found['store']}",
            "",
            table((Column("from", least=10), Column("to", least=10), "what", "encrypted"), network),
            table(("certificate", "ends"), certificates),
        )
    )
    cli.print(found, text.rstrip())


def collected(configuration: Configuration, store: str | None) -> dict[str, Any]:
    from engine.domain.shapes import plain
    from engine.runtime.certificates import certificates

    site = configuration.site
    versions = {
        "handoff": version(_DISTRIBUTION),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "tls": ssl.OPENSSL_VERSION,
        **{name: version(name) for name in _PACKAGES},
    }
    return {
        "node": site.node,
        "purpose": site.purpose,
        "versions": versions,
        "store": store,
        "network": list(_network(configuration)),
        "certificates": plain(certificates(configuration)),
    }


def _network(configuration: Configuration) -> Iterator[dict[str, Any]]:
    """encrypted: by us; what a proxy or a tunnel does is not known here."""
    site, node = configuration.site, f"node {configuration.site.node}"
    for name, channel in sorted(configuration.channels.items()):
        listen = channel.listen
        allowed = ", ".join(map(str, listen.allow)) or "anybody"
        yield _edge(allowed, f"{node} {listen.host}:{listen.port}", f"channel {name} (MLLP)", listen.tls is not None)
    console = site.console
    yield _edge("browsers", f"{node} {console.host}:{console.port}", "console (HTTP)", console.tls is not None)
    if site.hooks is not None:
        yield _edge("far ends", f"{node} {site.hooks.host}:{site.hooks.port}", "hooks (HTTP)", encrypted=False)
    for name, destination in sorted(site.destinations.items()):
        where, encrypted = _address(destination)
        yield _edge(node, where, f"destination {name} ({destination.type})", encrypted)


def _edge(begin: str, end: str, what: str, encrypted: bool) -> dict[str, Any]:
    return {"from": begin, "to": end, "what": what, "encrypted": encrypted}


def _address(destination: DestinationBase) -> tuple[str, bool]:
    """Never a path or query of a URL: they may open something."""
    for name in _URLS:
        url = getattr(destination, name, None)
        if url is not None:
            parts = urlsplit(str(url))
            return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}", parts.scheme == "https"
    host = getattr(destination, "host", None)
    if host is not None:
        return f"{host}:{getattr(destination, 'port', '')}", getattr(destination, "tls", None) is not None
    folder = getattr(destination, "path", None)
    return (f"folder {folder}", False) if folder is not None else ("not known", False)
