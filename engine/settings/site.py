"""`config.yaml`, as strict models."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import date
from typing import Annotated, ClassVar, Final, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from engine.domain.partition import PARTITIONS
from engine.domain.retention import Period, Policy
from engine.outline import (
    CHECKPOINT_ROWS,
    CHECKPOINTS,
    CONSOLE_HOST,
    CONSOLE_PORT,
    KEYS_SECONDS_MAX,
    NODE,
    ROLES,
    SEARCHES_PER_HOUR_MAX,
    STORE_KEYS,
    STORE_URL,
    TIMEZONE,
)
from engine.settings.secret import Secret
from engine.settings.values import Folder, HttpsUrl, Identifier, Port, Reason, Seconds, Text, TlsMinimum, _check_zone
from engine.snapshot import UNRESOLVED
from engine.yamlmodel import StrictModel


class KeysFromCommand(StrictModel):
    """A command that prints the content of the key file, as that of a key management service does."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Program and arguments, run without a shell in the folder of config.yaml, by each process that needs the keys."""
    seconds_max: Seconds = KEYS_SECONDS_MAX
    """Longest time that it may take."""


_SYSLOG: Final = re.compile(r"(udp|tcp|tls)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}|unix:/.+")


class Store(StrictModel):
    """The database and the keys that open it."""

    url: Text = STORE_URL
    """The database: `sqlite:///PATH` (relative to config.yaml) or `postgresql+psycopg://USER@HOST/DB`."""
    plaintext: Reason | None = None
    """Why a database on another machine is spoken to without `sslmode=verify-full`."""
    keys: Annotated[Annotated[str, Field(min_length=1, max_length=1 << 16)] | KeysFromCommand, Field(repr=False)] = (
        STORE_KEYS
    )
    """The key file (mode 0600), relative to config.yaml: `handoff init` makes it; keep a copy elsewhere. Or its
    content, out of a credential or from a command."""

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        scheme, _, rest = url.partition("://")
        known = (scheme == "sqlite" and rest.strip("/")) or scheme in {"postgresql+psycopg", "postgresql"}
        if known or url == UNRESOLVED:
            return url
        raise ValueError("must be sqlite:///PATH or postgresql+psycopg://USER@HOST/DB")


class ConsoleTls(StrictModel):
    """TLS for browsers and services."""

    cert: Text
    """PEM file of the certificate with its chain, relative to config.yaml."""
    key: Text
    """PEM file of its private key."""


class Console(StrictModel):
    """The HTTP listener of `/healthz`, `/readyz`, `/metrics`, the API and the console."""

    host: Text = CONSOLE_HOST
    """Address to listen on. Loopback unless told."""
    port: Port = CONSOLE_PORT
    """TCP port."""
    tls: ConsoleTls | None = None
    """TLS for whoever connects; none: plain HTTP."""
    hosts: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    """Names by which it may be asked besides loopback, as a proxy passes them on; none, beyond loopback: any."""
    plaintext: Reason | None = None
    """Why other machines may reach it in clear (a proxy with TLS before it, say)."""


class Hooks(StrictModel):
    """The HTTP listener for what far ends tell us, apart from the console's: `/hooks/NAME/ack`, and of carriers
    `/hooks/NAME/message` and `/hooks/NAME/status`.
    """

    host: Text = "127.0.0.1"
    """Address to listen on. Loopback unless told: put a proxy with TLS before it."""
    port: Port
    """TCP port."""
    public_url: HttpsUrl | None = None
    """Address under which far ends reach it, with the path that a proxy takes away: what carriers sign. None: the one
    that was called."""
    plaintext: Reason | None = None
    """Why other machines may reach it in clear (a proxy with TLS before it, say)."""


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


class Disclosure(StrictModel):
    """What a copy that goes to the destination counts as when a patient asks who was told (45 CFR 164.528)."""

    as_: Annotated[Identifier, Field(alias="as")]
    """A ground of `mappings/privacy/disclosures.yaml`: `tpo`, `accountable`, `patient`, `authorization`, ..."""
    recipient: Text
    """Name of who gets it, as the patient is to read it."""
    address: Text | None = None
    """Their address, where it is known."""
    purpose: Text | None = None
    """Why they get it, in words; of an accountable one it has to be said."""


