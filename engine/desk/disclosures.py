"""The accounting of disclosures of a patient, ready to be given out (45 CFR 164.528)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from engine.desk import finding
from engine.domain.delivery import DeliveryState
from engine.domain.patient import Identifier, Patient
from engine.domain.record import Phi
from engine.errors import HandoffError, NotFoundError
from engine.privacy.disclosures import IMPERMISSIBLE, Accounting, Copy, Line, Recipient, Suspension, account
from engine.privacy.rules import needed
from engine.runtime.oversight import worksheets_of

if TYPE_CHECKING:
    from engine.desk.desk import Desk, Reveal
    from engine.domain.audit import Recorded
    from engine.domain.chart import Chart
    from engine.privacy.breach import Worksheet
    from engine.privacy.disclosures import DisclosuresFile

ACTION = "disclosures-accounted"
SUSPENDED = "accounting-suspended"
_SAYS_OF_COPIES = frozenset({"patient-exported", "trail-exported", SUSPENDED})
PURPOSE = "PATRQT"


class Accounted(Phi, frozen=True, kw_only=True):
    """patient: as it may be shown."""

    patient: dict[str, Any]
    since: datetime
    until: datetime
    made_at: datetime
    answer_by: datetime
    version: str
    accounting: Accounting
    remarks: tuple[str, ...]
    revealed: bool


def accounted(
    desk: Desk, named: str, since: datetime | None, until: datetime | None, reveal: Reveal | None
) -> Accounted:
    """On record before it is shown. Raises NotFoundError, SettingsError."""
    from engine.domain.shapes import patient_shape
    from engine.store import disclosed

    rules = rules_of(desk)
    until = until or desk.now
    earliest = _years_before(desk.now, rules.years)
    since = since or earliest
    who = _who(desk, named)
    chart, family = who.chart, who.family
    with desk.store.reader() as conn:
        sent = disclosed.sent(conn, family, since, until)
        looks = disclosed.looks(conn, family, since, until)
        records = [one for id_ in family for one in desk.store.audit.find(conn, patient=id_, limit=None)]
        damaged: list[str] = []
        sheets = worksheets_of(desk.store, conn, damaged.append)
    about = f"chart:{chart.id}" if chart is not None else _ERASED
    more = {} if chart is not None else {"patients": tuple(family)}
    desk.audit(ACTION, [about], reveal.reason if reveal is not None else None, **more)
    view = desk.view(reveal, [about])
    recipients = _Recipients(desk)
    copies = [
        Copy(at=one.at, ground=one.mark, operation=one.operation, **recipients.of(one.destination, one.at))
        for one in sent
        if one.state is DeliveryState.DELIVERED
    ]
    copies += _given_out(records, since, until)
    copies += _got_by_others(sheets, family, since, until)
    given = {one.seq for one in records if "given_to" in one.facts}
    uses = Counter(rules.of_purpose(one.purpose) for one in looks if one.seq not in given)
    doubtful = Counter(one.destination for one in sent if one.state is DeliveryState.HELD)
    remarks = [
        f"Whether {number:,} further cop{'y' if number == 1 else 'ies'} reached {name} is not known: a person has to"
        " decide (`handoff held list`)."
        for name, number in sorted(doubtful.items())
    ]
    remarks += [f"The worksheet of breach {one} can't be read: whether it is about this patient is not known."
                for one in damaged]  # fmt: skip
    remarks += [
        f"Record {one.seq} ({one.action}) was altered or is gone in part, so what it says of a copy is not here:"
        " `handoff audit verify`."
        for one in records
        if one.damaged is not None and one.action in _SAYS_OF_COPIES
    ]
    if since < earliest:
        remarks.append(f"It goes back further than the {rules.years} years that the rule asks for.")
    remarks += [f"What the engine knew of the patient was erased on {at:%Y-%m-%d}." for at in who.erased_at]
    patient = chart.patient if chart is not None else Patient(identifiers=(who.asked,))
    shown = view.patient(patient_shape(patient))
    return Accounted(
        patient={name: shown.get(name) for name in ("key", "name", "birth_date", "address")},
        since=since,
        until=until,
        made_at=desk.now,
        answer_by=desk.now + timedelta(days=rules.answer_days),
        version=rules.version,
        accounting=account(
            copies,
            rules,
            ZoneInfo(desk.configuration.site.calendar.timezone),
            uses=uses,
            suspensions=_suspensions(records),
            now=desk.now,
        ),
        remarks=tuple(remarks),
        revealed=reveal is not None,
    )


class _Who(NamedTuple):
    """chart: none: the patient was erased. family: ids of all charts that were theirs, erased ones among them."""

    chart: Chart | None
    family: list[str]
    erased_at: list[datetime]
    asked: Identifier


_ERASED: Final = "patient:erased"


def _who(desk: Desk, named: str) -> _Who:
    """Whose accounting it is. What was told of an erased patient is accounted for as well. Raises NotFoundError."""
    from engine.store.retention import erased_charts

    authority, _, value = named.partition(":")
    asked = Identifier(value=value, authority=authority)
    chart: Chart | None = None
    try:
        chart = finding.chart(desk, named)
    except NotFoundError:
        with desk.store.reader() as conn:
            gone = erased_charts(desk.store, conn, [named])
            if not gone or desk.store.charts.by_key(conn, named):
                raise
        desk.found(gone)
        return _Who(None, sorted(gone), sorted(set(gone.values())), asked)
    with desk.store.reader() as conn:
        family = desk.store.charts.family(conn, {chart.id})
        gone = erased_charts(desk.store, conn, sorted(desk.store.charts.keys_of(conn, family)))
    return _Who(chart, sorted(family | gone.keys()), sorted(set(gone.values())), asked)


def _given_out(records: Sequence[Recorded], since: datetime, until: datetime) -> Iterator[Copy]:
    """Copies that people gave out by a command, as the trail says."""
    for one in {record.seq: record for record in records}.values():
        said = one.facts.get("given_to")
        if said and one.result == "allowed" and since <= one.at < until:
            recipient = Recipient(name=said["recipient"], address=said.get("address"))
            yield Copy(
                at=one.at,
                ground=said["as"],
                recipient=recipient,
                operation=one.action,
                purpose=said.get("purpose"),
                typed=True,
            )


def _got_by_others(
    sheets: Sequence[Worksheet], family: Sequence[str], since: datetime, until: datetime
) -> Iterator[Copy]:
    """What somebody outside has got without leave."""
    for sheet in sheets:
        day = sheet.happened_on or sheet.known_on
        at = datetime.combine(day, time(12), UTC)
        if sheet.recipient is not None and since <= at < until and not {*family}.isdisjoint(sheet.charts):
            recipient = Recipient(name=sheet.recipient)
            what = sheet.assessment.factors.get("nature") if sheet.assessment is not None else None
            yield Copy(
                at=at, ground=IMPERMISSIBLE, recipient=recipient, operation="breach-opened", purpose="not permitted",
                description=what or sheet.what, typed=True,
            )  # fmt: skip


def _suspensions(records: Sequence[Recorded]) -> list[Suspension]:
    """Of each recipient what was said last."""
    said = sorted(
        (one for one in records if one.action == SUSPENDED and "suspension" in one.facts), key=lambda one: one.seq or 0
    )
    newest = {one.facts["suspension"]["recipient"].casefold(): one.facts["suspension"] for one in said}
    return [msgspec.convert(one, Suspension) for one in newest.values()]


def suspend(desk: Desk, named: str, recipient: str, until: datetime, by: str, *, oral: bool) -> Suspension:
    """Keep disclosures to a recipient out of a patient's accountings for a time (164.528(a)(2)). On the trail.

    Raises NotFoundError, HandoffError when it is too long for what was said by word of mouth.
    """
    longest = desk.now + timedelta(days=rules_of(desk).oral_days)
    if until <= desk.now:
        raise HandoffError("it has to end in the future")
    if oral and until > longest:
        raise HandoffError(f"by word of mouth it holds until {longest:%Y-%m-%d}; longer in writing only")
    chart = finding.chart(desk, named)
    made = Suspension(recipient=recipient, until=until, by=by, oral=oral)
    facts = {"suspension": msgspec.to_builtins(made)}
    desk.audit(SUSPENDED, [f"chart:{chart.id}"], by, patients=(chart.id,), facts=facts)
    return made


def rules_of(desk: Desk) -> DisclosuresFile:
    from engine.privacy.disclosures import load_disclosures

    site, snapshot = desk.configuration.site, desk.configuration.snapshot
    file = f"{site.mappings}/privacy/disclosures.yaml"
    known = load_disclosures(snapshot.document(file)) if file in snapshot.files else None
    return needed(known, "disclosures", site.mappings)


class _Recipients:
    """Who got a copy, by the configuration that was in force when it was sent; where that says nothing, by today's."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        with desk.store.reader() as conn:
            self._loads = desk.store.configs.loads(conn)
        self._sites: dict[str, Mapping[str, Any]] = {}

    def of(self, destination: str, at: datetime) -> dict[str, Any]:
        """Recipient and purpose of a `Copy`."""
        said = self._then(destination, at) or self._today(destination)
        name = said.get("recipient") or f"destination {destination}"
        return {"recipient": Recipient(name=name, address=said.get("address")), "purpose": said.get("purpose")}

    def _then(self, destination: str, at: datetime) -> dict[str, str]:
        version = next((one.version for one in self._loads if one.at <= at), None)
        if version is None:
            return {}
        if version not in self._sites:
            self._sites[version] = self._read(version)
        settings = (self._sites[version].get("destinations") or {}).get(destination) or {}
        return {name: value for name, value in (settings.get("disclosure") or {}).items() if isinstance(value, str)}

    def _read(self, version: str) -> Mapping[str, Any]:
        from engine.runtime.configurations import recorded_snapshot

        try:
            snapshot = recorded_snapshot(self._desk.store, self._desk.outline.snapshot.base, version)
            value = snapshot.document(snapshot.site_file).value if snapshot is not None else {}
        except HandoffError:
            return {}
        return value if isinstance(value, dict) else {}

    def _today(self, destination: str) -> dict[str, str]:
        settings = self._desk.configuration.site.destinations.get(destination)
        said = settings.disclosure if settings is not None else None
        return {} if said is None else said.model_dump(by_alias=True, exclude_none=True)


def _years_before(at: datetime, years: int) -> datetime:
    try:
        return at.replace(year=at.year - years)
    except ValueError:  # 29 February
        return at.replace(year=at.year - years, day=28)


def accounting_shape(found: Accounted) -> dict[str, Any]:
    """What people typed of a copy is masked unless it was revealed."""
    from engine.domain.shapes import plain

    said = found.accounting
    names = ("since", "until", "made_at", "answer_by", "version", "remarks")
    return {
        "patient": found.patient,
        **plain({name: getattr(found, name) for name in names}),
        **{
            name: [_line_shape(one, revealed=found.revealed) for one in getattr(said, name)]
            for name in ("disclosures", "unmarked", "suspended")
        },
        "excluded": plain(said.excluded),
    }


def _line_shape(line: Line, *, revealed: bool) -> dict[str, Any]:
    from engine.desk.seeing import hide
    from engine.domain.shapes import plain

    shape: dict[str, Any] = plain(line) | {"frequency": line.frequency}
    if shape.pop("typed") and not revealed:
        shape |= {name: hide(shape[name]) for name in ("description", "purpose")}
        shape["recipient"] = {name: hide(value) for name, value in shape["recipient"].items()}
    return shape
