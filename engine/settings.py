"""The site's configuration: `config.yaml` and the channel files, as strict models."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache, cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Protocol, Union
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    field_validator,
    model_validator,
)

from engine.domain.partition import PARTITIONS
from engine.errors import Problem, SettingsError
from engine.outline import CONSOLE_HOST, CONSOLE_PORT, NODE, STORE_KEYS, STORE_URL, TIMEZONE, ChannelOutline, Outline
from engine.snapshot import UNRESOLVED, Loaded, References, Snapshot, resolve_references
from engine.yamlfile import Document, parse
from engine.yamlmodel import StrictModel, validate

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


# --- config.yaml -----------------------------------------------------------------------------------------------------


class Store(StrictModel):
    """The database and the keys that open it."""

    url: Text = STORE_URL
    """The database: `sqlite:///PATH` (relative to config.yaml) or `postgresql+psycopg://USER@HOST/DB`."""
    keys: Text = STORE_KEYS
    """The key file (mode 0600), relative to config.yaml. `handoff init` makes it; keep a copy elsewhere."""

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        scheme, _, rest = url.partition("://")
        known = (scheme == "sqlite" and rest.strip("/")) or scheme in {"postgresql+psycopg", "postgresql"}
        if known or url == UNRESOLVED:
            return url
        raise ValueError("must be sqlite:///PATH or postgresql+psycopg://USER@HOST/DB")


class Console(StrictModel):
    """The HTTP listener of `/healthz`, `/readyz`, `/metrics` and the console."""

    host: Text = CONSOLE_HOST
    """Address to listen on. Loopback unless told."""
    port: Port = CONSOLE_PORT
    """TCP port."""


class RetrySettings(StrictModel):
    """When a failed delivery is tried again: seconds grow from first to max by doubling, with full jitter."""

    first_seconds: Seconds = 1.0
    """Wait before the second attempt; doubled for each further one."""
    seconds_max: Seconds = 900.0
    """Longest wait between two attempts."""
    attempts_max: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Transient failures after which the delivery is a dead letter."""
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    """Failures of the destination in a row after which it gets a rest."""
    breaker_seconds: Seconds = 30.0
    """Length of that rest; one attempt follows, and decides."""


class DestinationBase(StrictModel):
    """What all destinations have in common. Each type is a subclass, in the file of its connector."""

    takes: ClassVar[frozenset[str]] = frozenset()
    """What it can be given, as `deliver.what` names it."""

    type: str
    """What kind of destination it is."""
    retry: RetrySettings = RetrySettings()
    """When a failed delivery is tried again."""
    timeout_seconds: Seconds = 30.0
    """Longest time of one step (a connection, a log-in, a call, a message with its answer); see
    `shutdown_seconds_max`."""
    batch_max: Annotated[int, Field(ge=1, le=2000)] = 200
    """Most deliveries handed over in one step."""
    batch_bytes_max: Annotated[int, Field(ge=1, le=1 << 30)] = 8 << 20
    """Most bytes of payload in one batch; a single larger one goes alone."""

    @property
    def certificate(self) -> str | None:
        """PEM file of the certificate that it shows to the far end."""
        return None

    def doubts(self) -> Iterator[tuple[str, str]]:
        """What it allows and its owner may not mean: keys, each with a sentence."""
        return iter(())


class TlsClient(StrictModel):
    """TLS towards a receiver."""

    ca: Text | None = None
    """PEM file of the authorities that may have signed the server's certificate; none: the system's."""
    cert: Text | None = None
    """PEM file of the certificate shown to the receiver; none: none is shown."""
    key: Text | None = None
    """PEM file of its private key."""

    @model_validator(mode="after")
    def _key_with_cert(self) -> TlsClient:
        if self.key is not None and self.cert is None:
            raise ValueError("has a key and no cert: give both, to show the receiver who we are")
        return self


