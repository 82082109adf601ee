"""Every look is on record: each command is run, and who appeared in what it printed has to stand in what it recorded.

A command that is neither in `RUN` nor in `ELSEWHERE` fails here, and so does a route of the console that is not in
`SILENT_ROUTES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from site_with_store import Site, first_messages, seen, without_destination

from engine.access.actions import CATALOGUE, Action
from engine.cli.declared import ACTIONS
from engine.connectors.registry import load
from engine.domain.audit import EVENTS, Recorded
from engine.snapshot import Snapshot
from engine.store.opening import open_store

KEY = "MRN:558181838"
WHY = ("--reason", "because of MARK")
REVEAL = ("--reveal", *WHY)
ASSESSED = ("--low", "--nature", "x", "--person", "x", "--acquired", "x", "--mitigated", "x")
PSEUDONYM = re.compile(r":~[0-9a-f]{8}")

Words = tuple[str, ...] | Callable[[Site], tuple[str, ...]]


def _task(*more: str) -> Callable[[Site], tuple[str, ...]]:
    def words(site: Site) -> tuple[str, ...]:
        found = site.json("tasks", "list", "--kind", "pcp_follow_up")
        return (found[0]["id"], *more)

    return words


def _undone(site: Site) -> tuple[str, ...]:
    (task,) = _task()(site)
    site.json("tasks", "done", task)
    return (task,)


def _held(*more: str) -> Callable[[Site], tuple[str, ...]]:
    return lambda site: (str(site.hold_first_delivery()), *more)


def _page(site: Site) -> tuple[str, ...]:
    return (site.json("pages", "list", "--all")[0]["id"],)


def _gone(*more: str) -> Callable[[Site], tuple[str, ...]]:
    def words(site: Site) -> tuple[str, ...]:
        without_destination(site)
        return ("files", *more)

    return words


def _file(*more: str) -> Callable[[Site], tuple[str, ...]]:
    return lambda site: (*more, str(site.folder / "channels/examples/first-message.hl7"))


def _account(*more: str) -> Callable[[Site], tuple[str, ...]]:
    def words(site: Site) -> tuple[str, ...]:
        site.json("users", "add", "dana", "--role", "doctor")
        return ("dana", *more)

    return words


def _candidate(site: Site) -> tuple[str, ...]:
    return ("main-campus", "--candidate", str(site.folder), "--since", "3650d")


def _breach(*more: str) -> Callable[[Site], tuple[str, ...]]:
    """Of one that is about the patient."""

    def words(site: Site) -> tuple[str, ...]:
        site.json("breach", "open", "--what", "a letter", "--known", "today")
        site.json("breach", "add", "1", "--patient", KEY)
        return ("1", *more)

    return words


def _closing(site: Site) -> tuple[str, ...]:
    site.json("breach", "assess", *_breach(*ASSESSED)(site))
    return ("1", "--because", "x")


def _consents_file(site: Site) -> tuple[str, ...]:
    path = site.folder / "consents.csv"
    path.write_text(f"patient,number,state\n{KEY},+12125550143,given\n")
    return (str(path),)


def _consent(site: Site) -> tuple[str, ...]:
    made = site.json("consents", "add", KEY, "--kind", "part2_tpo", *WHY)
    return (KEY, made["id"], *WHY)


def _backup(site: Site) -> tuple[str, ...]:
    return (str(site.folder / "one.backup"),)


AT_NUMBER = ("--purpose", "care", "--channel", "sms", "--number", "+12125550143")
RUN: dict[str, Words | list[Words]] = {
    "appointments list": (),
    "audit checkpoint": (),
    "audit disclosures": (KEY,),
    "audit export": ("--format", "fhir"),
    "audit glasses": (),
    "audit list": [(), REVEAL],
    "audit note": ("hipaa-scans", "--because", "x"),
    "audit refusals": [(), REVEAL],
    "audit refuse": (KEY, "--asked-by", "x", "--exception", "privacy", "--because", "x"),
    "audit suspend": (KEY, "--recipient", "x", "--by", "x", "--until", "9d"),
    "audit unusual": [(), REVEAL],
    "audit verify": (),
    "backup": _backup,
    "breach add": _breach("--patient", KEY),
    "breach assess": _breach(*ASSESSED),
    "breach close": _closing,
    "breach delay": _breach("--until", "2099-01-01", "--by", "x"),
    "breach list": lambda site: _breach()(site)[1:],
    "breach notified": _breach("--whom", "patients", "--on", "today"),
    "breach open": ("--what", "x", "--known", "today"),
    "breach show": [_breach(), _breach(*REVEAL)],
    "compare": _candidate,
    "config list": (),
    "connections": (),
    "db status": (),
    "consent give": (KEY, *AT_NUMBER, "--how", "form"),
    "consent import": _consents_file,
    "consent list": [(KEY,), (KEY, *REVEAL)],
    "consent revoke": (KEY, *AT_NUMBER),
    "consents add": (KEY, "--kind", "part2_tpo", *WHY),
    "consents list": (KEY,),
    "consents revoke": _consent,
    "dead discard": [("1", *WHY, "--dry-run"), ("1", *WHY)],
    "dead list": [(), ("--each",)],
    "dead replay": [("--all", "--dry-run"), ("2",)],
    "dead show": [("1",), ("2",), ("1", *REVEAL)],
    "dead summary": (),
    "destinations discard": _gone(*WHY, "--yes"),
    "destinations list": (),
    "destinations move": _gone("--to", "other", *WHY, "--yes"),
    "destinations pause": ("files",),
    "destinations resume": ("files",),
    "destinations retry": ("files",),
    "destinations show": ("files",),
    "evidence": (),
    "gaps": [("--since", "3650d"), ("--since", "3650d", *REVEAL)],
    "held bury": _held(*WHY),
    "held confirm": _held(),
    "held list": lambda site: _held()(site)[1:],
    "held release": [_held(), _held("--dry-run")],
    "held show": [_held(), _held(*REVEAL)],
    "inventory": (),
    "keys reseal": (),
    "keys rotate": (),
    "keys status": (),
    "ledger": (),
    "legal-hold add": (KEY, *WHY),
    "legal-hold list": lambda site: (site.json("legal-hold", "add", KEY, *WHY), ())[1],
    "legal-hold remove": lambda site: (site.json("legal-hold", "add", KEY, *WHY), (KEY, *WHY))[1],
    "medications": [(KEY,), (KEY, *REVEAL)],
    "texts list": [(), REVEAL],
    "texts preview": [(KEY,), (KEY, *REVEAL)],
    "messages list": [(), ("--patient", KEY), ("--kind", "all"), REVEAL],
    "messages show": [("1",), ("3",), ("4",), ("1", *REVEAL)],
    "oncall check": (),
    "oncall overrides": (),
    "oncall who": ("on-call",),
    "pages list": [("--all",), ("--patient", KEY), ("--all", *REVEAL)],
    "pages show": _page,
    "patients export": (KEY, *WHY),
    "patients find": [
        (), ("--name", "D"), ("--name", "NOBODY"), ("--birth-date", "1947"), ("--visit", "MRN:V90001"), REVEAL,
    ],
    "patients show": [(KEY,), (KEY, *REVEAL), ("MRN:1",)],
    "plans migrate": ("--dry-run",),
    "quality list": (),
    "reload": (),
    "replay": [("--all", "--dry-run"), ("--patient", KEY, "--dry-run"), ("--state", "processed", "--yes")],
    "resend": [
        ("--destination", "files", "--patient", KEY, "--again", "--dry-run"),
        ("--destination", "files", "--all", "--again", *WHY, "--yes"),
    ],
    "risk score": [("lace", "--patient", KEY), ("lace", "--patient", KEY, *REVEAL)],
    "senders": (),
    "status": (),
    "sweep": ("--dry-run",),
    "tasks assign": _task("nurse.kim"),
    "tasks attempt": _task("--how", "phone", "--result", "no_answer"),
    "tasks cancel": _task(*WHY),
    "tasks done": _task(),
    "tasks list": [(), ("--patient", KEY), ("-o", "id"), REVEAL],
    "tasks show": [_task(), _task(*REVEAL)],
    "tasks snooze": _task("2h", *WHY),
    "tasks undo": _undone,
    "try": _file("--charts", "main-campus"),
    "users actions": (),
    "users add": ("dana", "--role", "doctor"),
    "users change": _account("--role", "nurse"),
    "users disable": _account(),
    "users enable": lambda site: (_account()(site), site.json("users", "disable", "dana"), ("dana",))[2],
    "users list": (),
    "users may": _account("patient.read", "--patient", KEY),
    "users mfa": _account(),
    "users roles": (),
    "users show": _account(),
    "users token": _account("--scope", "read", "--until", "1d"),
    "users tokens": (),
    "why": [(KEY,), ("1",), _task(), (KEY, *REVEAL)],
}  # fmt: skip
"""Command -> what it is run with, once or several times."""

_NO_STORE = "it opens no store of the site"
_SOURCE = "it makes what it shows, or shows what it is given"
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("help", "completion", "manual", "schema", "check", "test", "init", "outbox key"), _NO_STORE),
    **dict.fromkeys(("send", "simulate", "bench", "demo", "phone reply"), _SOURCE),
    "run": "the daemon: config-run (test_cli_config)",
    "worker": "a part of the daemon",
    "keys create": "before it there is no key, so no trail",
    "keys retire": "test_cli_looks, below",
    "db migrate": "it makes the tables, of which the trail is one; there is no other version to come from yet",
    "restore": "it writes a trail of its own, in the restored store (test_backup)",
    "config diff": "needs two configurations: test_cli_looks, below",
    "outbox read": "test_cli_outbox",
    "held dismiss": "dismiss (test_cli_deaths)",
    "quality show": "needs a fault: test_cli_quality",
    **dict.fromkeys(("quality resolve", "quality reopen"), "quality-* (test_cli_quality)"),
    "oncall override": "oncall-override (test_cli_oncall)",
    **dict.fromkeys(("break-glass", "audit attest"), "glass-* (test_cli_glass)"),
    "audit reseal": "trail-resealed (test_cli_audit)",
    "audit review": "unusual-reviewed (test_cli_unusual)",
    "pages ack": "page-ack (test_paged_charts)",
    "patients erase": "patient-erased (test_sweeping)",
    "legal-hold confirm": "holds-confirmed (test_cli_retention)",
    **dict.fromkeys(("users password", "users revoke"), "password-set, token-revoked (test_accounts)"),
    "console": "a part of the daemon",
    "phone transcript": "needs a network of phones: test_cli_phone",
    "texts show": "needs a text: test_cli_texts",
}
"""Commands that are not run here, and why."""

SILENT_ROUTES = {
    "/healthz": "says that it is alive",
    "/readyz": "says whether it is ready, and what is wrong, by codes",
    "/metrics": "counts",
    "/api/v1/status": "counts and states",
    "/api/v1/connections": "addresses of senders",
    "/api/v1/look": "says nothing",
    "/api/v1/reload": "is on record by itself (config-reload), and shows problems of files",
}
"""Routes of the daemon that show no patient (`tests/acceptance/test_canary.py` looks for one in what they say)."""


def trail(site: Site) -> list[Recorded]:
    with open_store(load(Snapshot.read(site.config)), "tool") as store, store.reader() as conn:
        return store.audit.find(conn, limit=None)


def patient(site: Site) -> str:
    """The chart of the one patient of the site."""
    with open_store(load(Snapshot.read(site.config)), "tool") as store, store.reader() as conn:
        (chart,) = store.charts.by_key(conn, KEY)
    return chart.id


def test_every_command_is_run_here_or_it_is_said_why_not() -> None:
    assert RUN.keys() | ELSEWHERE.keys() == ACTIONS.keys()
    assert RUN.keys() & ELSEWHERE.keys() == set()


def test_every_action_leaves_a_record_or_says_why_it_leaves_none() -> None:
    for action, meaning in CATALOGUE.items():
        assert (meaning.look in EVENTS) != bool(meaning.quiet), action


CASES = [
    (command, words) for command, given in RUN.items() for words in (given if isinstance(given, list) else [given])
]


@pytest.mark.parametrize(("command", "given"), CASES, ids=[f"{one} {n}" for n, (one, _) in enumerate(CASES)])
def test_who_appears_is_on_record(stocked: Site, command: str, given: Words) -> None:
    words = given if isinstance(given, tuple) else given(stocked)
    chart, before = patient(stocked), trail(stocked)
    done = stocked.run(*command.split(), *words)
    assert done.code in {0, 1, 69}, done
    found = trail(stocked)
    new = found[: len(found) - len(before)]
    shown = done.out + done.err
    if PSEUDONYM.search(shown) or seen(done.out):
        about = {one for record in new for one in (record.subject, *record.patients, *record.others)}
        assert about & {chart, "entry:3"}, new  # of that message no chart is known
    look = CATALOGUE[ACTIONS[command]].look
    if look is not None:
        assert new, "it left no record"
    else:
        assert not PSEUDONYM.search(shown) or new
    assert all(
        record.actor and record.whence is not None and record.whence.command for record in new if not record.entry
    )


# --- whoever tries to find out who it is, and what they have


CONDITIONS = ("chf", "copd", "diabetes", "charlson", "I50.9", "J44.9", "E11.9", "heart", "pulmonary")
IN_CLEAR = {"try", "patients export"}
"""What is shown there is given by who asks, or revealed by its nature and on record as that."""


@pytest.mark.parametrize(
    ("command", "given"),
    [(command, words) for command, words in CASES if command not in IN_CLEAR and words is not REVEAL],
    ids=[f"{one} {n}" for n, (one, words) in enumerate(CASES) if one not in IN_CLEAR and words is not REVEAL],
)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_no_masked_command_says_who_it_is_or_what_they_have(
    stocked: Site, command: str, given: Words, form: tuple[str, ...]
) -> None:
    words = given if isinstance(given, tuple) else given(stocked)
    if "--reveal" in words or (form and command in {"help", "backup"}):
        return
    done = stocked.run(*command.split(), *words, *form)
    if "No such option: --json" in done.err:
        return
    shown = (done.out + done.err).lower()
    assert seen(done.out.replace(KEY, "")) == []
    assert [one for one in CONDITIONS if one.lower() in shown] == []


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
@pytest.mark.parametrize("words", [("patients", "show", KEY), ("why", KEY), ("messages", "show", "1")], ids="-".join)
def test_masked_a_stay_has_days_and_no_times_and_no_service(
    stocked: Site, words: tuple[str, ...], form: tuple[str, ...]
) -> None:
    told = stocked.run(*words, *form).out
    assert "08:15:00" not in told  # PV1-44
    assert not re.search(r"discharged[^,]{0,40}14:30:00|CAR\b", told)  # PV1-45, PV1-10
    if words[0] == "patients":
        assert "2026-11-04" in told
        assert "2026-11-09" in told
        revealed = stocked.run(*words, *REVEAL, *form).out
        assert "08:15:00" in revealed
        assert "14:30:00" in revealed


def test_masked_nothing_says_how_a_patient_lives(stocked: Site) -> None:
    masked, shown = (stocked.json("patients", "show", KEY, *more) for more in ((), REVEAL))
    assert (masked["lives_alone"], shown["lives_alone"]) == ("***", True)


def test_a_name_that_is_guessed_letter_by_letter_is_on_record_and_ends(stocked: Site) -> None:
    stocked.config.write_text(stocked.config.read_text() + "\ntrail: {searches_per_hour_max: 20}\n")
    known, tried, refused = "", 0, False
    while not refused:
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
            done = stocked.run("patients", "find", "--name", known + letter)
            tried += 1
            if refused := done.code != 0:
                break
            if "No such patient" not in done.out:
                known += letter
                break
        else:
            break
    records = [one for one in trail(stocked) if one.action == "searched"]
    assert refused
    assert (tried, len(records)) == (21, 20)
    assert {one.terms for one in records} >= {"name A", "name D"}
    assert known != "DOE"


@pytest.mark.parametrize(
    "words",
    [("patients", "show", KEY), ("tasks", "list", "--patient", KEY), ("messages", "list", "--patient", KEY),
     ("pages", "list", "--patient", KEY), ("appointments", "list", "--patient", KEY), ("why", KEY),
     ("medications", KEY), ("texts", "preview", KEY), ("texts", "list", "--patient", KEY),
     ("risk", "score", "lace", "--patient", KEY), ("patients", "find", "--name", "DO"),
     ("patients", "find", "--birth-date", "1947"), ("patients", "find", "--visit", "V90001"),
     ("replay", "--patient", KEY, "--dry-run"), ("legal-hold", "remove", KEY), ("audit", "disclosures", KEY)],
    ids=" ".join,
)  # fmt: skip
def test_who_is_asked_for_by_who_they_are_is_on_record_with_the_terms_and_the_reason(
    stocked: Site, words: tuple[str, ...]
) -> None:
    stocked.run(*words)
    (record,) = [one for one in trail(stocked) if one.action == "searched"]
    assert record.terms is not None
    assert record.terms.partition(" ")[2] in words
    assert (record.count, record.patients, record.reason) == (1, (patient(stocked),), None)
    assert words[1] not in str(stocked.json("audit", "list")) or words[0] != words[1]


@pytest.mark.parametrize(
    "words", [("patients", "show", "MRN:1"), ("patients", "find", "--name", "NOBODY"), ("why", "MRN:77"),
              ("tasks", "list", "--patient", "MRN:1"), ("replay", "--patient", "MRN:1", "--dry-run")], ids=" ".join,
)  # fmt: skip
def test_that_nobody_was_found_is_on_record_too(stocked: Site, words: tuple[str, ...]) -> None:
    stocked.run(*words, *(WHY if words[0] != "replay" else ()))
    (record,) = trail(stocked)[:1]
    assert (record.action, record.count, record.patients) == ("searched", 0, ())
    assert record.reason == (WHY[1] if words[0] != "replay" else None)


def test_terms_are_sealed_and_shown_unmasked_only(stocked: Site) -> None:
    stocked.run("patients", "find", "--name", "ZQXDOE")
    assert "ZQXDOE" not in stocked.run("audit", "list", "--json").out
    assert "ZQXDOE" in stocked.run("audit", "list", "--json", *REVEAL).out
    for file in (stocked.folder / "var").glob("handoff*"):
        assert b"ZQXDOE" not in file.read_bytes()


def test_tries_are_counted_and_end(stocked: Site) -> None:
    stocked.config.write_text(stocked.config.read_text() + "\ntrail: {searches_per_hour_max: 2}\n")
    for number in range(2):
        assert stocked.run("patients", "show", f"MRN:{number}").code == 1
    refused = stocked.run("patients", "show", KEY)
    assert refused.code == 1
    assert "2 patients were asked for" in refused.err
    assert "searches_per_hour_max" in refused.err
    assert trail(stocked)[0].action == "denied"
    assert stocked.run("tasks", "list").code == 0, "who works by lists and pseudonyms goes on"


def test_a_long_list_is_more_records_and_nobody_is_left_out(stocked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.desk.desk.PATIENTS_A_RECORD_MAX", 2)
    stocked.receive(
        *(
            message.replace(b"558181838", b"90%d" % number)
            .replace(b"V90001", b"V%d" % number)
            .replace(b"|FIRST-", b"|N%d-" % number)
            for number in range(5)
            for message in first_messages(stocked)
        )
    )
    stocked.process()
    shown = stocked.json("patients", "find")
    records = [one for one in trail(stocked) if one.action == "looked"]
    assert [one.count for one in records] == [len(shown)] * len(records)
    assert len({chart for one in records for chart in one.patients}) == len(shown) == 6
    assert max(len(one.patients) for one in records) == 2


def test_messages_of_nobody_known_are_on_record_by_their_number(stocked: Site) -> None:
    stocked.run("messages", "list")
    record = trail(stocked)[0]
    assert record.others == ("entry:3",)
    assert record.patients == (patient(stocked),)


def test_who_can_not_be_put_on_record_is_shown_nobody_and_the_site_is_shown_all_the_same(
    stocked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.errors import UnrecordedError
    from engine.store.audit import AuditStore

    def broken(*_: object) -> None:
        raise UnrecordedError("it is full")

    monkeypatch.setattr(AuditStore, "append", broken)
    for command in ("tasks list", f"patients show {KEY}", "messages list", "dead list --each"):
        done = stocked.run(*command.split())
        assert done.code == 1
        assert done.out == ""
    for command in ("config list", "ledger", "destinations list", "audit list"):
        assert stocked.run(*command.split()).code == 0
    assert "no record of this look: it is full" in stocked.run("config", "list").err


def test_keys_are_on_record_with_who_changed_them(bare: Site) -> None:
    assert bare.run("config", "diff").code in {0, 1, 2}
    bare.json("keys", "rotate")
    assert bare.run("keys", "reseal").code == 0
    bare.run("keys", "retire", "1")
    assert {"keys-rotated", "keys-resealed", "site-read"} <= {one.action for one in trail(bare)}


def test_no_route_of_the_daemon_shows_a_patient_unless_it_is_said_here() -> None:
    from engine.runtime.health import create_app

    app = create_app(None, loopback=True)  # type: ignore[arg-type]  # nothing is asked of it
    assert {route.resource.canonical for route in app.router.routes() if route.resource} == set(SILENT_ROUTES)


def test_a_preview_is_printed_after_its_record_is_written(stocked: Site) -> None:
    """It prints while the desk is open."""
    assert json.loads(stocked.run("dead", "replay", "--all", "--dry-run", "--json").out)
    assert trail(stocked)[0].action == "looked"
    assert CATALOGUE[Action.DEAD_DECIDE].look == "looked"
