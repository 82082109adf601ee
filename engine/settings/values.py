"""Values that keys of the configuration share: ports, names, addresses, time zones."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from engine.snapshot import UNRESOLVED
from engine.tls import Minimum

Reason = Annotated[str, Field(min_length=1, max_length=1024)]
"""Why something is so on purpose, for whoever reads the file or an auditor."""
Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Folder = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(os.path.normpath)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
HostSuffix = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]

_PROXY: Final = re.compile(r"https?://([^/?#@\s]+(:[^/?#@\s]*)?@)?[A-Za-z0-9.\[\]:-]+/?")
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def _check_https(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is not a URL") from None
    loopback = parts.scheme == "http" and parts.hostname in LOOPBACK
    if (parts.hostname and (parts.scheme == "https" or loopback)) or url == UNRESOLVED:
        return url.rstrip("/")
    raise ValueError("must be https:// (plain http only to loopback)")


def _check_proxy(url: str) -> str:
    if url == UNRESOLVED or _PROXY.fullmatch(url):
        return url
    raise ValueError("must be http://HOST:PORT or https://HOST:PORT")


class _Link(Protocol):
    @property
    def tls(self) -> object | None: ...
    @property
    def plaintext(self) -> str | None: ...


L = TypeVar("L", bound=_Link)


def either_tls_or_plaintext(link: L) -> L:
    """Raises ValueError when it has TLS and a reason for none."""
    if link.tls is not None and link.plaintext is not None:
        raise ValueError("has tls, and plaintext says why it has none: take one of them away")
    return link


TlsMinimum = Annotated[
    Minimum,
    BeforeValidator(lambda value: str(value) if isinstance(value, float) else value),
    WithJsonSchema({"enum": [1.2, 1.3, "1.2", "1.3"]}),
]
HttpsUrl = Annotated[Text, AfterValidator(_check_https)]
ProxyUrl = Annotated[Text, AfterValidator(_check_proxy)]


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not a time zone of the IANA database (like America/New_York)") from None
    return name


def _check_network(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        raise ValueError(_no_network(str(value))) from None


def _no_network(text: str) -> str:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return "is not a network, like 10.1.0.0/16, ::1/128 or a single address"
    return f"has bits of a host set: write {network} for the network, or {text.partition('/')[0]} for the host"


Network = Annotated[IPv4Network | IPv6Network, WrapValidator(_check_network)]
