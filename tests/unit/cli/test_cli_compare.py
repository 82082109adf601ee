"""`handoff compare`: what a candidate would have made of recorded messages is found, and nothing else happens."""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from site_with_store import REFUSED, Site
from sqlalchemy import select, text

from engine.connectors.registry import load
from engine.snapshot import Snapshot
from engine.store import schema
from engine.store.opening import open_store
from engine.trial import compare

NAMES = ("ROSSI", "CHIARA", "HARBOUR", "5550177", "1951", "70010", "V80010", "WELBY", "I50")
"""What every message says of its patient."""
PHONES = (r"^patient.phones:.*", "patient.phones: {from: PID-14, region: US}")


def adt(event: str, number: int, at: Any, *, control: str, kind: str = "I", disposition: str = "01") -> bytes:
    """number: of the patient and the stay."""
    admitted, now = (at - timedelta(days=3)).strftime("%Y%m%d%H%M%S+0000"), at.strftime("%Y%m%d%H%M%S+0000")
    visit = {1: "1", 2: kind, 3: "4W^401^1^MAIN", 7: "1001^WELBY^MARC", 19: f"V80010{number}", 44: admitted}
    if event == "A03":
        visit |= {36: disposition, 45: now}
    return (
        f"MSH|^~\\&|EHR|MAIN|HANDOFF|MAIN|{now}||ADT^{event}|{control}|P|2.5.1\r"
        f"EVN|{event}|{now}\r"
        f"PID|1||70010{number}^^^MRN^MR||ROSSI^CHIARA||19510102|F|||4 HARBOUR RD^^NY^NY^10001||2125550177\r"
        f"PV1|{'|'.join(visit.get(field, '') for field in range(1, 46))}\r"
        "DG1|1||I50.9^Heart failure^I10|||F\r"
    ).encode()


@pytest.fixture(scope="module")
def _recorded(_bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients are admitted five days ago, and discharged two days ago, two of them with code 03."""
    site = Site(Path(shutil.copytree(_bare, tmp_path_factory.mktemp("recorded") / "site")))
    now = site.clock.now()
    for event, days in (("A01", 5), ("A03", 2)):
        site.clock.at = now - timedelta(days=days)
        site.receive(
            *(
                adt(event, number, site.clock.at, control=f"{event}{number}", disposition="03" if number > 4 else "01")
                for number in range(1, 7)
            )
        )
        site.process()
    return site.folder


@pytest.fixture
def recorded(_recorded: Path, tmp_path: Path) -> Site:
    return Site(Path(shutil.copytree(_recorded, tmp_path / "site")))


class Candidate:
    """A candidate beside the site, made by changing its files."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.folder = site.folder.parent / "candidate"

    def channel(self, *changes: tuple[str, str], add: str = "") -> str:
        """The channel's file alone."""
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "draft.yaml"
        file.write_text(_changed((self.site.folder / "channels/main-campus.yaml").read_text(), *changes) + add)
        return str(file)

    def files(self, **changed: tuple[str, str]) -> str:
        """A folder with changed files of mappings/ (`tables__sex`)."""
        for name, change in changed.items():
            file = f"mappings/{name.replace('__', '/').replace('_', '-')}.yaml"
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / file).write_text(_changed((self.site.folder / file).read_text(), change))
        return str(self.folder)


def _changed(text_: str, *changes: tuple[str, str]) -> str:
    for pattern, replacement in changes:
        text_, count = re.subn(pattern, replacement, text_, flags=re.MULTILINE)
        assert count, pattern
    return text_


@pytest.fixture
def candidate(recorded: Site) -> Candidate:
    return Candidate(recorded)


def compared(site: Site, given: str, *arguments: str, code: int = 1) -> Any:
    return site.json("compare", "main-campus", "--candidate", given, *arguments, code=code)


def causes(document: Any, *kinds: str) -> dict[str, int]:
    return {one["cause"]: one["messages"] for one in document["groups"] if not kinds or one["kind"] in kinds}


def counts(document: Any) -> tuple[int, ...]:
    names = ("compared", "same", "changed", "newly_filtered", "newly_failing")
    return tuple(document[name] for name in names)


