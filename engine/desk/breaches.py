"""Worksheets of breaches at a desk. They are kept on the trail: each change is a record with the whole worksheet,
sealed, so that who knew what when can't be rewritten. The newest record of a worksheet is how it stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import structs

from engine.desk import finding
from engine.errors import HandoffError, NotFoundError, TamperedError
from engine.privacy.breach import (
    UNKNOWN,
    Assessment,
    BreachFile,
    Delay,
    Given,
    Whom,
    Worksheet,
    assessment_problems,
    delay_problem,
    duties,
    keep_until,
    load_breach,
    missing,
    next_due,
    state_of,
)
from engine.privacy.rules import needed
from engine.runtime.oversight import worksheets_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk
    from engine.desk.seeing import View

CHARTS_MAX: Final = 100_000
"""Patients of one worksheet."""


def rules_of(desk: Desk) -> BreachFile:
    """Raises SettingsError."""
    site, snapshot = desk.configuration.site, desk.configuration.snapshot
    file = f"{site.mappings}/privacy/breach.yaml"
    return needed(load_breach(snapshot.document(file)) if file in snapshot.files else None, "breach", site.mappings)


def today(desk: Desk) -> date:
    return day_of(desk, desk.now)


def day_of(desk: Desk, at: datetime) -> date:
    """By the site's zone."""
    return at.astimezone(ZoneInfo(desk.configuration.site.calendar.timezone)).date()


def worksheets(desk: Desk, damaged: Callable[[str], None]) -> list[Worksheet]:
    """The newest first. damaged: is told the numbers of those that can't be read."""
    with desk.store.reader() as conn:
        return worksheets_of(desk.store, conn, damaged)


def worksheet(desk: Desk, number: int) -> Worksheet:
    """Raises NotFoundError, and TamperedError when it can't be read."""
    with desk.store.reader() as conn:
        return _one(desk, conn, number)


def _one(desk: Desk, conn: Connection, number: int) -> Worksheet:
    damaged: list[str] = []
    found = next((one for one in worksheets_of(desk.store, conn, damaged.append) if one.number == number), None)
    if found is not None:
        return found
    if str(number) in damaged:
        raise TamperedError(f"breach {number}")
    raise NotFoundError(f"there is no breach {number}; `handoff breach list` shows them")


# --- whom it is about ------------------------------------------------------------------------------------------------


def named(desk: Desk, keys: Iterable[str]) -> list[str]:
    """Charts of patients by their keys. Raises NotFoundError, with the number of the key in the list."""
    found: list[str] = []
    for number, key in enumerate(keys, 1):
        try:
            found.append(finding.chart(desk, key).id)
        except NotFoundError as error:
            raise NotFoundError(f"patient {number} of those given: {error}") from None
    return found


def of_question(desk: Desk, number: int) -> list[str]:
    """The patient of a question of `audit unusual`. Raises NotFoundError."""
    from datetime import timedelta

    from engine.desk.unusual import judged

    _, found, _ = judged(desk, desk.now - timedelta(days=366), None)
    question = next((one for one in found.unexplained if one.id == number), None)
    if question is None:
        raise NotFoundError(f"there is no question {number}; `handoff audit unusual` lists them")
    return [question.chart_id]


def looked_at(desk: Desk, actor: str, since: datetime | None, until: datetime | None) -> list[str]:
    """All patients that somebody saw, as the trail says. Raises NotFoundError when there is none."""
    from engine.store import disclosed

    with desk.store.reader() as conn:
        found = disclosed.seen_by(conn, actor, since, until, limit=CHARTS_MAX)
    if not found:
        raise NotFoundError(f"the trail knows no look of {actor} in that time; `handoff audit list` shows the names")
    return found


# --- what is done ----------------------------------------------------------------------------------------------------


