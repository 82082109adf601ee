"""The tests beside the YAML files: `<name>.test.yaml` beside a channel, mapping, table, score, protocol or care rule.

What each kind is given and what it may expect is said in their schemas (`handoff schema channel-tests`, `rule-tests`).
A test compares what it names and nothing else. The code that runs is the daemon's: channels' messages go through the
dry run (`engine.trial.dryrun`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path as File
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import msgspec
from pydantic import Field

from engine.care.adt.says import SAYS
from engine.care.calendar import BusinessCalendar
from engine.care.oncall import OnCall
from engine.care.pages import acknowledged, raised, rung
from engine.care.protocol import Besides
from engine.domain.appointment import Coded
from engine.domain.chart import Chart
from engine.domain.codec import converted
from engine.domain.encounter import Diagnosis, Encounter, Location
from engine.domain.moment import Moment, instant
from engine.domain.parts import ENCOUNTERS, PARTS
from engine.domain.patient import Identifier, Patient
from engine.domain.score import Band
from engine.domain.shapes import plain
from engine.domain.task import STANDING
from engine.errors import HandoffError, MappingError, MessageError, Problem, SettingsError
from engine.files import UnreadableFileError, read_regular
from engine.hl7v2.capture import read_capture
from engine.hl7v2.message import Message
from engine.mapping.compile import compile_mapping
from engine.pipeline.channel import CompiledChannel, CompiledConfiguration
from engine.pipeline.messages import TARGETS
from engine.risk.inputs import inputs_from_json, inputs_of
from engine.settings import Calendar
from engine.snapshot import Snapshot
from engine.trial import access, medicines, privacy
from engine.trial.dryrun import Clear, Trial
from engine.yamlfile import Document, Path, did_you_mean
from engine.yamlmodel import StrictModel, validate

CASES_MAX: Final = 5_000
SECONDS_MAX: Final = 20.0
"""For all tests of a site: those before a reload run beside the feeds."""
MESSAGES_BYTES_MAX: Final = 4 << 20
_NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
"""When a rule is asked, where its test does not say."""
_SHOWN_CHARACTERS_MAX: Final = 300

_Name = Annotated[str, Field(min_length=1, max_length=200)]


class Case(StrictModel):
    """One case of a rule: what it is given, and what is expected of its answer."""

    name: _Name
    """What the case shows; said when it fails."""
    given: dict[str, Any]
    """What the rule is asked."""
    expect: dict[str, Any]
    """Some of its answer."""
    model: str | None = None
    """Model that is asked, of a charlson file, which gives several."""


class RuleTests(StrictModel):
    """A test file beside a file of `mappings/`."""

    cases: Annotated[tuple[Case, ...], Field(min_length=1)]
    """The cases."""
    calendar: Calendar = Calendar()
    """The calendar that business days are counted by; none: the default, whatever the site's is."""
    timezone: str = "America/New_York"
    """Zone of times without an offset, in tests of mappings."""


class Step(StrictModel):
    """Messages that arrive, and what is expected after the last of them."""

    message: str | None = None
    """The message itself, a segment a line."""
    file: str | None = None
    """A file with messages, relative to the test file."""
    now: str | None = None
    """When they arrive (ISO 8601); none: the case's."""
    expect: dict[str, Any] = {}
    """Any of ack, error, state, reason, patient, encounter, class, scores, tasks, deliveries, deviations."""


class ChannelCase(Step):
    """A patient's story on a channel that begins with an empty chart; one message, or several in a row."""

    name: _Name
    """What the case shows; said when it fails."""
    messages: tuple[Step, ...] = ()
    """Several steps, in order, in place of `message` or `file`."""


class ChannelTests(StrictModel):
    """A test file beside a channel."""

    now: str | None = None
    """When messages arrive, where neither case nor message says so."""
    assumes: dict[str, Any] = {}
    """Settings of the channel that these cases were written for; when one is another now, they are skipped."""
    cases: Annotated[tuple[ChannelCase, ...], Field(min_length=1)]
    """The cases."""


