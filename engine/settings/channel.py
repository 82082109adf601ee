"""A channel file, as strict models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from engine.domain.delivery import WHAT
from engine.settings.values import (
    Identifier,
    Network,
    Port,
    Reason,
    Seconds,
    Text,
    TlsMinimum,
    _check_zone,
    either_tls_or_plaintext,
)
from engine.yamlmodel import StrictModel


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
    minimum: TlsMinimum = "1.2"
    """Least version that is spoken: 1.2, with authenticated ciphers (AEAD) alone, or 1.3."""

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
    plaintext: Reason | None = None
    """Why senders on other machines may send in clear (`VPN of the hospital, ticket 4711`). Without a reason `check`
    warns of it."""
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

    @model_validator(mode="after")
    def _either(self) -> Listen:
        return either_tls_or_plaintext(self)


class ReturnAddress(StrictModel):
    """A listener of the sender's for application ACKs."""

    host: Text
    """Name or address."""
    port: Port
    """TCP port."""
    plaintext: Reason | None = None
    """Why answers may leave this machine in clear, for which there is no TLS. They name control ids, and no patient."""


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
    """Processing ids (MSH-11.1): `P` production, `T` training, `D` debugging. What comes as T or D is test data."""

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
    link_with_mrg: Literal["ask", "merge"] = "ask"
    """What a link (A24) with an MRG segment means, which the standard does not have there. merge: MRG-1 into PID-3, as
    some radiology systems send it; ask: a person is asked."""

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


if TYPE_CHECKING:
    What = str
else:
    What = Literal[WHAT]  # a name for each of them in the JSON Schema


class DeliverTo(StrictModel):
    """What one destination gets."""

    to: Identifier
    """Name of a destination in config.yaml."""
    what: Annotated[tuple[What, ...], Field(min_length=1)]
    """Kinds of delivery; each type of destination takes some of them. `message` is the message itself, byte for byte;
    `page` is how a page stands, `text` and `mail` are notices to people. (Who is paged: mappings/oncall/.)"""


class Order(StrictModel):
    """How far the times that a message claims are believed; outside, the next source or the receipt stands in."""

    ahead_seconds_max: Annotated[int, Field(ge=0, le=86_400)] = 300
    """Seconds that a sender's clock may be ahead of ours."""
    behind_days_max: Annotated[int, Field(ge=1, le=55_000)] = 9_000
    """So old may an event be: a history that is loaded keeps its order, a clock that was reset is noticed."""
    cancel_waits_minutes_max: Annotated[int, Field(ge=0, le=43_200)] = 1_440
    """So long a cancel waits for what it cancels before it is trouble that a person should see to."""


class Channel(StrictModel):
    """One feed: where it arrives, what is taken, what it means, who hears of it."""

    name: Identifier
    """Name of the channel, unique in the site."""
    mode: Literal["live", "shadow", "paused"] = "live"
    """live; shadow: it writes charts, scores and tasks of its own, for looking alone, and nothing is delivered (see
    docs/guides/destinations.md); paused: messages are stored and answered, and wait."""
    test: bool = False
    """All that comes is test data, whatever its MSH-11 says (see docs/hl7.md)."""
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
    appointments: Identifier = "standard"
    """What its scheduling system means by events and status codes: the name of a file in mappings/appointments/."""
    risk: tuple[Identifier, ...] = ()
    """Risk models, by the names of files in mappings/risk/; the first decides the band."""
    protocol: Identifier | None = None
    """Protocol of follow-up tasks: the name of a file in mappings/protocols/; none: no tasks."""
    blank_disposition: Literal["hold", "home", "none"] = "hold"
    """What a discharge without a disposition (PV1-36) means: `hold` asks a person, `home` is code 01, `none` plans
    nothing. After 20 in a row of one sender nobody is asked about each any more: the data-quality list has one item of
    it, with a count."""
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
