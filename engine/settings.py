"""The site's configuration: `config.yaml` and the channel files, as strict models.

A `Snapshot` is all the text of a configuration (site, channels, mappings) with its digest. It is what the store keeps
as a configuration version, so that a replay can run under the configuration that was in force; secrets are only named
in it (`{env: NAME}`) and never part of it.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from engine.domain.partition import PARTITIONS
from engine.domain.record import Record
from engine.errors import SettingsError
from engine.files import SECRET_BYTES_MAX, UnreadableFileError, foreign_owner, read_regular, read_with_status
from engine.yamlfile import TEXT_CHARS_MAX, Document, Problem, StrictModel, did_you_mean, parse, validate

Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Folder = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(os.path.normpath)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
HostSuffix = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]

_PROXY: Final = re.compile(r"https?://([^/?#@\s]+(:[^/?#@\s]*)?@)?[A-Za-z0-9.\[\]:-]+/?")
_UNRESOLVED: Final = "unresolved"
"""Stands for a value that is kept elsewhere and is not there; a name and a URL like any other, as far as checks go."""


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

    url: Text = "sqlite:///var/handoff.db"
    """The database: `sqlite:///PATH` (relative to config.yaml) or `postgresql+psycopg://USER@HOST/DB`."""
    keys: Text = "var/keys.json"
    """The key file (mode 0600), relative to config.yaml. `handoff init` makes it; keep a copy elsewhere."""

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        scheme, _, rest = url.partition("://")
        known = (scheme == "sqlite" and rest.strip("/")) or scheme in {"postgresql+psycopg", "postgresql"}
        if known or url == _UNRESOLVED:
            return url
        raise ValueError("must be sqlite:///PATH or postgresql+psycopg://USER@HOST/DB")


class Console(StrictModel):
    """The HTTP listener of `/healthz`, `/readyz`, `/metrics` and the console."""

    host: Text = "127.0.0.1"
    """Address to listen on. Loopback unless told."""
    port: Port = 8080
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
    """What all destinations have in common."""

    retry: RetrySettings = RetrySettings()
    """When a failed delivery is tried again."""
    timeout_seconds: Seconds = 30.0
    """Longest time of one step (a connection, a log-in, a call, a message with its answer); see
    `shutdown_seconds_max`."""
    batch_max: Annotated[int, Field(ge=1, le=2000)] = 200
    """Most deliveries handed over in one step."""
    batch_bytes_max: Annotated[int, Field(ge=1, le=1 << 30)] = 8 << 20
    """Most bytes of payload in one batch; a single larger one goes alone."""


class FileDestination(DestinationBase):
    """A folder of NDJSON files: one line for each delivery."""

    type: Literal["file"]
    """`file`: a folder of NDJSON files."""
    path: Text
    """The folder, relative to config.yaml."""
    rotate_bytes: Annotated[int, Field(ge=4096)] = 64 * 1024 * 1024
    """Size from which a new file is begun."""
    batch_max: Annotated[int, Field(ge=1, le=2000)] = 1000
    """Most deliveries written in one step."""


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


class AnswersWithoutCode(StrictModel):
    """What it means when the receiver refuses and names no code of HL7 table 0357 (ERR-3, before 2.5 ERR-1).

    Such an answer says nothing of the reason: some engines answer AE while their database is away, others AR for what
    their filter drops. retry: try again, with the waits of `retry`; as long as nothing is delivered meanwhile no
    attempt counts, so an outage costs no message. hold: a person decides. dead: a dead letter at once. The patient's
    later messages wait behind one that is tried again or held; nobody else's do.
    """

    ae: Literal["retry", "hold", "dead"] = "retry"
    """Answers AE and CE."""
    ar: Literal["retry", "hold", "dead"] = "retry"
    """Answers AR and CR."""
    attempts_max: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """With `retry`: attempts, while others were delivered, after which it is a dead letter."""


class MllpDestination(DestinationBase):
    """A receiver of HL7 v2 messages over MLLP; it gets `message` deliveries, byte for byte as they came."""

    type: Literal["mllp"]
    """`mllp`: a receiver of HL7 v2 messages."""
    host: Text
    """Name or address of the receiver."""
    port: Port
    """Its TCP port."""
    tls: TlsClient | None = None
    """TLS towards the receiver; none: plain TCP."""
    answers_without_code: AnswersWithoutCode = AnswersWithoutCode()
    """What a refusal without a reason means."""
    deduplicates: bool = False
    """The receiver is known to answer a repeated control id without acting twice: then an ambiguous attempt is
    repeated instead of held for a person."""


class SalesforceDestination(DestinationBase):
    """A Salesforce org, written through its REST API."""

    type: Literal["salesforce"]
    """`salesforce`: a Salesforce org."""
    login_url: Text
    """Address to log in at, `https://MY_DOMAIN.my.salesforce.com`."""
    client_id: Text
    """Consumer key of the connected app."""
    client_secret: Text | None = None
    """Consumer secret (client credentials flow): a reference, never the secret itself."""
    username: Text | None = None
    """User to act as (JWT bearer flow)."""
    private_key: Text | None = None
    """Private key in PEM (JWT bearer flow): a reference, `{file: PATH}` or `{credential: NAME}`."""
    api_version: Annotated[str, Field(pattern=r"^[0-9]{2,3}\.0$")] = "62.0"
    """Version of the REST API."""
    mapping: Identifier = "salesforce"
    """Field map: the name of a file in mappings/destinations/."""
    instance_hosts: tuple[HostSuffix, ...] = ()
    """Hosts (and what is below them) to which the log-in may send us, besides the login server's own. Below
    salesforce.com every host is one."""
    proxy: Text | None = None
    """`http://HOST:PORT` of the proxy to go through; none: none, whatever the environment says."""
    ca: Text | None = None
    """PEM file of the authorities that may have signed the org's or the proxy's certificate; none: the usual ones."""

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> SalesforceDestination:
        if self.client_secret is None and (self.username is None or self.private_key is None):
            raise ValueError("needs client_secret (client credentials), or username and private_key (JWT bearer)")
        if self.client_secret is not None and self.private_key is not None:
            raise ValueError("has both client_secret and private_key: give one of them")
        return self

    @field_validator("proxy")
    @classmethod
    def _proxy(cls, url: str | None) -> str | None:
        if url is None or url == _UNRESOLVED or _PROXY.fullmatch(url):
            return url
        raise ValueError("must be http://HOST:PORT or https://HOST:PORT")

    @field_validator("login_url")
    @classmethod
    def _https(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError("is not a URL") from None
        loopback = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"}
        if (parts.hostname and (parts.scheme == "https" or loopback)) or url == _UNRESOLVED:
            return url.rstrip("/")
        raise ValueError("must be https:// (plain http only to loopback)")


_TAKES: Final[Mapping[str, frozenset[str]]] = {
    "file": frozenset({"patient", "encounter", "score", "task", "message"}),
    "mllp": frozenset({"message"}),
    "salesforce": frozenset({"patient", "encounter", "score", "task"}),
}
"""What each type of destination can be given."""


def takes(type_: str) -> frozenset[str]:
    """What a type of destination can be given, as `deliver.what` names it."""
    return _TAKES[type_]


Destination = Annotated[FileDestination | MllpDestination | SalesforceDestination, Field(discriminator="type")]


class Calendar(StrictModel):
    """Which days are business days."""

    timezone: Text = "America/New_York"
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

    node: Identifier = "main-1"
    """Name of this node, unique among those that share a store."""
    store: Store = Store()
    """Where everything is kept."""
    console: Console = Console()
    """HTTP listener of health, metrics and console."""
    destinations: dict[Identifier, Destination] = {}
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
    `SHA256:` with the certificate's fingerprint; a name without a kind may be any of the first three. None: all."""
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
    def default_authority(self) -> str:
        authority = self.identity.authority or self.name
        return self.identity.names.get(authority, authority)