def opened(
    desk: Desk,
    what: str,
    known_on: date,
    *,
    happened_on: date | None,
    business_associate: bool,
    recipient: str | None,
    charts: Sequence[str],
    others: dict[str, int],
) -> Worksheet:
    """On the trail. Raises HandoffError."""
    day = today(desk)
    if known_on > day:
        raise HandoffError("it can't have been known in the future")
    if happened_on is not None and happened_on > known_on:
        raise HandoffError("it was known before it happened: look at the two days again")
    sheet = Worksheet(
        number=0, what=what, opened_on=day, opened_by=str(desk.actor), known_on=known_on, happened_on=happened_on,
        role="business_associate" if business_associate else "covered_entity", recipient=recipient, others=others,
    )  # fmt: skip
    sheet = _with_charts(desk, sheet, charts)

    def work(conn: Connection) -> Worksheet:
        damaged: list[str] = []
        numbers = [one.number for one in worksheets_of(desk.store, conn, damaged.append)]
        taken = max((*numbers, *(int(one) for one in damaged if one.isdecimal())), default=0)
        new = structs.replace(sheet, number=taken + 1)
        _note(desk, conn, "breach-opened", new, what)
        return new

    return desk.store.charts_ledger.write_now(work)


def added(desk: Desk, number: int, charts: Sequence[str], others: dict[str, int]) -> Worksheet:
    """More people that it is about."""

    def change(sheet: Worksheet) -> Worksheet:
        grown = structs.replace(sheet, others=dict(Counter(sheet.others) + Counter(others)))
        return _with_charts(desk, grown, charts)

    return _changed(desk, "breach-changed", number, None, change)


def delayed(desk: Desk, number: int, delay: Delay) -> Worksheet:
    """Raises HandoffError when it does not hold."""
    if (problem := delay_problem(delay, today(desk), rules_of(desk))) is not None:
        raise HandoffError(problem)
    return _changed(
        desk, "breach-changed", number, f"delay until {delay.until}, {delay.by}",
        lambda sheet: structs.replace(sheet, delays=(*sheet.delays, delay)),
    )  # fmt: skip


def assessed(desk: Desk, number: int, factors: dict[str, str], finding_: str, exception: str | None) -> Worksheet:
    """Raises HandoffError when a factor is not answered, or there is no such exception."""
    rules = rules_of(desk)
    if problems := assessment_problems(factors, rules):
        raise HandoffError("; ".join(problems))
    if exception is not None and exception not in rules.exceptions:
        raise HandoffError(f"there is no exception {exception}; there are {', '.join(rules.exceptions)}")
    made = Assessment(
        on=today(desk), by=str(desk.actor), factors=factors,
        finding="low" if finding_ == "low" or exception is not None else "breach", exception=exception,
    )  # fmt: skip
    return _changed(desk, "breach-assessed", number, made.finding, lambda one: structs.replace(one, assessment=made))


def notified(desk: Desk, number: int, whom: Whom, on: date, state: str | None, note: str | None) -> Worksheet:
    """Raises HandoffError when nobody of the kind is to be told, or the day is not past."""
    rules = rules_of(desk)

    def change(sheet: Worksheet) -> Worksheet:
        owed = [(one.whom, one.state) for one in duties(sheet, rules)]
        if (whom, state) not in owed:
            some = ", ".join(f"{one}{f' --state {where}' if where else ''}" for one, where in owed) or "nobody"
            raise HandoffError(f"of breach {number} there are to be told: {some}")
        if not sheet.known_on <= on <= today(desk):
            raise HandoffError("the day is before it was known, or in the future")
        given = Given(whom=whom, on=on, by=str(desk.actor), state=state, note=note)
        return structs.replace(sheet, given=(*sheet.given, given))

    return _changed(desk, "breach-notified", number, note or f"{whom} on {on}", change)