class DestinationBase(StrictModel):
    """What all destinations have in common. Each type is a subclass, in the file of its connector."""

    takes: ClassVar[frozenset[str]] = frozenset()
    """What it can be given, as `deliver.what` names it."""
    sends_texts: ClassVar[bool] = False
    """What it is given as `text` it sends to the patient; any other that takes them records how texts stand."""
    takes_checkpoints: ClassVar[bool] = False
    """It can be named in `trail.checkpoints`."""
    is_heard_by_hooks: ClassVar[bool] = False
    """What people reply there comes by a call at `hooks`."""

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
    disclosure: Disclosure | None = None
    """Who gets it and what for, for the accounting of disclosures; none: its copies are listed there as not marked."""
    restricted: Literal["withhold", "without_clinical", "send"] = "send"
    """What it gets of a record under a restriction of the file of roles: nothing, what is not clinical nor hidden by
    the restriction, or all. What it gets carries the notice of the restriction."""
    part2: Literal["withhold", "needs_consent", "send"] = "needs_consent"
    """What it gets of records of 42 CFR Part 2: nothing, what the patient has consented to, or all (it is part of the
    program, or serves it under an agreement)."""
    event_notices: bool = False
    """What goes there are notices of events to other providers (42 CFR 482.24(d)): a patient may refuse them."""
    test_data: bool = False
    """It takes test data too; of all others it is withheld (`test-data`). What it was told of a test patient it is not
    told to forget when the number turns out to be a living patient's: let it be a destination for tests alone."""

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
    minimum: TlsMinimum = "1.2"
    """Least version that is spoken: 1.2, with authenticated ciphers (AEAD) alone, or 1.3."""

    @model_validator(mode="after")
    def _key_with_cert(self) -> TlsClient:
        if self.key is not None and self.cert is None:
            raise ValueError("has a key and no cert: give both, to show the receiver who we are")
        return self


class Oidc(StrictModel):
    """Single sign-on: the provider of OpenID Connect that people log in at."""

    issuer: HttpsUrl
    """Its address; what it can do it says itself (`/.well-known/openid-configuration`)."""
    client_id: Text
    """Name under which it knows this site."""
    client_secret: Secret | None = None
    """Secret of that name; none: it asks for none (PKCE is used in any case)."""
    scopes: tuple[Identifier, ...] = ("openid", "profile")
    """What it is asked for."""
    name_claim: Identifier = "preferred_username"
    """Claim that names the account here. Nobody who has none is let in."""
    mfa: tuple[Text, ...] = ("mfa", "otp", "hwk", "swk", "fpt", "sc")
    """Values of the claim `amr` (RFC 8176) of which one has to be there: a second factor was used. Empty: not asked."""
    ca: Text | None = None
    """PEM file of the authorities that may have signed its certificate; none: the system's."""


class Access(StrictModel):
    """Who may see what: accounts of people and services, and what their roles allow."""

    provider: Literal["local", "oidc", "local+oidc"] = "local"
    """Where people log in: with a password here, at a provider of OpenID Connect, or at either."""
    roles: Text = ROLES
    """File of the roles, below the mappings, relative to config.yaml."""
    oidc: Oidc | None = None
    """The provider of OpenID Connect."""
    local_users: dict[Text, Identifier] = {}
    """User of the operating system -> account, at the command line; others have the account of their own name."""
    grace_days: Annotated[float, Field(ge=0, le=366)] = 7.0
    """Days for which a patient stays somebody's after the stay, task or appointment that made them so has ended."""
    session_minutes_max: Annotated[int, Field(ge=5, le=1440)] = 720
    """Longest time that somebody stays logged in."""
    idle_minutes_max: Annotated[int, Field(ge=1, le=1440)] = 15
    """Time without a click after which they have to log in again."""
    tries_max: Annotated[int, Field(ge=3, le=100)] = 5
    """Wrong passwords or codes in a row after which an account has to wait, longer with each further one."""

    glass_notices: Annotated[tuple[Identifier, ...], Field(max_length=8)] = ()
    """Destinations that are told at once when somebody breaks the glass, without anything of the patient, and reminded
    until it is attested."""
    glass_reminder_hours: Annotated[float, Field(ge=1, le=168)] = 24.0
    """Hours between two reminders."""

    @model_validator(mode="after")
    def _provider_is_there(self) -> Access:
        if "oidc" in self.provider and self.oidc is None:
            raise ValueError(f"provider is {self.provider} and there is no oidc: say issuer and client_id")
        if self.provider == "local" and self.oidc is not None:
            raise ValueError("has an oidc and the provider is local: say `provider: local+oidc`, or take it away")
        return self