# --- reading ---------------------------------------------------------------------------------------------------------


FILES_MAX: Final = 1_000
"""Of a configuration, tests included."""
ENTRIES_MAX: Final = 10_000
"""Names that may stand in a folder of the configuration, whatever they are: more is no folder of a site."""
SNAPSHOT_BYTES_MAX: Final = 4 << 20
"""Of all files together."""
VALUES_MAX: Final = 300_000
"""Keys and values of all files together."""

MAPPING_FOLDERS: Final = ("care", "destinations", "fields", "protocols", "risk", "tables")
EXAMPLES: Final = "examples"
"""A folder below the channels' or mappings' that nothing is read from: messages and files to copy."""
_TEST_ENDING: Final = ".test.yaml"
_NEVER_MEANT: Final = re.compile(
    r"(?i)(?!.*\.ya?ml\.)(readme.*|license.*|.*\.(md|txt|hl7|dat|pem|crt|cer|csr|key|p12|pfx|jks|sh|py|gitignore|gitkeep))"
)
"""Files that stand beside a configuration and are none of it."""


class Loaded(Record, frozen=True, kw_only=True):
    """One loading of a configuration by a daemon: at its start, or by a reload."""

    id: str
    at: datetime
    who: str
    """The operating system's user, as far as the kernel told us."""
    by: str
    """`run` or `reload`."""