@dataclass
class Report:
    """What came of the tests of a site."""

    passed: int = 0
    failures: list[Problem] = field(default_factory=list)
    skipped: list[Problem] = field(default_factory=list)
    """Why some were not run."""


class _MismatchError(Exception):
    def __init__(self, path: Path, expected: Any, got: Any) -> None:
        super().__init__()
        self.path, self.expected, self.got = path, expected, got


def run_tests(
    compiled: CompiledConfiguration,
    snapshot: Snapshot,
    *,
    only: Callable[[str], bool] = lambda _: True,
    seconds_max: float = SECONDS_MAX,
) -> Report:
    """Run the test files of a site. only: which of them, by name. Raises nothing: what fails is in the report."""
    report = Report()
    until = time.monotonic() + seconds_max
    for name in sorted(snapshot.tests):
        if not only(name):
            continue
        try:
            document = _parsed(snapshot, name)
            for at, run in _cases(document, compiled, snapshot, report):
                if time.monotonic() > until or report.passed + len(report.failures) >= CASES_MAX:
                    text = f"all tests may take {seconds_max:g} s and have {CASES_MAX:,} cases: the rest was not run"
                    report.failures.append(document.problem(at, text))
                    return report
                _run(document, at, run, report)
        except SettingsError as error:
            report.failures.extend(error.problems)
    return report


def _parsed(snapshot: Snapshot, name: str) -> Document:
    from engine.yamlfile import parse

    return parse(snapshot.tests[name], name)


def _run(document: Document, at: Path, run: Callable[[], None], report: Report) -> None:
    title = document.value["cases"][at[1]].get("name")
    try:
        run()
    except _MismatchError as wrong:
        text = f"{title}: expected {_shown(wrong.expected)}, got {_shown(wrong.got)}"
        report.failures.append(document.problem(wrong.path, text))
    except (HandoffError, msgspec.ValidationError, LookupError, TypeError, ValueError) as error:
        report.failures.append(document.problem(at, f"{title}: can't be run: {error}"))
    else:
        report.passed += 1


_Cases = Iterator[tuple[Path, Callable[[], None]]]


def _cases(document: Document, compiled: CompiledConfiguration, snapshot: Snapshot, report: Report) -> _Cases:
    """The cases of a file: where each stands, and what runs it."""
    tested = document.file.removesuffix(".test.yaml") + ".yaml"
    if tested not in snapshot.files:
        report.skipped.append(document.warning((), f"not run: there is no {tested} beside it"))
        return
    mappings = f"{compiled.site.mappings}/"
    if not tested.startswith(mappings):
        channel = next(one for one in compiled.channels.values() if _file_of(compiled, one) == tested)
        yield from _of_channel(document, channel, snapshot, report)
        return
    kind, _, stem = tested.removeprefix(mappings).removesuffix(".yaml").rpartition("/")
    run = _RULES.get(f"{kind}/{stem}") or _RULES.get(kind)
    if run is None:
        report.skipped.append(document.warning((), "not run: files of this kind have no tests"))
        return
    if tested in compiled.rules.rosters.left_out_files:
        text = (
            "not run: an example for destinations that this site has not. Its ladders page nobody: name your own people"
        )
        report.skipped.append(document.warning((), text))
        return
    tests = validate(document, RuleTests)
    for index, case in enumerate(tests.cases):
        at: Path = ("cases", index)
        question = _Question(compiled, snapshot, tested, stem, tests, case)
        yield at, lambda question=question, at=at: _hold((*at, "expect"), question.case.expect, run(question))  # type: ignore[misc]


def _file_of(compiled: CompiledConfiguration, channel: CompiledChannel) -> str:
    return compiled.source.channel_documents[channel.settings.name].file


# --- channels --------------------------------------------------------------------------------------------------------