class Calendar(StrictModel):
    """Which days are business days."""

    timezone: Text = TIMEZONE
    """IANA zone of the site: its business days, and the times that commands show."""
    weekend: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ("sat", "sun")
    """Days of the week that are no business days."""
    holidays: Text | None = "US"
    """Country (`US`) or country and subdivision (`US-CA`) whose public holidays are no business days; `null`: none
    are."""
    closed: tuple[date, ...] = ()
    """Further dates that are no business days."""
    open: tuple[date, ...] = ()
    """Dates that are business days all the same."""

    _zone = field_validator("timezone")(_check_zone)

    @field_validator("weekend")
    @classmethod
    def _some_day_is_open(cls, weekend: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(weekend)) == 7:
            raise ValueError("names all seven days: then there is no business day")
        return weekend


class Site(StrictModel):
    """The site: this node, its store, its console and its destinations."""

    node: Identifier = NODE
    """Name of this node, unique among those that share a store."""
    store: Store = Store()
    """Where everything is kept."""
    console: Console = Console()
    """HTTP listener of health, metrics and console."""
    destinations: dict[Identifier, DestinationBase] = {}
    """Name -> destination. Channels name them under `deliver`."""
    calendar: Calendar = Calendar()
    """Business days and the site's zone."""
    channels: Folder = "channels"
    """Folder of the channel files, relative to config.yaml."""
    mappings: Folder = "mappings"
    """Folder of the mappings, relative to config.yaml."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level of log lines."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """Form of log lines. auto: text on a terminal, else JSON, one object a line."""
    shutdown_seconds_max: Seconds = 60.0
    """Longest time that stopping may take; the service manager's own limit has to be longer."""
    workers: Annotated[int, Field(ge=1, le=PARTITIONS)] | None = None
    """Processes that work on what has arrived; none: one for each core but one, which is the intake's, at most 4."""

    @property
    def drain_seconds_max(self) -> float:
        """Of stopping: what the listeners may take to answer what they have. The rest is the workers'."""
        return self.shutdown_seconds_max * 0.25

    @property
    def call_seconds_max(self) -> float:
        """Of stopping: what a destination may take for the step in hand.

        The rest is there to record what came of it, so that nothing is delivered and not known for want of time.
        """
        return self.shutdown_seconds_max * 0.5

    @property
    def worker_count(self) -> int:
        return self.workers or max(1, min(4, len(os.sched_getaffinity(0)) - 1))


# --- channels/<name>.yaml --------------------------------------------------------------------------------------------


class TlsServer(StrictModel):
    """TLS for senders."""

    cert: Text
    """PEM file of the server's certificate with its chain. A relative path begins at the folder of this file."""
    key: Text
    """PEM file of its private key."""
    client_ca: Text | None = None
    """When given, a client must show a certificate that one of these authorities signed (mutual TLS)."""
    client_names: tuple[Text, ...] = ()
    """Which of those certificates may send here: `DNS:epic.example`, `URI:urn:epic:prod`, `CN:epic-prod`, or
    `SHA256:` with the certificate's fingerprint; a name without a kind may be any of the first three. A common name
    (CN) counts only in a certificate without DNS names. None: all."""
    crl: Text | None = None
    """PEM file of the authorities' lists of revoked certificates; without a valid list nobody connects."""

    @model_validator(mode="after")
    def _names_of_certificates(self) -> TlsServer:
        if (self.client_names or self.crl) and self.client_ca is None:
            raise ValueError("has client_names or a crl and no client_ca: without one no client shows a certificate")
        return self


class Listen(StrictModel):
    """Where senders connect, and what one of them may use up."""

    host: Text = "127.0.0.1"
    """Address to listen on. Loopback unless told; `0.0.0.0` is every IPv4 address of the machine."""
    port: Port
    """TCP port, one for each channel."""
    allow: tuple[Network, ...] = ()
    """Networks that may connect; none: every one."""
    tls: TlsServer | None = None
    """TLS for senders; none: plain TCP."""
    frame_bytes_max: Annotated[int, Field(ge=1024, le=1 << 30)] = 1 << 20
    """Largest frame in bytes; a larger one is refused."""
    connections_max: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Most connections at once."""
    connections_per_peer_max: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Most connections from one address. Whatever it is: who has more than half of `connections_max` makes room for
    others."""
    inflight_bytes_max: Annotated[int, Field(ge=4096)] = 64 << 20
    """Bytes received on the channel and not answered yet; above it the channel stops reading until it falls."""
    pipeline_frames_max: Annotated[int, Field(ge=1)] = 1024
    """Unanswered frames of one connection; above it the connection is not read until it falls."""
    idle_seconds_max: Seconds = 3600.0
    """A connection that says nothing for so long is closed."""
    frame_seconds_max: Seconds = 60.0
    """A frame that is not complete after so long is dropped and the connection closed (slow loris)."""
    write_seconds_max: Seconds = 60.0
    """A peer that does not take its answers for so long is closed."""
    batch_messages_max: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Messages in one batch; a longer one is refused as a whole."""
    commit_blocks: bool = False
    """MLLP release 2: answer each frame with a commit block (0B 06 1C 0D / 0B 15 1C 0D)."""


class ReturnAddress(StrictModel):
    """A listener of the sender's for application ACKs."""

    host: Text
    """Name or address."""
    port: Port
    """TCP port."""