@dataclass(frozen=True)
class Snapshot:
    """All text of a configuration. Keys are paths relative to `base` (`config.yaml`, `channels/main-campus.yaml`)."""

    base: Path
    """The folder of config.yaml: relative paths in the configuration are relative to it."""
    site_file: str
    files: Mapping[str, str]
    tests: Mapping[str, str] = field(default_factory=dict)
    """The test files beside them, which are no part of the version."""
    remarks: tuple[Problem, ...] = ()
    """What was found on reading: problems and warnings about files that are not read, or that others may change."""
    loaded: Loaded | None = None
    """By whom a daemon was given it; none: it is only looked at."""

    @classmethod
    def read(cls, config: Path) -> Snapshot:
        """Read config.yaml and what stands below its channels and mappings folders. Raises SettingsError."""
        base = config.resolve().parent
        reading = _Reading(base)
        text = reading.read(config, config.name)
        site = validate(parse(text, config.name), _Folders)
        files: dict[str, str] = {config.name: text}
        tests: dict[str, str] = {}
        for key, folder in (("channels", site.channels), ("mappings", site.mappings)):
            root = _inside(base, folder)
            if root is None:
                where = parse(text, config.name).problem((key,), f"must be a folder below {base}, not {folder}")
                raise SettingsError((where,))
            if not (base / root).is_dir():
                where = parse(text, config.name).problem((key,), f"the folder {folder} does not exist")
                raise SettingsError((where,))
            for path in reading.walk(base / root, mappings=key == "mappings"):
                name = path.relative_to(base).as_posix()
                try:
                    (tests if name.endswith(_TEST_ENDING) else files)[name] = reading.read(path, name)
                except SettingsError as error:
                    reading.remarks.extend(error.problems)
        return cls(base, config.name, files, tests, tuple(reading.remarks))

    @cached_property
    def version(self) -> str:
        """Digest of the whole configuration; names it in the store."""
        return version_of(self.files)

    def document(self, file: str) -> Document:
        """A parsed file. Raises SettingsError."""
        parsed = self._parsed
        if file not in parsed:
            document = parse(self.files[file], file)
            if sum(len(one.places) for one in parsed.values()) + len(document.places) > VALUES_MAX:
                text = f"with this file the configuration holds more than {VALUES_MAX:,} values"
                raise SettingsError((Problem(file, 1, 1, "", text),))
            parsed[file] = document
        return parsed[file]

    @cached_property
    def _parsed(self) -> dict[str, Document]:
        return {}

    def below(self, folder: str) -> tuple[str, ...]:
        """The files below a folder, in order of name."""
        prefix = os.path.normpath(folder) + "/"
        return tuple(name for name in sorted(self.files) if name.startswith(prefix))


def version_of(files: Mapping[str, str]) -> str:
    """The digest that names a configuration of these files."""
    digest = hashlib.sha256()
    for name, text in sorted(files.items()):
        digest.update(f"{name}\0{len(text)}\0{text}".encode())
    return digest.hexdigest()[:16]


class _Folders(StrictModel):
    """The two keys of config.yaml that say which other files there are; the rest is validated later."""

    model_config = StrictModel.model_config | {"extra": "ignore"}
    channels: Text = "channels"
    mappings: Text = "mappings"


@dataclass(frozen=True)
class Configuration:
    """A whole, valid configuration: shapes and references checked, nothing compiled yet."""

    snapshot: Snapshot
    site: Site
    channels: Mapping[str, Channel]
    channel_documents: Mapping[str, Document]
    """By channel name, for problems that only the compiler can find."""
    warnings: tuple[Problem, ...] = ()

    def path(self, relative: str) -> Path:
        """A path of the configuration, made absolute."""
        return self.snapshot.base / relative

    def feeding(self, destination: str) -> frozenset[str]:
        """The channels that deliver charts to a destination. One in shadow delivers nothing."""
        return frozenset(
            name
            for name, channel in self.channels.items()
            if channel.mode != "shadow"
            and any(one.to == destination and set(one.what) - {"message"} for one in channel.deliver)
        )

    def destination(self, name: str) -> Destination:
        """The settings of a destination, its timeout not longer than stopping allows."""
        settings = self.site.destinations[name]
        seconds = min(settings.timeout_seconds, self.site.call_seconds_max)
        return settings.model_copy(update={"timeout_seconds": seconds})