_EXPECTED: Final = (
    "ack", "error", "state", "reason", "patient", "encounter", "class",
    *(part.name for part in PARTS if part is not ENCOUNTERS), "deliveries", "deviations", "plan", "holds",
)  # fmt: skip


def _of_channel(document: Document, channel: CompiledChannel, snapshot: Snapshot, report: Report) -> _Cases:
    tests = validate(document, ChannelTests)
    settings = channel.settings.model_dump(mode="json")
    for key, value in tests.assumes.items():
        if settings.get(key) != value and settings.get(key) != _filled(settings.get(key), value):
            text = f"skipped: these cases are for a channel with another {key} than this one has now"
            report.skipped.append(document.warning(("assumes", key), text))
            return
    for index, case in enumerate(tests.cases):
        at: Path = ("cases", index)
        yield at, lambda case=case, at=at: _story(document, at, tests, case, channel, snapshot)  # type: ignore[misc]


def _filled(now: Any, wanted: Any) -> Any:
    """What is wanted, with what it does not name as it is now: only what a test names is compared."""
    if isinstance(now, dict) and isinstance(wanted, dict):
        return now | {key: _filled(now.get(key), value) for key, value in wanted.items()}
    return wanted


def _story(
    document: Document, at: Path, tests: ChannelTests, case: ChannelCase, channel: CompiledChannel, snapshot: Snapshot
) -> None:
    steps: list[tuple[Path, Step]] = [((*at, "messages", n), step) for n, step in enumerate(case.messages)]
    if case.message is not None or case.file is not None or not steps:
        steps.insert(0, (at, case))
    elif case.expect:
        raise _unusable(document, (*at, "expect"), "stands beside each of the messages, not beside `messages`")
    trial: Trial | None = None
    for place, step in steps:
        text = step.now or case.now or tests.now
        now = instant(Moment.read(text))
        if now is None:
            where, wrong = (
                (place, "now") if text else (place, "message"),
                "when it arrives: now: 2026-03-02T10:00-05:00",
            )
            raise _unusable(document, (*where[0], where[1]), f"say {wrong}")
        frames = _frames(document, place, step, snapshot)
        if trial is None:
            trial = Trial(channel, now)
        trial.now = now
        trial.prepare(frames)
        results = trial.run(Clear())
        _hold_message((*place, "expect"), step.expect, plain(results[-1]))


def _frames(document: Document, at: Path, step: Step, snapshot: Snapshot) -> list[bytes]:
    if (step.message is None) == (step.file is None):
        raise _unusable(document, at, "needs either message or file")
    if step.file is None:
        raw = (step.message or "").encode()
    else:
        try:
            raw = read_regular(_beside(snapshot, document, step.file), bytes_max=MESSAGES_BYTES_MAX)
        except UnreadableFileError as error:
            raise _unusable(document, (*at, "file"), f"{step.file} {error.reason}") from None
    frames = [unit.payload for unit in read_capture(raw)]
    if not frames:
        raise _unusable(document, at, "holds no message")
    return frames


def _beside(snapshot: Snapshot, document: Document, file: str) -> File:
    return (snapshot.base / document.file).parent / file


def _unusable(document: Document, path: Path, text: str) -> SettingsError:
    return SettingsError((document.problem(path, text),))