class Ack(StrictModel):
    """How messages are answered."""

    mode: Literal["auto", "original", "enhanced", "none"] = "auto"
    """auto: by MSH-15 and MSH-16 of each message; original or enhanced: always so; none: no answers."""
    when: Literal["stored", "processed"] = "stored"
    """stored: answered when the message is on disk; processed: when its outcome is known."""
    processed_seconds_max: Seconds = 30.0
    """With `when: processed`: after so long without an outcome the sender is told to send again (AR)."""
    duplicate_conflict: Literal["process", "refuse"] = "process"
    """A known control id with other content: process and flag it, or refuse it with 205."""
    batch: Literal["messages", "single"] = "messages"
    """A batch is answered message by message, or by one batch acknowledgment."""
    sequence_numbers: bool = False
    """The sequence number protocol of MSH-13."""
    answers: Literal["all", "one"] = "all"
    """`one`: for senders that read one answer a message. Who asks for both an accept and an application ACK (MSH-15 and
    MSH-16) gets the accept ACK alone."""
    unavailable: Literal["refuse", "close"] = "refuse"
    """When a message can't be taken now (the store fails, too many connections, no outcome in time): refuse it with
    207, or close the connection without an answer, for senders that take every refusal as final and send again after
    a broken connection."""
    msa_text: Literal["auto", "always"] = "auto"
    """The text of a refusal in MSA-3: for senders before 2.7, as the standard has it, or for all."""
    return_to: ReturnAddress | None = None
    """Where application ACKs of enhanced mode go; none: back on the same connection."""


_MESSAGE_TYPE: Final = re.compile(
    r"(?i)([A-Z]{3}|Z[A-Z0-9]{2}|\*)(\^([A-Z][A-Z0-9]{2}|\*)(\^[A-Z0-9_]+)?)?",
)
"""`ADT^A01`, `ADT^*`, `ADT` (any event), `*`, and a whole MSH-9 as it stands in a message."""
_VERSION: Final = re.compile(r"[A-Za-z]?[0-9]+(\.[0-9]+)*")
_PROCESSING_ID: Final = re.compile(r"[^\^|~&\s*]")


def _no_message_type(text: str) -> str:
    parts = [part for part in re.split(r"[^A-Za-z0-9*]+", text.upper()) if part]
    if len(parts) == 1 and len(parts[0]) == 6:
        parts = [parts[0][:3], parts[0][3:]]
    meant = "^".join(parts[:2])
    said = "is no message type: write MSH-9.1^MSH-9.2, as in ADT^A01"
    if len(parts) > 1 and _MESSAGE_TYPE.fullmatch(meant):
        return f'"{text}" is no message type: write {meant} (MSH-9.1^MSH-9.2)'
    return f'"{text}" {said}'