def loaded(configuration: Configuration, *, who: str, by: str, at: datetime) -> Configuration:
    """The same configuration, as one that a daemon is given to work by."""
    snapshot = replace(configuration.snapshot, loaded=Loaded(id=secrets.token_hex(8), at=at, who=who, by=by))
    return replace(configuration, snapshot=snapshot)


References = Literal["required", "optional", "never"]
"""What becomes of `{env: ...}` and the like: their values must be there; they may be missing (a check without the
production's secrets); they are not looked up (a recorded configuration: its text comes from the store)."""


def load(snapshot: Snapshot, *, references: References = "required") -> Configuration:
    """Validate config.yaml and every channel file. Raises SettingsError with all problems of all files at once."""
    problems = [remark for remark in snapshot.remarks if remark.level == "problem"]

    def read(file: str, model: type[Any]) -> tuple[Document, Any]:
        try:
            document = snapshot.document(file)
            value = _references(document, document.value, (), snapshot.base, problems, mode=references)
            resolved = Document(document.file, value, document.places)
            problems.extend(_empty_tls(document, value, ()))
            return resolved, validate(resolved, model)
        except SettingsError as error:
            problems.extend(error.problems)
            return Document(file, {}, {}), None

    site_document, site = read(snapshot.site_file, Site)
    problems.extend(_timeout_problems(site_document, site) if site is not None else ())
    problems.extend(_keys_inside(snapshot) if site is not None else ())
    channels: dict[str, Channel] = {}
    documents: dict[str, Document] = {}
    folder = site.channels if site else "channels"
    ports: dict[tuple[str, int], str] = {}
    if site is not None:
        ports[site.console.host, site.console.port] = "the console"
    for file in snapshot.below(folder):
        document, channel = read(file, Channel)
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
                elif not set(deliver.what) <= _TAKES[destination.type]:
                    known = ", ".join(sorted(_TAKES[destination.type]))
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
    base = config.resolve().parent
    text = _Reading(base).read(config, config.name)
    snapshot = Snapshot(base, config.name, {config.name: text})
    found: dict[str, Any] = {}
    for key in _TO_READ:
        try:
            value = snapshot.document(config.name).value.get(key)
        except SettingsError:
            value = _value_alone(text, key)
        problems: list[Problem] = []
        document = Document(config.name, {key: value}, {})
        value = _references(document, value, (key,), base, problems, mode="required")
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


def _inside(base: Path, folder: str) -> str | None:
    """A folder of the configuration as a path below its base; none when it lies elsewhere."""
    try:
        relative = os.path.relpath(os.path.normpath(base / folder), base)
    except ValueError:
        return None
    return None if relative == "." or relative.startswith("..") or "\0" in folder else relative