class CheckpointPlace(StrictModel):
    """One place outside of the database for checkpoints of the trail: `file`, `syslog` or `destination`."""

    file: Text | None = None
    """File that lines are added to, relative to config.yaml: best on another host, or one that can only be added to."""
    syslog: Text | None = None
    """Receiver of RFC 5424: `udp://HOST:PORT`, `tcp://HOST:PORT`, `tls://HOST:PORT`, `unix:/dev/log`."""
    destination: Identifier | None = None
    """A destination of type `webhook`: it gets each one as a signed call of its own, and what it took is noted here."""

    @field_validator("syslog")
    @classmethod
    def _known_kind(cls, address: str | None) -> str | None:
        if address is None or address == UNRESOLVED or _SYSLOG.fullmatch(address):
            return address
        raise ValueError("must be udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:PATH")

    @model_validator(mode="after")
    def _one(self) -> CheckpointPlace:
        if sum(one is not None for one in (self.file, self.syslog, self.destination)) != 1:
            raise ValueError("names one place: give either file, syslog or destination")
        return self


class Trail(StrictModel):
    """The audit trail: where its checkpoints go."""

    checkpoints: Annotated[tuple[CheckpointPlace, ...], Field(max_length=8)] = (CheckpointPlace(file=CHECKPOINTS),)
    """Places for checkpoints. Without one outside of the database nobody can tell a trail that was cut off."""
    checkpoint_rows: Annotated[int, Field(ge=1, le=1_000_000)] = CHECKPOINT_ROWS
    """Records after which a checkpoint is made."""
    checkpoint_seconds: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """Seconds after which one is made in any case."""
    searches_per_hour_max: Annotated[int, Field(ge=1, le=1_000_000)] = SEARCHES_PER_HOUR_MAX
    """How often one person may ask for patients by who they are (key, name, birth date, visit) within an hour."""


class Backup(StrictModel):
    """How often the store is backed up."""

    hours_max: Annotated[float, Field(gt=0, le=8784)] = 26.0
    """Age of the last backup from which on `status` and the metrics say that something is wrong."""
    erasure_keys: Folder | None = None
    """Folder of the file of erasure keys, relative to config.yaml; none: that of the backup. No older copy of the file
    may be kept: with it, what was erased since can be read in backups."""


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


TRAIL_YEARS_MIN: Final = 6
"""45 CFR 164.316(b)(2): what was done has to be on record for six years."""


class Retention(StrictModel):
    """How long what is stored is kept. A legal hold, and whatever somebody still waits for, is kept beyond that."""

    messages_days: Annotated[int, Field(ge=1, le=36_500)] = 365
    """Messages as they came, and what else stands in the journal."""
    deliveries_days: Annotated[int, Field(ge=1, le=36_500)] = 365
    """What was delivered, as it was sent."""
    charts_years: Annotated[int, Field(ge=1, le=100)] = 7
    """Charts of patients of whom nothing was heard for so long."""
    trail_years: Annotated[int, Field(le=100)] = 7
    """The sealed part of the trail's records: reasons, patients, addresses."""
    automatic: bool = True
    """The daemon sweeps once a day; false: only `handoff sweep` does."""

    @field_validator("trail_years")
    @classmethod
    def _as_long_as_the_law_says(cls, years: int) -> int:
        if years < TRAIL_YEARS_MIN:
            raise ValueError(f"the trail is kept for at least {TRAIL_YEARS_MIN} years (45 CFR 164.316(b)(2)(i))")
        return years

    @property
    def policy(self) -> Policy:
        return Policy(
            messages=Period(days=self.messages_days),
            deliveries=Period(days=self.deliveries_days),
            charts=Period(years=self.charts_years),
            trail=Period(years=self.trail_years),
        )