class Accept(StrictModel):
    """Which messages are taken; others are refused with the code of HL7 table 0357."""

    types: Annotated[tuple[Text, ...], Field(min_length=1)] = ("ADT^*",)
    """Message types (MSH-9), as `ADT^A01` or `ADT^*`."""
    versions: Annotated[tuple[Text, ...], Field(min_length=1)] = (
        "2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9",
        "2.9.1",
    )  # fmt: skip
    """Versions (MSH-12)."""
    version_default: Text = "2.3"
    """Taken for the version of a message whose MSH-12 is empty, as old senders leave it."""
    processing_ids: Annotated[tuple[Text, ...], Field(min_length=1)] = ("P",)
    """Processing ids (MSH-11.1): `P` production, `T` training, `D` debugging."""

    @field_validator("types")
    @classmethod
    def _of_messages(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [text for text in types if not _MESSAGE_TYPE.fullmatch(text)]:
            raise ValueError(_no_message_type(wrong[0]))
        return types

    @field_validator("versions")
    @classmethod
    def _of_the_standard(cls, versions: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [text for text in versions if not _VERSION.fullmatch(text)]:
            raise ValueError(f'"{wrong[0]}" is no version of HL7 as MSH-12 has it: "2.3" to "2.9.1"')
        return versions

    @field_validator("processing_ids")
    @classmethod
    def _of_table_0103(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [text for text in ids if not _PROCESSING_ID.fullmatch(text)]:
            raise ValueError(f'"{wrong[0]}" is no processing id as MSH-11.1 has it: P (production), T or D')
        return ids

    @model_validator(mode="after")
    def _default_is_accepted(self) -> Accept:
        if "version_default" in self.model_fields_set and self.version_default not in self.versions:
            raise ValueError(
                "has a version_default that is not among its versions: every message without would be refused"
            )
        return self


def _check_codec(name: str | None) -> str | None:
    try:
        known = name is None or b"MSH|".decode(name) == "MSH|"
    except (LookupError, UnicodeError):
        known = False
    if not known:
        raise ValueError("is not the name of a character set that MLLP can carry (like utf-8, iso8859-1, windows-1252)")
    return name


class Charset(StrictModel):
    """How bytes become text."""

    force: Text | None = None
    """Character set of every message, whatever its MSH-18 says: for senders that declare what they do not send."""
    default: Text | None = None
    """Character set of senders that do not say in MSH-18; none: UTF-8."""
    fallback: Text = "windows-1252"
    """Character set of bytes that are in none of the sets before it."""

    _codecs = field_validator("force", "default", "fallback")(_check_codec)


ZoneName = Annotated[Text, AfterValidator(_check_zone)]


class Zones(StrictModel):
    """The zone of times without an offset. A name alone is the zone of all senders."""

    default: ZoneName
    """Zone of senders that are not listed."""
    from_: Annotated[Literal["message"] | None, Field(alias="from")] = None
    """message: the offset of MSH-7, where it has one, counts for the other times of the message too."""
    senders: dict[Annotated[str, Field(min_length=1, max_length=256)], ZoneName] = {}
    """Sending facility (MSH-4), sending application (MSH-3) or facility of the place (PV1-3.4) -> its zone; the first
    of the three that stands here counts."""


def _zone_of_all(value: Any) -> Any:
    return {"default": value} if isinstance(value, str) else value


class Authority(StrictModel):
    """One assigning authority under all the names that senders give it in CX-4."""

    name: Text
    """Its namespace id, and what charts and destinations call it."""
    oid: Text | None = None
    """Its universal id."""
    also: tuple[Text, ...] = ()
    """Further names of either kind."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *((self.oid,) if self.oid else ()), *self.also)


class Identity(StrictModel):
    """Which identifier of PID-3 is the patient's key."""

    authority: Annotated[str, Field(pattern=r"^[^:\s|^~&]{1,64}$")] | None = None
    """Stands in when CX-4 is empty; none: the channel's name, so that channels never share patients by accident."""
    types: tuple[str, ...] = ("MR", "MRN", "PI", "PT", "PN", "")
    """Types (CX-5) that may be the key, best first; `""` is an identifier without a type. Case does not matter."""
    authorities: tuple[Text | Authority, ...] = ()
    """When given, only identifiers of these authorities may be the key, best first: a name, or `{name, oid, also}`."""
    merge_pairing: Literal["fit", "position", "type"] = "fit"
    """How PID-3 and MRG-1 pair in a merge. fit: by position where authority and type agree, else the only one that
    fits; numbers that are no keys need no partner. position, type: strictly so, and everything needs a partner."""

    @field_validator("types")
    @classmethod
    def _upper_case(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.strip().upper() for one in types))

    @field_validator("authorities")
    @classmethod
    def _named_once(cls, authorities: tuple[str | Authority, ...]) -> tuple[str | Authority, ...]:
        named: dict[str, int] = {}
        for index, one in enumerate(authorities):
            for name in (one,) if isinstance(one, str) else one.names:
                if named.setdefault(name, index) != index:
                    raise ValueError(f"name {name} twice: each name leads to one authority")
        return authorities

    @cached_property
    def names(self) -> Mapping[str, str]:
        """What an authority is called -> its name, for those of `authorities`."""
        sets = (Authority(name=one) if isinstance(one, str) else one for one in self.authorities)
        return {name: one.name for one in sets for name in one.names}

    @cached_property
    def authority_order(self) -> Mapping[str, int]:
        return {name: index for index, name in enumerate(dict.fromkeys(self.names.values()))}

    @cached_property
    def type_order(self) -> Mapping[str, int]:
        return {type_: index for index, type_ in enumerate(self.types)}


class DeliverTo(StrictModel):
    """What one destination gets."""

    to: Identifier
    """Name of a destination in config.yaml."""
    what: Annotated[tuple[Literal["patient", "encounter", "score", "task", "message"], ...], Field(min_length=1)]
    """Kinds of delivery. `message` is the message itself, byte for byte."""


class Order(StrictModel):
    """How far the times that a message claims are believed; outside, the next source or the receipt stands in."""

    ahead_seconds_max: Annotated[int, Field(ge=0, le=86_400)] = 300
    """So far ahead of ours may a sender's clock be."""
    behind_days_max: Annotated[int, Field(ge=1, le=55_000)] = 9_000
    """So old may an event be: a history that is loaded keeps its order, a clock that was reset is noticed."""


class Channel(StrictModel):
    """One feed: where it arrives, what is taken, what it means, who hears of it."""

    name: Identifier
    """Name of the channel, unique in the site."""
    mode: Literal["live", "shadow", "paused"] = "live"
    """live; shadow: charts, scores and tasks are written as by a live one, and nothing is delivered (see
    docs/guides/destinations.md); paused: messages are stored and answered, and wait."""
    listen: Listen
    """Where senders connect."""
    timezone: Annotated[Zones, BeforeValidator(_zone_of_all, json_schema_input_type=Text | Zones)]
    """IANA zone of times without an offset."""
    senders: tuple[Text, ...] = ()
    """Names of applications and facilities that send here (MSH-3, MSH-4). Lists show these as they are; another name
    stays hidden (`~5be7d2aa`) until a message of it was processed, for it may be a patient's in a broken message."""
    charset: Charset = Charset()
    """How bytes become text."""
    ack: Ack = Ack()
    """How messages are answered."""
    accept: Accept = Accept()
    """Which messages are taken."""
    filter: Text | None = None
    """Condition on a message (see docs/reference/mapping.md). What does not meet it is recorded, answered AA and
    changes nothing."""
    mapping: Identifier
    """Field mapping: the name of a file in mappings/fields/."""
    identity: Identity = Identity()
    """Which identifier is the patient's key."""
    order: Order = Order()
    """How far claimed times are believed."""
    risk: tuple[Identifier, ...] = ()
    """Risk models, by the names of files in mappings/risk/; the first decides the band."""
    protocol: Identifier | None = None
    """Protocol of follow-up tasks: the name of a file in mappings/protocols/; none: no tasks."""
    deliver: tuple[DeliverTo, ...] = ()
    """What goes to which destination."""

    @cached_property
    def takers(self) -> Mapping[str, tuple[str, ...]]:
        """What `deliver` names -> the destinations that want it, in its order."""
        takers: dict[str, tuple[str, ...]] = {}
        for deliver in self.deliver:
            for what in deliver.what:
                takers[what] = (*takers.get(what, ()), deliver.to)
        return takers

    @cached_property
    def default_authority(self) -> str:
        authority = self.identity.authority or self.name
        return self.identity.names.get(authority, authority)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Configuration:
    """A whole, valid configuration: shapes and references checked, nothing compiled yet."""

    snapshot: Snapshot
    site: Site
    channels: Mapping[str, Channel]
    channel_documents: Mapping[str, Document]
    """By channel name, for problems that only the compiler can find."""
    warnings: tuple[Problem, ...] = ()

    @property
    def node(self) -> str:
        return self.site.node

    @property
    def store_url(self) -> str:
        return self.site.store.url

    @property
    def store_keys(self) -> str:
        return self.site.store.keys

    def path(self, relative: str) -> Path:
        """A path of the configuration, made absolute."""
        return self.snapshot.base / relative

    @property
    def site_document(self) -> Document:
        return self.snapshot.document(self.snapshot.site_file)

    @cached_property
    def outline(self) -> Outline:
        site = self.site
        return Outline(
            snapshot=self.snapshot,
            node=site.node,
            store_url=site.store.url,
            store_keys=site.store.keys,
            console_host=site.console.host,
            console_port=site.console.port,
            destinations={name: one.type for name, one in site.destinations.items()},
            channels={
                name: ChannelOutline(
                    name=name,
                    mode=channel.mode,
                    host=channel.listen.host,
                    port=channel.listen.port,
                    authorities=frozenset({*channel.identity.names.values(), channel.default_authority}),
                    senders=frozenset({*channel.senders, *channel.timezone.senders}),
                )
                for name, channel in self.channels.items()
            },
        )

    def feeding(self, destination: str) -> frozenset[str]:
        """The channels that deliver charts to a destination. One in shadow delivers nothing."""
        return frozenset(
            name
            for name, channel in self.channels.items()
            if channel.mode != "shadow"
            and any(one.to == destination and set(one.what) - {"message"} for one in channel.deliver)
        )

    def destination(self, name: str) -> DestinationBase:
        """The settings of a destination, its timeout not longer than stopping allows."""
        settings = self.site.destinations[name]
        seconds = min(settings.timeout_seconds, self.site.call_seconds_max)
        return settings.model_copy(update={"timeout_seconds": seconds})


def loaded(configuration: Configuration, *, who: str, by: str, at: datetime) -> Configuration:
    """The same configuration, as one that a daemon is given to work by."""
    snapshot = replace(configuration.snapshot, loaded=Loaded(id=secrets.token_hex(8), at=at, who=who, by=by))
    return replace(configuration, snapshot=snapshot)


class DestinationTypes(Protocol):
    def __call__(self, named: Collection[object]) -> tuple[type[DestinationBase], ...]:
        """The models of the types that are named; all there are, when there is none of a name."""
        ...


@cache
def site_of(models: tuple[type[DestinationBase], ...]) -> type[Site]:
    """The site with these types as its tagged section of destinations."""
    if not models:
        return Site
    one = models[0] if len(models) == 1 else Annotated[Union[models], Field(discriminator="type")]  # noqa: UP007
    return create_model("Site", __base__=Site, __doc__=Site.__doc__, destinations=(dict[Identifier, one], {}))  # type: ignore[valid-type]


def _types_named(document: Document) -> set[object]:
    section = document.value.get("destinations") if isinstance(document.value, dict) else None
    each = section.values() if isinstance(section, dict) else ()
    found = [one.get("type") if isinstance(one, dict) else None for one in each]
    return {name if isinstance(name, str) else None for name in found}


def load(snapshot: Snapshot, types: DestinationTypes, *, references: References = "required") -> Configuration:
    """Validate config.yaml and every channel file. Raises SettingsError with all problems of all files at once."""
    problems = [remark for remark in snapshot.remarks if remark.level == "problem"]

    def read(file: str, model: Callable[[Document], type[Any]]) -> tuple[Document, Any]:
        try:
            document = snapshot.document(file)
            value = resolve_references(document, document.value, (), snapshot.base, problems, mode=references)
            resolved = Document(document.file, value, document.places)
            problems.extend(_empty_tls(document, value, ()))
            return resolved, validate(resolved, model(document))
        except SettingsError as error:
            problems.extend(error.problems)
            return Document(file, {}, {}), None

    site_document, site = read(snapshot.site_file, lambda document: site_of(types(_types_named(document))))
    problems.extend(_timeout_problems(site_document, site) if site is not None else ())
    problems.extend(_keys_inside(snapshot) if site is not None else ())
    channels: dict[str, Channel] = {}
    documents: dict[str, Document] = {}
    folder = site.channels if site else "channels"
    ports: dict[tuple[str, int], str] = {}
    if site is not None:
        ports[site.console.host, site.console.port] = "the console"
    for file in snapshot.below(folder):
        document, channel = read(file, lambda _: Channel)
        if channel is None:
            continue
        if channel.name in channels:
            problems.append(document.problem(("name",), "another channel file has the same name"))
        bound = (channel.listen.host, channel.listen.port)
        if channel.listen.port and bound in ports:
            problems.append(document.problem(("listen", "port"), f"{ports[bound]} listens there already"))
        ports[bound] = f"channel {channel.name}"
        if site is not None:
            for index, deliver in enumerate(channel.deliver):
                destination = site.destinations.get(deliver.to)
                if destination is None:
                    path = ("deliver", index, "to")
                    problems.append(document.problem(path, "no destination of this name in config.yaml"))
                elif not set(deliver.what) <= destination.takes:
                    known = ", ".join(sorted(destination.takes))
                    text = f"a destination of type {destination.type} takes {known}"
                    problems.append(document.problem(("deliver", index, "what"), text))
        channels[channel.name] = channel
        documents[channel.name] = document
    if problems or site is None:
        raise SettingsError(tuple(problems))
    warnings = tuple(remark for remark in snapshot.remarks if remark.level == "warning")
    return Configuration(snapshot, site, channels, documents, warnings)


def _keys_inside(snapshot: Snapshot) -> Iterator[Problem]:
    """The keys themselves in config.yaml, which is kept in the store with every version: a lock with its key in it."""
    document = snapshot.document(snapshot.site_file)
    store = document.value.get("store")
    keys = store.get("keys") if isinstance(store, dict) else None
    if isinstance(keys, str) and keys.lstrip().startswith("{"):
        text = "the keys must not stand in this file: name a file (var/keys.json, 0600), or {credential: NAME}"
        yield document.problem(("store", "keys"), text)


_TO_READ: Final = ("node", "store", "calendar", "console", "channels", "mappings")
"""What of config.yaml leads to the store, and shows what is in it."""


def store_only(config: Path, *, usual_place: bool = False) -> Configuration:
    """As much of a broken configuration as leads to its store, and no channel. Raises SettingsError.

    usual_place: a store that can't be read is taken to be where it is when nobody names it.

    Somebody edits a channel while somebody else has to see what waits: what is wrong elsewhere must not matter. When
    config.yaml itself is no YAML, the lines of each of these keys are read alone.
    """
    snapshot = Snapshot.alone(config)
    base, text = snapshot.base, snapshot.files[snapshot.site_file]
    found: dict[str, Any] = {}
    for key in _TO_READ:
        try:
            value = snapshot.document(config.name).value.get(key)
        except SettingsError:
            value = _value_alone(text, key)
        problems: list[Problem] = []
        document = Document(config.name, {key: value}, {})
        value = resolve_references(document, value, (key,), base, problems, mode="required")
        if value is None:
            continue
        try:
            validate(Document(config.name, {key: value}, {}), Site)
            found[key] = value
        except SettingsError as error:
            problems.extend(error.problems)
        if problems and key == "store" and not usual_place:
            raise SettingsError(tuple(problems))
    return Configuration(snapshot, validate(Document(config.name, found, {}), Site), {}, {})


def _value_alone(text: str, key: str) -> Any:
    """The value of a key at the margin, read from its own lines alone."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(f"{key}:")), None)
    if start is None:
        return None
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " \t#"):
        end += 1
    try:
        return parse("\n".join(lines[start:end]), "config.yaml").value.get(key)
    except SettingsError:
        return None


def _empty_tls(document: Document, value: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """`tls:` with nothing below it, left over from an edit, would be taken for no TLS."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "tls" and inner is None:
                yield document.problem((*path, key), "is empty: say what TLS is to use, or take the line away for none")
            yield from _empty_tls(document, inner, (*path, key))


def _timeout_problems(document: Document, site: Site) -> Iterator[Problem]:
    for name, destination in site.destinations.items():
        seconds = destination.timeout_seconds
        if "timeout_seconds" in destination.model_fields_set and seconds > site.call_seconds_max:
            path = ("destinations", name, "timeout_seconds")
            needed = f"a call of {seconds:g} s needs shutdown_seconds_max: {seconds * 2:g} (it is"
            yield document.problem(path, f"{needed} {site.shutdown_seconds_max:g}), so that a stop can wait for it")