class _Reading:
    """Reads the files of a configuration within limits, and remarks on those that are not read."""

    def __init__(self, base: Path) -> None:
        self.remarks: list[Problem] = []
        self._base = base
        self._bytes = 0
        self._files = 0

    def read(self, path: Path, name: str) -> str:
        """Raises SettingsError."""
        try:
            raw, status = read_with_status(path, bytes_max=TEXT_CHARS_MAX)
        except UnreadableFileError as error:
            raise _unusable(name, error.reason) from None
        self._bytes += len(raw)
        if self._bytes > SNAPSHOT_BYTES_MAX:
            raise _unusable(name, f"with this file the configuration is larger than {SNAPSHOT_BYTES_MAX >> 20} MiB")
        if status.st_mode & stat.S_IWOTH:
            self._remark(name, "everybody on this machine may change this file: chmod o-w", "problem")
        elif foreign_owner(status, path.parent):
            self._remark(name, "belongs to another user, who may change it: chown it to root or to the service's user")
        return _decoded(raw, name)

    def walk(self, root: Path, *, mappings: bool) -> list[Path]:
        """The YAML files below a folder. Raises SettingsError for a folder that can't be read, or is none of a site."""
        found: list[Path] = []
        folders, entries = [root], 0
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as listed:
                    for entry in listed:
                        entries += 1
                        if entries > ENTRIES_MAX:
                            text = f"holds more than {ENTRIES_MAX:,} files and folders: it can't be one of a site"
                            raise _unusable(str(root.relative_to(self._base)), text)
                        if folder == root and entry.name == EXAMPLES:
                            continue
                        if entry.name.startswith("."):  # hidden: an editor's, or what links to a mounted folder lead to
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            self._folder(Path(entry.path), root, mappings=mappings)
                            folders.append(Path(entry.path))
                        elif self._is_meant(Path(entry.path), root, mappings=mappings):
                            found.append(Path(entry.path))
            except OSError as error:
                raise _unusable(str(error.filename or folder), f"can't be read: {error.strerror}") from None
        self._files += len(found)
        if self._files > FILES_MAX:
            raise _unusable(str(root.relative_to(self._base)), f"more than {FILES_MAX:,} files of YAML")
        return sorted(found)

    def _folder(self, folder: Path, root: Path, *, mappings: bool) -> None:
        if folder.name.endswith((".yaml", ".yml")):
            self._remark(self._name(folder), "not read as a file: it is a folder", "problem")
        elif mappings and folder.parent == root and folder.name not in MAPPING_FOLDERS:
            near = did_you_mean(folder.name, MAPPING_FOLDERS)
            self._remark(
                self._name(folder), f"not read: {root.name} has the folders {', '.join(MAPPING_FOLDERS)}{near}"
            )

    def _is_meant(self, path: Path, root: Path, *, mappings: bool) -> bool:
        """Whether it is a file of the configuration; if it only looks like one, that is remarked."""
        name, below = path.name, path.parent.relative_to(root).parts
        if path.is_dir():
            self._remark(self._name(path), "not read: a link to a folder is not followed")
        elif name.endswith(".yaml") and name != ".yaml":
            if mappings and (len(below) != 1 or below[0] not in MAPPING_FOLDERS):
                if not below or below[0] in MAPPING_FOLDERS:
                    where = (
                        f"{root.name}/{below[0]}"
                        if below
                        else f"a folder of {root.name}: " + ", ".join(MAPPING_FOLDERS)
                    )
                    self._remark(self._name(path), f"not read: move it into {where}", "problem")
                return False
            return True
        elif name.lower().endswith((".yaml", ".yml")):
            self._remark(self._name(path), f"not read: its name must end in .yaml ({path.stem}.yaml)", "problem")
        elif not _NEVER_MEANT.fullmatch(name):
            self._remark(self._name(path), "not read: only names that end in .yaml are (rename it, or take it away)")
        return False

    def _name(self, path: Path) -> str:
        return path.relative_to(self._base).as_posix()

    def _remark(self, name: str, message: str, level: Literal["problem", "warning"] = "warning") -> None:
        self.remarks.append(Problem(name, 1, 1, "", message, level))


def _unusable(name: str, message: str) -> SettingsError:
    return SettingsError((Problem(name, 1, 1, "", message),))


def _decoded(raw: bytes, name: str) -> str:
    """The text of a file, in words that help when it is none. Raises SettingsError."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or raw[:2].count(0) == 1:
        raise _unusable(name, "is UTF-16 text: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        text = f"the byte {raw[error.start]:02X} is not UTF-8 (Latin-1 or Windows-1252?): save the file as UTF-8"
        raise SettingsError((Problem(name, line, column, "", text),)) from None


def _references(
    document: Document,
    value: Any,
    path: tuple[str | int, ...],
    base: Path,
    problems: list[Problem],
    *,
    mode: References,
) -> Any:
    """Replace `{env: NAME}`, `{file: PATH}` and `{credential: NAME}` by what they name."""
    if isinstance(value, list):
        return [
            _references(document, item, (*path, index), base, problems, mode=mode) for index, item in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        kind, name = next(iter(value.items()))
        if kind in {"env", "file", "credential"} and isinstance(name, str):
            found, reason = _look_up(kind, name, base) if mode != "never" else (None, None)
            if not found and mode != "required":
                return _UNRESOLVED
            if not found:
                problems.append(document.problem(path, f"{kind} {name} {reason or 'is not there or is empty'}"))
                return _UNRESOLVED
            return found
    return {key: _references(document, item, (*path, key), base, problems, mode=mode) for key, item in value.items()}


def _look_up(kind: str, name: str, base: Path) -> tuple[str | None, str | None]:
    """The value, and why there is none when it is not simply missing."""
    if kind == "env":
        return os.environ.get(name), None
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) if kind == "credential" else base
    try:
        return read_regular(folder / name, bytes_max=SECRET_BYTES_MAX).decode().strip(), None
    except UnreadableFileError as error:
        return None, None if error.missing else error.reason
    except UnicodeDecodeError:
        return None, "is not UTF-8 text"