def closed(desk: Desk, number: int, because: str) -> Worksheet:
    """Raises HandoffError while something is missing."""
    rules = rules_of(desk)

    def change(sheet: Worksheet) -> Worksheet:
        if lacking := missing(sheet, rules):
            raise HandoffError(f"breach {number} can't be closed: {'; '.join(lacking)}")
        return structs.replace(sheet, closed_on=today(desk), closed_by=str(desk.actor), because=because)

    return _changed(desk, "breach-closed", number, because, change)


def _changed(
    desk: Desk, action: str, number: int, reason: str | None, change: Callable[[Worksheet], Worksheet]
) -> Worksheet:
    def work(conn: Connection) -> Worksheet:
        found = _one(desk, conn, number)
        if found.closed_on is not None:
            raise HandoffError(f"breach {number} was closed on {found.closed_on}: open another one")
        new = change(found)
        _note(desk, conn, action, new, reason)
        return new

    return desk.store.charts_ledger.write_now(work)


def _note(desk: Desk, conn: Connection, action: str, sheet: Worksheet, reason: str | None) -> None:
    facts = {"worksheet": msgspec.to_builtins(sheet)}
    desk.note(conn, action, [f"breach:{sheet.number}"], reason, patients=sheet.charts, facts=facts)


def _with_charts(desk: Desk, sheet: Worksheet, charts: Sequence[str]) -> Worksheet:
    known = tuple(dict.fromkeys((*sheet.charts, *charts)))
    if len(known) > CHARTS_MAX:
        raise HandoffError(f"a worksheet has at most {CHARTS_MAX:,} patients: give the rest as numbers (--others)")
    states: Counter[str] = Counter()
    with desk.store.reader() as conn:
        for chart_id in known:
            chart = desk.store.charts.living(conn, chart_id)
            home = chart.patient.address if chart is not None else None
            states[(home.state or UNKNOWN) if home is not None else UNKNOWN] += 1
    return structs.replace(sheet, charts=known, residents=dict(sorted(states.items())))


# --- how it is shown -------------------------------------------------------------------------------------------------


def shape(sheet: Worksheet, rules: BreachFile, view: View) -> dict[str, Any]:
    """Words are free text that may name a patient: masked without a reveal."""
    from engine.domain.shapes import plain

    found: dict[str, Any] = plain(sheet)
    assessment = found["assessment"]
    return {
        **{name: found[name] for name in (
            "number", "opened_on", "opened_by", "known_on", "happened_on", "role", "others", "residents",
            "closed_on", "closed_by",
        )},
        "id": sheet.number,
        "what": view.text(sheet.what),
        "recipient": view.text(sheet.recipient),
        "because": view.text(sheet.because),
        "state": state_of(sheet, rules),
        "people": sheet.people,
        "by_state": sheet.by_state,
        "presumed": sheet.assessment is None,
        "assessment": None if assessment is None else assessment
        | {"factors": {name: view.text(text) for name, text in assessment["factors"].items()}},
        "delays": [one | {"by": view.text(one["by"])} for one in found["delays"]],
        "given": [one | {"note": view.text(one["note"])} for one in found["given"]],
        "duties": plain(duties(sheet, rules)),
        "next_due": plain(next_due(sheet, rules)),
        "missing": [] if sheet.closed_on is not None else missing(sheet, rules),
        "keep_until": plain(keep_until(sheet, rules)),
        "version": rules.version,
    }  # fmt: skip


def people_shapes(desk: Desk, sheet: Worksheet, view: View) -> list[dict[str, Any]]:
    """Whom letters go to; masked without a reveal."""
    from engine.domain.shapes import patient_shape

    shapes: list[dict[str, Any]] = []
    with desk.store.reader() as conn:
        for chart_id in sheet.charts:
            chart = desk.store.charts.living(conn, chart_id)
            if chart is None:
                shapes.append({"key": None, "name": None, "address": None})
                continue
            shown = view.of(chart.id).patient(patient_shape(chart.patient))
            shapes.append({name: shown.get(name) for name in ("key", "name", "address")})
    return shapes