def _hold_message(at: Path, expected: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Compare what became of a message with what is expected of it."""
    letter, encounter = result.get("dead_letter") or {}, result.get("encounter") or {}
    for key, wanted in expected.items():
        here = (*at, key)
        match key:
            case "ack" if not isinstance(wanted, dict):
                _hold(here, wanted, result["ack"]["code"])
            case "error":
                _hold(here, wanted, letter.get("error") or result["ack"]["error"])
            case "class":
                _hold(here, wanted, encounter.get("class"))
            case "scores" if isinstance(wanted, dict):
                scores = {score["model"]: score for score in result["scores"]}
                for model, value in wanted.items():
                    score = scores.get(model, {})
                    of_score = score.get("value") if isinstance(value, int) else score.get("band")
                    _hold((*here, model), value, score if isinstance(value, dict) else of_score)
            case "tasks":
                _hold_each(here, wanted, [task for task in result["tasks"] if task["state"] in STANDING], "kind")
            case "deliveries":
                shown = [
                    item | {"what": f"{item['operation']} to {item['destination']}"} for item in result["deliveries"]
                ]
                _hold_each(here, wanted, shown, "what")
            case "deviations" | "holds":
                missing = [one for one in _listed(here, wanted) if one not in _texts(result.get(key))]
                if missing:
                    raise _MismatchError(here, missing, result.get(key))
            case _ if key in _EXPECTED:
                _hold(here, wanted, result.get(key))
            case _:
                raise _MismatchError(here, f"one of {', '.join(_EXPECTED)}{did_you_mean(key, _EXPECTED)}", key)


def _texts(found: Any) -> list[Any]:
    """Entries by what they are called: themselves, or their reason."""
    return [one.get("reason", one) if isinstance(one, dict) else one for one in found or ()]


def _listed(at: Path, wanted: Any) -> Sequence[Any]:
    if not isinstance(wanted, list):
        raise _MismatchError(at, "a list", wanted)
    return wanted


def _hold_each(at: Path, wanted: Any, found: Sequence[Mapping[str, Any]], name: str) -> None:
    """All of a list, in any order: each expected one is another one of those found, and none is left over."""
    left = list(found)
    for index, one in enumerate(_listed(at, wanted)):
        described = one if isinstance(one, dict) else {name: one}
        match = next((item for item in left if _holds(described, item)), None)
        if match is None:
            raise _MismatchError((*at, index), described, [_brief(item, described) for item in left])
        left.remove(match)
    if left:
        raise _MismatchError(at, f"no more than {len(wanted)}", [item[name] for item in found])


def _brief(item: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item.get(key) for key in described}


# --- rules -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Question:
    """A case, and all that its rule may need to answer."""

    compiled: CompiledConfiguration
    snapshot: Snapshot
    file: str
    stem: str
    tests: RuleTests
    case: Case

    def given(self, *known: str) -> dict[str, Any]:
        for key in self.case.given:
            if key not in known:
                raise ValueError(
                    f"given: there is no {key} here{did_you_mean(key, known)}; there are {', '.join(known)}"
                )
        return dict(self.case.given)


def _score(question: _Question) -> Any:
    model = question.compiled.rules.models[question.case.model or question.stem]
    score = plain(model.score(inputs_from_json(question.case.given), now=_NOW, observed_since=None))
    score["factors"] = {factor["name"]: factor["points"] for factor in score["factors"]}
    return score


def _disposition(question: _Question) -> Any:
    return plain(question.compiled.rules.dispositions.of(question.given("code")["code"]))


def _meaning(question: _Question) -> Any:
    meaning = question.compiled.rules.events.of(question.given("event")["event"])
    says = SAYS.get(meaning)
    return {
        "meaning": str(meaning),
        "of_a_stay": says is not None,
        "status": str(says.status) if says is not None and says.status is not None else None,
        "undoes": sorted(map(str, says.undoes)) if says is not None else [],
    }


def _appointment(question: _Question) -> Any:
    given = question.given("event", "status", "reason")
    rules = question.compiled.rules.appointments[question.stem]
    if not rules.knows(given["event"]):
        return {"known": False}
    coded = {name: converted(given[name], Coded) for name in ("status", "reason") if given.get(name) is not None}
    told = rules.told(given["event"], coded.get("status"), coded.get("reason"))
    return plain(told) | {"known": True, "nobody": rules.of_nobody(given["event"])}


def _risk_inputs(question: _Question) -> Any:
    given = question.given("patient", "stay")
    patient = {"identifiers": [{"value": "1", "authority": "MRN"}], **given.get("patient", {})}
    stay = converted({"key": "VN:1", **given["stay"]}, Encounter)
    chart = Chart(id="c1", patient=converted(patient, Patient), encounters=(stay,))
    zone, tables = ZoneInfo(question.tests.timezone), question.compiled.rules.inputs
    return plain(inputs_of(chart, stay, now=_NOW, observed_since=_NOW, tables=tables, zone=zone))


def _plan(question: _Question) -> Any:
    rules = question.compiled.rules
    given = question.given(
        "disposition", "band", "class", "discharged_at", "now", "deceased", "diagnoses", "birth_date", "unit", "rollout"
    )
    protocol = next(one for name, one in rules.protocols.items() if name == question.stem)
    discharged_at = given.get("discharged_at", _NOW.isoformat())
    now = instant(Moment.read(given.get("now", discharged_at)))
    if now is None:
        raise ValueError("given: now is no time like 2026-03-02T10:00-05:00")
    stay = Encounter(
        key="VN:1",
        class_=given.get("class", "I") or None,
        discharged_at=_time(discharged_at),
        disposition=given["disposition"],
        discharges=1,
        diagnoses=tuple(Diagnosis(code=code) for code in given.get("diagnoses", ())),
        location=Location(point_of_care=given.get("unit")),
    )
    patient = Patient(
        identifiers=(Identifier(value="1", authority="MRN"),),
        deceased=given.get("deceased"),
        birth_date=_time(given.get("birth_date")),
    )
    tasks = protocol.plan(
        Chart(id="c1", patient=patient, encounters=(stay,)),
        stay,
        band=Band(given["band"]) if "band" in given else None,
        disposition=rules.dispositions.of(stay.disposition),
        calendar=BusinessCalendar(question.tests.calendar),
        now=now,
        key=lambda *parts: "/".join(parts),
        # What a plan is holds also for whom the protocol does not act yet: of a rollout a case asks by itself.
        besides=Besides(planned=not given.get("rollout", False)),
    ).tasks
    return {"tasks": [plain(task) for task in tasks]}


_MINUTES: Final = 240


def _on_call(question: _Question) -> Any:
    """Who is on call; or, given a ladder, what becomes of a page that is raised then."""
    given = question.given("roster", "at", "ladder", "kind", "minutes", "acknowledged_after")
    at = instant(Moment.read(given.get("at", _NOW.isoformat())))
    if at is None:
        raise ValueError("given: at is no time like 2026-03-02T10:00-05:00")
    rosters = question.compiled.rules.rosters
    duty = OnCall(rosters)
    if (name := given.get("ladder")) is None:
        roles = rosters.roles[given["roster"]]
        return {"level": [{"role": role, "people": list(duty.who(given["roster"], role, at).people)} for role in roles]}
    page = raised("case", given.get("kind", "on_call_page"), rosters.ladders[name], at)
    end, acknowledged_after = at + timedelta(minutes=given.get("minutes", _MINUTES)), given.get("acknowledged_after")
    while page.next_at is not None and page.next_at <= end:
        if acknowledged_after is not None and page.next_at > at + timedelta(minutes=acknowledged_after):
            break
        page = rung(page, duty, page.next_at)
    if acknowledged_after is not None:
        page = acknowledged(page, "somebody", at + timedelta(minutes=acknowledged_after), duty)
    steps = [
        {"minute": (step.at - at).total_seconds() / 60, "person": step.person, "level": step.level, "loop": step.loop}
        for step in page.steps
    ]
    return {"state": str(page.state), "people": [step["person"] for step in steps], "steps": steps}


def _time(text: str | None) -> Moment | None:
    return None if text is None else Moment.of(text)


def _looked_up(question: _Question) -> Any:
    table = next(one for one in question.compiled.rules.tables.values() if one.file == question.file)
    value, known = table.find(question.given("code")["code"])
    return {"value": value, "known": known, "refused": not known and table.unknown_is_error}


def _mapped(question: _Question) -> Any:
    mapping = compile_mapping(
        question.snapshot.document(question.file),
        question.compiled.rules.tables,
        zone=ZoneInfo(question.tests.timezone),
        targets=TARGETS,
    )
    frames = [unit.payload for unit in read_capture(str(question.given("message")["message"]).encode())]
    try:
        mapped = mapping.apply(Message.parse(frames[0]))
    except (MessageError, MappingError) as error:
        return {"error": error.error}
    return {
        "error": None,
        "patient": plain(mapped.patient) | {"identifiers": plain(mapped.identifiers)},
        "encounter": {name.rstrip("_"): plain(value) for name, value in mapped.encounter.items()}
        | {"visit": plain(mapped.visit), "account": mapped.account},
        "deviations": list(mapped.deviations),
    }


def _may(question: _Question) -> Any:
    return access.answer(question.case.given, question.compiled.rules.policies[question.file])


def _disclosures(question: _Question) -> Any:
    return privacy.disclosures(question.case.given, question.compiled.rules.privacy)


def _unusual(question: _Question) -> Any:
    return privacy.unusual(question.case.given, question.compiled.rules.privacy)


def _evidence(question: _Question) -> Any:
    return privacy.evidence(question.case.given, question.compiled.rules.privacy)


def _breach(question: _Question) -> Any:
    return privacy.breach(question.case.given, question.compiled.rules.privacy)


def _reconciled(question: _Question) -> Any:
    return medicines.answer(question.given("home", "discharge", "line"), question.compiled.rules.medications)


_RULES: Final[Mapping[str, Callable[[_Question], Any]]] = {
    "access": _may,
    "privacy/disclosures": _disclosures,
    "privacy/unusual": _unusual,
    "privacy/evidence": _evidence,
    "privacy/breach": _breach,
    "risk": _score,
    "care/dispositions": _disposition,
    "care/adt-events": _meaning,
    "care/risk-inputs": _risk_inputs,
    "appointments": _appointment,
    "medications": _reconciled,
    "protocols": _plan,
    "oncall": _on_call,
    "tables": _looked_up,
    "fields": _mapped,
}
"""Folder, or folder and file -> what answers a case of a test file there."""


# --- comparing -------------------------------------------------------------------------------------------------------


def _hold(at: Path, expected: Any, got: Any) -> None:
    """Everything that is expected is there; what is not mentioned may be anything. Raises _MismatchError."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key, value in expected.items():
            if key not in got and value is not None:
                raise _MismatchError((*at, key), value, f"nothing (there are {', '.join(map(str, got)) or 'none'})")
            _hold((*at, key), value, got.get(key))
    elif isinstance(expected, list) and isinstance(got, list | tuple):
        if len(expected) != len(got):
            raise _MismatchError(at, expected, [item["kind"] if _is_task(item) else item for item in got])
        for index, (one, item) in enumerate(zip(expected, got, strict=True)):
            described = {"kind": one} if _is_task(item) and isinstance(one, str) else one
            _hold((*at, index), described, item)
    elif not _same(at, expected, got):
        raise _MismatchError(at, expected, got)


def _holds(expected: Any, got: Any) -> bool:
    try:
        _hold((), expected, got)
    except _MismatchError:
        return False
    return True


def _is_task(item: Any) -> bool:
    return isinstance(item, dict) and {"kind", "due_at"} <= set(item)


def _same(at: Path, expected: Any, got: Any) -> bool:
    """Times are the same when they are the same instant."""
    if expected == got and type(expected) is type(got):
        return True
    if at and str(at[-1]).endswith("_at") and isinstance(expected, str) and isinstance(got, str):
        first, second = (instant(Moment.read(value)) for value in (expected, got))
        return first is not None and first == second
    return isinstance(expected, int | float) and not isinstance(expected, bool) and expected == got


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode() if not isinstance(value, str) else value
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}..."