def test_the_same_file_changes_nothing(recorded: Site, candidate: Candidate) -> None:
    document = compared(recorded, candidate.channel(), code=0)
    assert counts(document) == (12, 12, 0, 0, 0)
    assert (document["groups"], document["differences"]) == ([], [])
    done = recorded.run("compare", "main-campus", "--candidate", candidate.channel())
    assert done.code == 0
    assert "12 messages of main-campus" in done.out


def test_a_filter_that_drops_discharges_takes_their_tasks(recorded: Site, candidate: Candidate) -> None:
    document = compared(recorded, candidate.channel(add="\nfilter: \"MSH-9.2 != 'A03'\"\n"))
    assert counts(document) == (12, 6, 0, 6, 0)
    found = causes(document)
    assert found["the filter now drops A03"] == 6
    assert all(
        found[f"task {kind} is not there"] for kind in ("care_coordinator_alert", "pcp_follow_up", "tcm_contact")
    )
    states = [one for one in document["differences"] if one["path"] == "state"]
    assert [(one["entry"], one["before"], one["after"]) for one in states] == [
        (entry, "processed", "filtered") for entry in range(7, 13)
    ]


def test_a_table_that_reads_a_code_otherwise_is_named_with_its_field_and_both_values(
    recorded: Site, candidate: Candidate
) -> None:
    table = candidate.folder / "mappings/tables/house.yaml"
    given = candidate.files(
        fields__adt=(r"^encounter.disposition: PV1-36", "encounter.disposition: {from: PV1-36, table: house}")
    )
    table.parent.mkdir(parents=True)
    table.write_text('name: house\nsource: ours\nvalues: {"01": "01", "03": "01"}\nunknown: keep\n')
    document = compared(recorded, given)
    assert causes(document, "read") == {"PV1-36 (encounter.disposition) `03` now read as `01`": 2}
    assert counts(document)[:3] == (12, 10, 2)
    (group,) = (one for one in document["groups"] if one["kind"] == "read")
    assert [one["entry"] for one in group["examples"]] == [11, 12]
    assert group["examples"][0] | {"entry": 11} == {
        "entry": 11, "path": "encounter.disposition", "before": "03", "after": "01",
    }  # fmt: skip
    assert causes(document, "task"), "what follows from it is told too"