class TextCaps(StrictModel):
    """Most texts to one patient, of all series together."""

    day: Annotated[int, Field(ge=1, le=20)] = 1
    """In a calendar day where the patient lives."""
    week: Annotated[int, Field(ge=1, le=100)] = 3
    """In seven days."""


class TextSettings(StrictModel):
    """Texts to patients: who writes, and the limits that hold for all series."""

    programme: Annotated[str, Field(min_length=1, max_length=40)] = "Your hospital care team"
    """Who writes, as the patient reads it: {programme} in all texts."""
    phone: Annotated[str, Field(min_length=3, max_length=20)] | None = None
    """Number that a patient can call, as the patient reads it: {phone}."""
    portal: Annotated[str, Field(min_length=3, max_length=60)] | None = None
    """Address of the patient portal, as the patient reads it: {portal}."""
    region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "US"
    """Country (ISO 3166-1) whose national form numbers may have."""
    regions: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Z]{2}$")], ...], Field(max_length=50)] = ()
    """Countries whose numbers are written to; none: that of `region`, with its territories."""
    default_language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] = "en"
    """Language (ISO 639-1) of answers to whom no other is known."""
    opt_out_scope: Literal["all", "purpose"] = "all"
    """What one STOP ends: all texts to the number, or those for the purpose of the text that it answers."""
    opt_out_scope_from: date | None = None
    """Day from which on `purpose` counts; before it one STOP ends all."""
    caps: TextCaps = TextCaps()
    """Most texts to one patient, where a series does not say it."""

    @model_validator(mode="after")
    def _narrow_scope_has_a_date(self) -> TextSettings:
        if self.opt_out_scope != "all" and self.opt_out_scope_from is None:
            raise ValueError("a scope of STOP that is not `all` needs its first day: opt_out_scope_from: 2027-02-01")
        return self

    def scope_of_opt_out(self, day: date) -> Literal["all", "purpose"]:
        """What a STOP of this day ends."""
        begins = self.opt_out_scope_from
        return self.opt_out_scope if begins is not None and day >= begins else "all"


class SiteClock(StrictModel):
    """Another clock than the system's, for a site that is there to test: weeks pass in seconds."""

    offset_seconds_file: Text
    """File with one number: seconds that are added to the system's clock in all processes of the site. Read anew at
    least 5 times a second; no file: 0."""


class Site(StrictModel):
    """The site: this node, its store, its console and its destinations."""

    node: Identifier = NODE
    """Name of this node, unique among those that share a store."""
    purpose: Literal["production", "test"] = "production"
    """What the site is there for. Only a test site may have a `clock`."""
    clock: SiteClock | None = None
    """Of a test site: its clock; none: the system's."""
    store: Store = Store()
    """Where everything is kept."""
    console: Console = Console()
    """HTTP listener of health, metrics and console."""
    hooks: Hooks | None = None
    """HTTP listener for what far ends tell; none: they can tell nothing."""
    destinations: dict[Identifier, DestinationBase] = {}
    """Name -> destination. Channels name them under `deliver`."""
    access: Access | None = None
    """Accounts and roles; none: the local command line may do everything, and HTTP answers on loopback only."""
    trail: Trail = Trail()
    """The audit trail."""
    backup: Backup | None = None
    """That the store is backed up; none: nobody is told when it is not."""
    retention: Retention = Retention()
    """How long what is stored is kept."""
    calendar: Calendar = Calendar()
    """Business days and the site's zone."""
    texts: TextSettings = TextSettings()
    """Texts to patients."""
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

    @field_validator("clock")
    @classmethod
    def _only_for_tests(cls, clock: SiteClock | None, info: ValidationInfo) -> SiteClock | None:
        if clock is not None and info.data.get("purpose") == "production":
            raise ValueError("patients are cared for by the real time: take it away, or say `purpose: test`")
        return clock

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