CHANGES: dict[str, tuple[Callable[[Candidate], str], str, dict[str, int]]] = {
    "class": (
        lambda one: one.files(tables__patient_class=(r"^  I: I .*", "  I: O")),
        "read", {"PV1-2 (encounter.class) `I` now read as `O`": 12},
    ),
    "another field": (
        lambda one: one.files(fields__adt=(r"^(encounter.hospital_service:) PV1-10", r"\1 PV1-2")),
        "read", {"PV1-2 now, not PV1-10 (encounter.hospital_service) nothing now read as `I`": 12},
    ),
    "a field that is patient data": (
        lambda one: one.files(fields__adt=PHONES),
        "read", {"PID-14 now, not PID-13 (patient.phones) is read no more": 12},
    ),
    "a mapping that fails": (
        lambda one: one.files(tables__sex=(r"^unknown: .*", "unknown: error"), fields__adt=(
            r"^patient.sex: .*", "patient.sex: {from: PV1-2, table: sex}")),
        "failing", {"dies now: unknown-code at PV1-2": 12},
    ),
    "a type that is not accepted": (
        lambda one: one.channel((r'"ADT\^\*"', "ADT^A01")),
        "failing", {"is refused now: event-not-accepted at MSH-9.2": 6},
    ),
    "no protocol": (
        lambda one: one.channel((r"^protocol:.*", "")),
        "task", {"task care_coordinator_alert is not there": 2, "task tcm_contact is not there": 4},
    ),
    "no destination": (
        lambda one: one.channel((r"(?s)^deliver:.*", "")),
        "delivery", {"delivery upsert_encounter to files is not there": 12,
                     "delivery upsert_task to files is not there": 6},
    ),
    "another score decides": (
        lambda one: one.channel((r"\[lace, seed\]", "[seed]")),
        "score", {"score lace is not there": 6},
    ),
    "meaning of an event": (
        lambda one: one.files(care__adt_events=(r"^  A03: discharge", "  A03: update")),
        "read", {"the event means `update`, before `discharge`": 6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_each_kind_of_change_is_found_under_its_cause(recorded: Site, candidate: Candidate, name: str) -> None:
    make, kind, expected = CHANGES[name]
    document = compared(recorded, make(candidate))
    found = causes(document, kind)
    for cause, messages in expected.items():
        assert [number for text_, number in found.items() if text_.startswith(cause)] == [messages], found
    same, *others = counts(document)[1:]
    assert same + sum(others) == document["compared"] == 12
    assert others[2] == (sum(expected.values()) if kind == "failing" else 0)


def test_another_map_of_a_scheduling_system_is_told_by_what_becomes_of_appointments(
    recorded: Site, candidate: Candidate
) -> None:
    at = recorded.clock.now().strftime("%Y%m%d%H%M%S+0000")
    siu = (
        f"MSH|^~\\&|EHR|MAIN|HANDOFF|MAIN|{at}||SIU^S14|S1|P|2.5.1\rSCH||A1|||||||||^^^{at}||||||||||||||Complete\r"
        "PID|1||700101^^^MRN^MR||ROSSI^CHIARA||19510102|F\r"
    )
    recorded.receive(siu.encode())
    recorded.process()
    document = compared(recorded, candidate.files(appointments__standard=(r"^  Complete: kept", "  Complete: arrived")))
    assert causes(document, "appointment") == {"appointment status `kept` now `arrived`": 1}


def test_messages_that_plan_nothing_either_way_are_the_same(recorded: Site, candidate: Candidate) -> None:
    document = compared(recorded, candidate.channel((r"^protocol:.*", "")))
    assert counts(document) == (12, 6, 6, 0, 0)
    assert causes(document, "plan") == {"plan: nothing, before planned": 6}


def test_another_protocol_is_told_by_the_times_of_its_tasks(recorded: Site, candidate: Candidate) -> None:
    given = candidate.files(protocols__post_discharge=(r"due: \{business_days: 2\}", "due: {days: 1}"))
    document = compared(recorded, given)
    assert any(one.startswith("task tcm_contact due_at") for one in causes(document, "task"))
    assert causes(document, "read") == {}


# --- charts ----------------------------------------------------------------------------------------------------------


def test_a_comparison_of_discharges_begins_with_the_charts_of_their_admissions(
    recorded: Site, candidate: Candidate
) -> None:
    document = compared(recorded, candidate.channel((r"^protocol:.*", "")), "--since", "3d")
    assert (document["compared"], document["warm_up"]) == (6, 6)
    assert not any("hold" in one["kind"] for one in document["groups"])
    assert causes(document, "task")["task tcm_contact is not there"] == 4, "they are not stale, and get their plan"
    cold = compared(recorded, candidate.channel((r"^protocol:.*", "")), "--since", "3d", "--warm-up", "1h")
    assert (cold["compared"], cold["warm_up"]) == (6, 0)


def test_what_an_earlier_message_changed_is_not_counted_again(recorded: Site, candidate: Candidate) -> None:
    """The candidate reads no phone; a message that says nothing of it is the same."""
    recorded.clock.at += timedelta(seconds=1)
    bare = re.sub(rb"\|\|2125550177", b"", adt("A08", 1, recorded.clock.at, control="A08"))
    recorded.receive(bare)
    recorded.process()
    given = candidate.files(fields__adt=PHONES)
    document = compared(recorded, given)
    assert document["compared"] == 13
    reading = [one["entry"] for one in document["differences"] if one["path"] == "patient.phones"]
    assert 13 not in reading
    assert len(reading) == 12


def test_replays_and_acts_of_people_are_left_out(recorded: Site, candidate: Candidate) -> None:
    task = recorded.json("tasks", "list")[0]["id"]
    recorded.json("tasks", "done", task)
    recorded.run("replay", "--all", "--yes")
    recorded.process()
    document = compared(recorded, candidate.channel((r"^protocol:.*", "")))
    assert document["compared"] == 12
    assert all(one["entry"] <= 12 for one in document["differences"])


def test_a_message_that_was_refused_or_filtered_may_be_taken_by_the_candidate(
    recorded: Site, candidate: Candidate
) -> None:
    recorded.receive(REFUSED)
    document = compared(recorded, candidate.channel((r'"ADT\^\*"', '"*"')))
    assert causes(document, "mended") == {
        "no longer is refused: type-not-accepted at MSH-9.1: this channel does not accept this message type": 1
    }
    channel = recorded.folder / "channels/main-campus.yaml"
    with_filter = candidate.channel()
    channel.write_text(channel.read_text() + "\nfilter: \"PV1-2 == 'E'\"\n")
    document = compared(recorded, with_filter)
    assert causes(document, "taken") == {"the filter no longer drops A01": 6, "the filter no longer drops A03": 6}
    assert causes(document, "task")["task tcm_contact is new"] == 4


def test_another_identity_is_told_first_and_patients_are_not_taken_apart(recorded: Site, candidate: Candidate) -> None:
    document = compared(recorded, candidate.channel((r"authority: MRN", "{authority: MRN, types: [XX]}".strip("{}"))))
    assert document["groups"][0]["kind"] in {"failing", "identity"}


@pytest.mark.parametrize(
    ("meaning", "cause"),
    [("record", "the event leaves the charts alone now"), ("hold", "a person is asked now: event-not-supported@PID-3")],
)
def test_a_merge_finds_both_patients_though_their_messages_lie_in_different_partitions(
    recorded: Site, candidate: Candidate, meaning: str, cause: str
) -> None:
    now = recorded.clock.at = recorded.clock.at + timedelta(days=1)
    sent = now.strftime("%Y%m%d%H%M%S+0000")
    recorded.receive(
        f"MSH|^~\\&|EHR|MAIN|HANDOFF|MAIN|{sent}||ADT^A40|M1|P|2.5.1\rEVN|A40|{sent}\r"
        "PID|1||700102^^^MRN^MR||ROSSI^CHIARA||19510102|F\rMRG|700101^^^MRN^MR\r".encode()
    )
    recorded.process()
    document = compared(recorded, candidate.channel(), code=0)
    assert counts(document) == (13, 13, 0, 0, 0)
    given = candidate.files(care__adt_events=(r"^  A40: merge", f"  A40: {meaning}"))
    document = compared(recorded, given, "--since", "25h")
    assert (document["compared"], document["warm_up"]) == (1, 4), "an admission and a discharge of each"
    assert causes(document).items() >= {
        cause: 1, "a merge no longer takes place": 1, "delivery merge_patient to files is not there": 1,
    }.items()  # fmt: skip


def test_messages_of_other_channels_make_the_charts_and_are_not_counted(recorded: Site, candidate: Candidate) -> None:
    channel = (recorded.folder / "channels/main-campus.yaml").read_text()
    east = _changed(channel, ("name: main-campus", "name: east"), (r"port: \d+", "port: 2599"))
    (recorded.folder / "channels/east.yaml").write_text(east)
    for event, name in (("A01", "east"), ("A03", "main-campus"), ("A08", "east")):
        recorded.clock.at += timedelta(hours=1)
        recorded.receive(adt(event, 9, recorded.clock.at, control=f"X{event}"), channel=name)
        recorded.process()
    document = compared(recorded, candidate.channel((r"^protocol:.*", "")), "--since", "47h")
    assert (document["compared"], document["warm_up"]) == (1, 1)
    assert {one["entry"] for one in document["differences"]} == {14}
    assert causes(document, "task")["task tcm_contact is not there"] == 1


def test_both_are_compared_as_if_they_were_live(recorded: Site, candidate: Candidate) -> None:
    given = candidate.channel((r"^mode: live", "mode: shadow"))
    done = recorded.run("compare", "main-campus", "--candidate", given, "--json")
    assert (done.code, done.json["same"]) == (0, 12)
    assert "mode is shadow, before live" in done.err


def test_the_newest_messages_are_compared_when_there_are_more(recorded: Site, candidate: Candidate) -> None:
    given = candidate.channel((r"^protocol:.*", ""))
    done = recorded.run("compare", "main-campus", "--candidate", given, "--limit", "2", "--json")
    assert {one["entry"] for one in done.json["differences"]} == {11, 12}
    assert "The newest 2 messages were compared" in done.err


def test_one_process_finds_what_several_find(
    recorded: Site, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = candidate.channel((r"^protocol:.*", ""), add="\nfilter: \"PV1-36 != '03'\"\n")
    found = []
    for processes in (1, 3):
        monkeypatch.setattr(compare, "processes_of", lambda _plan, processes=processes: processes)
        found.append(compared(recorded, given))
    assert found[0] == found[1]


# --- nothing but an answer -------------------------------------------------------------------------------------------


def rows(site: Site, *, but: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Everything that the store holds."""
    with open_store(load(Snapshot.read(site.config)), "tool") as store, store.reader() as conn:
        return {
            name: sorted(map(repr, conn.execute(select(table)).all()))
            for name, table in schema.metadata.tables.items()
            if table.name not in but
        }


TRAIL = ("audit", "audit_payload", "audit_head", "audit_patient")


@contextmanager
def unchanged(site: Site, *, but: tuple[str, ...] = ()) -> Iterator[None]:
    before = rows(site, but=but)
    assert sum(map(len, before.values())) > 50
    yield
    assert rows(site, but=but) == before


def test_nothing_is_written_and_no_output_shows_a_patient(recorded: Site, candidate: Candidate) -> None:
    given = candidate.files(
        fields__adt=(
            r"(?s)^patient.phones:.*?$(.*)^encounter.location: PV1-3",
            PHONES[1] + r"\1encounter.location: PV1-6",
        ),
        tables__patient_class=(r"^  I: I .*", "  I: O"),
    )
    html = candidate.folder / "page.html"
    html.touch(mode=0o644)
    arguments = ("compare", "main-campus", "--candidate", given, "--html", str(html))
    with unchanged(recorded, but=TRAIL):
        done, document = recorded.run(*arguments), recorded.run(*arguments, "--json")
    assert (done.code, document.code) == (1, 1)
    assert any(one["path"] == "patient.phones" for one in document.json["differences"])
    for shown in (done.out, done.err, document.out, document.err, html.read_text()):
        assert [name for name in NAMES if name in shown] == []
    assert max(map(len, done.out.splitlines())) <= 80
    assert stat.S_IMODE(html.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "place",
    ["PID-5.1", "PID-5[1].2", "PID-3.1", "PV1-19", "PV1-7.2", "NK1-2", "ZPI-3", "{first_of: [PID-5.1, PV1-2]}",
     "{from: PID-5.2}"],
)  # fmt: skip
def test_a_candidate_that_reads_names_as_codes_shows_none_of_them(
    recorded: Site, candidate: Candidate, place: str
) -> None:
    """In short names the form of a code hides nothing: LEE, ANNE, 4711."""
    recorded.receive(
        adt("A01", 9, recorded.clock.at, control="SHORT")
        .replace(b"ROSSI^CHIARA", b"LEE^ANNE").replace(b"700109", b"4711").replace(b"V800109", b"V99")
        .replace(b"MARC", b"OTTO")
        + b"NK1|1|KIM\rZPI|1|2|JOY\r"
    )  # fmt: skip
    recorded.process()
    given = candidate.files(
        fields__adt=(
            r"(?s)^patient.sex: .*?$(.*)^encounter.class: .*?$",
            rf"patient.sex: {place}\1encounter.class: {place}",
        )
    )
    html = candidate.folder / "page.html"
    arguments = ("compare", "main-campus", "--candidate", given, "--html", str(html))
    done, document = recorded.run(*arguments), recorded.run(*arguments, "--json")
    assert (done.code, document.code) == (1, 1)
    assert document.json["changed"]
    for shown in (done.out, done.err, document.out, document.err, html.read_text()):
        words = set(re.findall(r"[A-Z0-9]{3,}", shown))
        assert words.isdisjoint({"LEE", "ANNE", "4711", "V99", "OTTO", "KIM", "JOY"})
    assert "where a name or number may stand" in document.err


def test_revealed_values_are_on_record(recorded: Site, candidate: Candidate) -> None:
    given = candidate.files(fields__adt=PHONES)
    why = ("--reveal", "--reason", "which numbers go")
    with unchanged(recorded, but=TRAIL):
        document = compared(recorded, given, *why)
    shown = [one for one in document["differences"] if one["path"] == "patient.phones"]
    assert [one["before"] for one in shown] == [["+12125550177"]] * 12
    audited = recorded.json("audit", "list")
    assert {one["subject"] for one in audited} >= {f"entry:{one['entry']}" for one in shown}
    assert {one["action"] for one in audited} == {"reveal", "looked"}


def test_the_page_needs_nothing_besides_and_runs_nothing(recorded: Site, candidate: Candidate) -> None:
    html = candidate.site.folder / "page.html"
    recorded.run("compare", "main-campus", "--candidate", candidate.channel((r"^protocol:.*", "")), "--html", str(html))
    page = html.read_text()
    assert re.search(r"<script|<link|<img|url\(|https?:|src=|@import", page) is None
    assert "task tcm_contact is not there" in page
    assert page.count("<main>") == page.count("</main>") == 1


# --- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("main-campus", "--candidate", "missing.yaml"), 2, "does not exist"),
        (("main-campus",), 2, "--candidate"),
        (("man-campus", "--candidate", "."), 2, "Did you mean main-campus?"),
        (("main-campus", "--candidate", ".", "--limit", "0"), 2, "--limit"),
        (("main-campus", "--candidate", ".", "--html", "/nowhere/page.html"), 2, "no folder /nowhere"),
        (("main-campus", "--candidate", ".", "--reveal"), 2, "--reason"),
        (("main-campus", "--candidate", ".", "--since", "2d", "--until", "3d"), 2, "before --until"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_use_is_answered(
    recorded: Site, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(recorded.folder)
    done = recorded.run("compare", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda one: one.channel((r"^mapping:", "maping:")), "draft.yaml:15:1: maping: "),
        (lambda one: one.channel((r"^mapping: adt", "mapping: other")), "draft.yaml:15:1: mapping: "),
        (lambda one: one.channel((r"^name: main-campus", "name: draft")), "draft.yaml:3:1: name: must be main-campus"),
        (lambda one: one.channel((r"^timezone: .*", "timezone: [")), "draft.yaml:"),
        (lambda one: one.channel(add='\nfilter: "PV1-2 =="\n'), "draft.yaml:"),
        (lambda one: one.files(tables__sex=(r"^values:", "vales:")), "mappings/tables/sex.yaml:"),
        (lambda one: str(one.folder.parent / "empty"), "holds no YAML file in channels/ or mappings/"),
    ],
    ids=["unknown key", "no such mapping", "another name", "no YAML", "filter", "folder", "empty folder"],
)  # fmt: skip
def test_a_broken_candidate_is_named_with_file_and_line(
    recorded: Site, candidate: Candidate, make: Callable[[Candidate], str], said: str
) -> None:
    (candidate.folder.parent / "empty").mkdir()
    with unchanged(recorded):
        done = recorded.run("compare", "main-campus", "--candidate", make(candidate))
    assert (done.code, done.out) == (78, "")
    assert said in done.err
    assert "The candidate is a channel's file, or a folder" in done.err
    assert " channels/main-campus.yaml" not in done.err


def test_without_a_store_it_says_so(recorded: Site, candidate: Candidate) -> None:
    for file in (recorded.folder / "var").glob("*.db*"):
        file.unlink()
    done = recorded.run("compare", "main-campus", "--candidate", candidate.channel())
    assert (done.code, done.out) == (69, "")


def test_an_empty_comparison_is_no_good_news(recorded: Site, candidate: Candidate) -> None:
    done = recorded.run("compare", "main-campus", "--candidate", candidate.channel(), "--since", "1h")
    assert done.code == 0
    assert "Nothing was compared" in done.err


def test_messages_that_can_not_be_read_any_more_are_counted_apart(recorded: Site, candidate: Candidate) -> None:
    with open_store(load(Snapshot.read(recorded.config)), "tool") as store:
        store.journal_ledger.write_now(
            lambda conn: conn.execute(text("UPDATE journal.payload SET body = NULL WHERE entry_id = 3"))
        )
    document = compared(recorded, candidate.channel(), code=0)
    assert (document["compared"], document["unreadable"]) == (11, 1)
