"""Who sends what, who got no follow-up, and how commands are found: answers of one command each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click
import pytest
from site_with_store import Site, first_messages

from engine.cli import app, manual
from engine.clock import FixedClock

ENGINE = [sys.executable, "-P", "-m", "engine"]


def another(payload: bytes, number: int) -> bytes:
    """The same message for another patient and stay."""
    for old, new in ((b"558181838", f"7000{number}"), (b"V90001", f"V7000{number}"), (b"FIRST-", f"N{number}-")):
        payload = payload.replace(old, new.encode())
    return payload


# --- senders ---------------------------------------------------------------------------------------------------------


def test_senders_shows_the_worst_first_with_what_is_wrong(stocked: Site) -> None:
    noisy = [another(message, n).replace(b"ADT^A01", b"ZZZ^Z01").replace(b"|EHR|", b"|LAB|")
             for n, message in enumerate([first_messages(stocked)[0]] * 3)]  # fmt: skip
    stocked.receive(*noisy)
    stocked.process()
    rows = stocked.json("senders")
    assert [(row["sender"].partition("/")[0], row["received"], row["refused"], row["dead"]) for row in rows] == [
        (rows[0]["sender"].partition("/")[0], 3, 3, 0), ("EHR", 4, 1, 1),
    ] or rows[0]["refused"] == rows[0]["received"]  # fmt: skip
    assert rows[0]["example"] is not None
    assert rows[0]["last_at"]
    assert stocked.json("senders", "--since", "2020-01-01", "--until", "2020-01-02") == []
    assert stocked.run("senders", "--channel", "nosuch").code == 2
    assert "SENDER" in stocked.run("senders").out


def test_a_name_is_shown_once_something_of_it_was_processed_or_the_channel_names_it(stocked: Site) -> None:
    first = first_messages(stocked)[0]
    stocked.receive(another(first, 1).replace(b"ADT^A01", b"ZZZ^Z01").replace(b"|EHR|", b"|DOE JANE|"))
    (unknown,) = [row for row in stocked.json("senders") if row["received"] == 1]
    assert "DOE" not in json.dumps(stocked.json("senders"))
    number = str(unknown["example"])
    for command in (("messages", "list"), ("messages", "show", number), ("dead", "list"), ("dead", "summary")):
        for form in ((), ("--json",)):
            assert "DOE JANE" not in stocked.run(*command, *form).out
    assert [row["id"] for row in stocked.json("messages", "list", "--sender", unknown["sender"])] == [int(number)]
    (revealed,) = [
        row for row in stocked.json("senders", "--reveal", "--reason", "who?") if row["example"] == int(number)
    ]
    assert revealed["sender"].startswith("DOE JANE/")
    channel = stocked.folder / "channels/main-campus.yaml"
    channel.write_text(channel.read_text() + "\nsenders: [DOE JANE]\n")
    assert "DOE JANE" in stocked.run("messages", "show", number).out
    stocked.receive(another(first, 2).replace(b"|EHR|", b"|LAB|"))
    assert any(row["sender"].startswith("~") and row["pending"] for row in stocked.json("senders"))
    stocked.process()
    assert any(row["sender"].startswith("LAB/") for row in stocked.json("senders"))


# --- gaps ------------------------------------------------------------------------------------------------------------


NO_DISCHARGE = "a message (A01, A02, A04, A08) says that the stay has ended, and no discharge (A03) has come"


def gaps(site: Site, *options: str) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in site.json("gaps", *options):
        found.setdefault(row["what"], []).append(row)
    return found


def test_gaps_names_dead_and_refused_messages_with_the_reason_and_the_next_command(stocked: Site) -> None:
    found = gaps(stocked, "--what", "dead", "--what", "refused")
    (dead,) = found["dead"]
    assert dead["reason"].startswith("identifier-missing: ")
    assert dead["see"].startswith("handoff dead show ")
    (refused,) = found["refused"]
    assert refused["patient_key"].startswith("MRN:~"), "the message says whose it is"
    stocked.run("dead", "discard", "--all", "--reason", "seen to")
    assert gaps(stocked, "--what", "dead", "--what", "refused") == {}


def test_gaps_names_a_discharge_without_a_plan_and_why(bare: Site) -> None:
    channel = bare.folder / "channels/main-campus.yaml"
    channel.write_text("\n".join(line for line in channel.read_text().splitlines() if not line.startswith("protocol:")))
    today = bare.clock.now().strftime("%Y%m%d").encode()
    bare.receive(*(message.replace(b"20261109", today) for message in first_messages(bare)))
    bare.process()
    (row,) = gaps(bare, "--what", "no-plan").get("no-plan", [None])
    assert row is not None
    assert row["reason"] == "channel main-campus has no protocol"
    assert row["patient_key"].startswith("MRN:~")
    assert row["encounter"]


@pytest.mark.parametrize("lost", ["inpatient", "outpatient"])
def test_gaps_names_a_stay_that_an_update_says_has_ended_when_its_discharge_was_lost(bare: Site, lost: str) -> None:
    now = bare.clock.now()
    hours = [(now - timedelta(hours=back)).strftime("%Y%m%d%H%M%S+0000") for back in (30, 2, 1)]
    kind = "I" if lost == "inpatient" else "O"
    for number, (trigger, end) in enumerate((("A01" if kind == "I" else "A04", ""), ("A08", hours[1]))):
        at = hours[0] if number == 0 else hours[2]
        lines = (
            f"MSH|^~\\&|EPIC|MAIN|H|H|{at}||ADT^{trigger}|C{number}|P|2.5.1",
            f"EVN|{trigger}|{at}",
            "PID|1||1^^^MRN^MR||Doe^Jane",
            "|".join(["PV1", "1", kind, *[""] * 16, "V1", *[""] * 25, end]),
        )
        bare.receive("\r".join([*lines, ""]).encode())
    bare.process()
    rows = gaps(bare, "--what", "no-plan").get("no-plan", [])
    assert [row["reason"] for row in rows] == ([NO_DISCHARGE] if kind == "I" else [])


@pytest.mark.parametrize("trigger", ["A01", "A02", "A04", "A08"])
@pytest.mark.parametrize("disposition", ["01", ""])
def test_gaps_names_a_stay_that_is_first_heard_of_when_it_has_ended(bare: Site, trigger: str, disposition: str) -> None:
    now = bare.clock.now()
    came, left, at, later = ((now - timedelta(minutes=m)).strftime("%Y%m%d%H%M%S+0000") for m in (1800, 120, 60, 30))

    def receive(trigger: str, at: str) -> None:
        lines = (
            f"MSH|^~\\&|EPIC|MAIN|H|H|{at}||ADT^{trigger}|{trigger}|P|2.5.1",
            f"EVN|{trigger}|{at}",
            "PID|1||1^^^MRN^MR||Doe^Jane||19480312|F",
            "|".join(["PV1", "1", "I", *[""] * 16, "V1", *[""] * 16, disposition, *[""] * 7, came, left]),
        )
        bare.receive("\r".join([*lines, ""]).encode())
        bare.process()

    receive(trigger, at)
    assert bare.json("tasks", "list") == []
    (row,) = gaps(bare, "--what", "no-plan")["no-plan"]
    assert row["reason"] == NO_DISCHARGE
    receive("A03", later)
    assert bare.json("tasks", "list") != []
    assert gaps(bare, "--what", "no-plan") == {}


def test_gaps_names_a_plan_that_waits_for_another_stay_of_the_same_admission(bare: Site) -> None:
    today = bare.clock.now().strftime("%Y%m%d").encode()
    admission, *rest = (message.replace(b"20261109", today) for message in first_messages(bare))
    number = next(line for line in admission.split(b"\r") if line.startswith(b"PV1")).split(b"|")[19]
    control = admission.split(b"|")[9]
    beside = admission.replace(number, b"V-OTHER").replace(control, control + b"X")
    bare.receive(admission, beside, *rest)
    bare.process()
    (row,) = gaps(bare, "--what", "no-plan").get("no-plan", [None])
    assert row is not None
    assert row["reason"].startswith("its tasks are suspended: a stay that began before this discharge goes on")


def test_gaps_names_what_was_filtered_and_what_waits(bare: Site) -> None:
    channel = bare.folder / "channels/main-campus.yaml"
    channel.write_text(channel.read_text() + "\nfilter: \"PV1-2 == 'E'\"\n")
    bare.receive(*first_messages(bare))
    waiting = gaps(bare)
    assert {row["what"] for rows in waiting.values() for row in rows} == {"pending"}
    bare.process()
    (filtered, *_) = gaps(bare)["filtered"]
    assert filtered["reason"]
    channel.write_text(channel.read_text().replace("'E'", "'I'"))
    bare.json("replay", "--state", "filtered")
    assert gaps(bare, "--what", "filtered"), "nobody has processed it yet"
    bare.process()
    assert filtered["entry"] not in [row["entry"] for row in gaps(bare).get("filtered", ())]
    assert gaps(bare, "--since", "2020-01-01", "--until", "2020-01-02") == {}


def test_gaps_names_patients_that_a_destination_has_not_heard_of(bare: Site) -> None:
    bare.receive(*first_messages(bare))  # just now: the store that tests share may be minutes old
    bare.process()
    assert "undelivered" not in gaps(bare)
    bare.clock = type(bare.clock)(bare.clock.now() - timedelta(minutes=30))
    bare.receive(*(another(message, 1) for message in first_messages(bare)))
    bare.process()
    (row,) = gaps(bare, "--what", "undelivered")["undelivered"]
    assert "deliveries wait for files" in row["reason"]
    assert row["see"] == "handoff destinations show files"


@pytest.mark.parametrize("state", ["paused", "orphan", "up"])
def test_gaps_waits_with_no_patient_whose_destination_takes_nothing(bare: Site, state: str) -> None:
    if state == "paused":
        bare.run("destinations", "pause", "files")
    bare.receive(*(another(message, 1) for message in first_messages(bare)))
    bare.process()
    if state == "orphan":
        for file in (bare.folder / "config.yaml", bare.folder / "channels/main-campus.yaml"):
            lines = [line for line in file.read_text().splitlines() if "files" not in line]
            file.write_text("\n".join(lines).replace("deliver:", "").replace("destinations:", "") + "\n")
    assert ("undelivered" in gaps(bare)) is (state != "up")


def test_a_discharge_that_is_heard_of_late_is_a_gap_of_that_day_and_not_of_each_day_after(bare: Site) -> None:
    protocol = bare.folder / "mappings/protocols/post-discharge.yaml"
    protocol.write_text(protocol.read_text().replace("discharge_age_days_max: unlimited", "discharge_age_days_max: 30"))
    messages = [message.replace(b"2026", b"2025") for message in first_messages(bare)]
    now = bare.clock.now()
    bare.clock = FixedClock(now - timedelta(hours=20))
    bare.receive(*messages)
    bare.process()
    assert "no-plan" in gaps(bare)
    bare.clock = FixedClock(now)
    bare.receive(messages[0].replace(b"ADT^A01^ADT_A01|FIRST", b"ADT^A08|AGAIN").replace(b"ELM", b"OAK"))
    bare.process()
    assert "no-plan" in gaps(bare, "--since", "21h")
    assert gaps(bare, "--since", "2h") == {}, "the chart has changed, and the discharge is no news"


def test_a_site_where_all_went_well_has_no_gaps(bare: Site) -> None:
    done = bare.run("gaps")
    assert (done.code, done.out) == (0, "No patient is known to be without follow-up.\n")


# --- finding commands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("typed", "meant"), [("mesages", "messages"), ("task", "tasks"), ("relode", "reload")])
def test_a_command_that_was_mistyped_is_guessed(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([typed]) == 2
    assert f"Did you mean {meant}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("tasks",), ("tasks", "list"), ("replay",)], ids=" ".join)
def test_help_is_the_help_of_the_command(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["help", *words]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(" ".join(("Usage: handoff", *words)))
    assert app.run([*words, "--help"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == shown.splitlines()[2:]


@pytest.mark.parametrize("words", [("taks",), ("tasks", "lst"), ("tasks", "list", "more")], ids=" ".join)
def test_help_of_what_there_is_not_is_a_usage_error(words: tuple[str, ...]) -> None:
    assert app.run(["help", *words]) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shells_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["completion", shell]) == 0
    assert f"_HANDOFF_COMPLETE={shell}_complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("handoff mess", "messages"), ("handoff messages list --sta", "--state"),
        ("handoff messages list --state de", "dead"), ("handoff messages list --channel ", "main-campus"),
        ("handoff destinations show ", "files"), ("handoff try ", "main-campus"),
        ("handoff held list --wh", "--what"),
    ],
)  # fmt: skip
def test_names_and_choices_are_completed(bare: Site, typed: str, offered: str) -> None:
    environment = {
        **os.environ, "HANDOFF_CONFIG": str(bare.config), "_HANDOFF_COMPLETE": "bash_complete", "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split(" ")) - 1),
    }  # fmt: skip
    done = subprocess.run(ENGINE, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert f"plain,{offered}" in done.stdout, done


def test_completion_of_a_site_that_cannot_be_read_offers_nothing(bare: Site) -> None:
    bare.config.write_text("node: [")
    test = {**os.environ, "HANDOFF_CONFIG": str(bare.config), "_HANDOFF_COMPLETE": "bash_complete",
            "COMP_WORDS": "handoff messages list --channel ", "COMP_CWORD": "4"}  # fmt: skip
    done = subprocess.run(ENGINE, env=test, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_every_command_has_a_man_page_that_shows_its_options(tmp_path: Path) -> None:
    assert app.run(["manual", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"handoff.1", *(f"handoff-{name}.1" for name in app.COMMANDS)}
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert all(f".SH {part}\n" in text for part in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS")), path.name
    text = (tmp_path / "handoff-tasks.1").read_text()
    for said in (r"\-\-assignee", r"\-\-due", "handoff tasks done"):
        assert said in text


def test_nothing_in_a_man_page_is_taken_for_a_request() -> None:
    assert manual._roff(".TH x") == r"\&.TH x"
    assert manual._roff("a\\b-c") == r"a\eb\-c"


def test_every_listed_command_has_a_help_of_one_line() -> None:
    context = click.Context(app.handoff)
    for name in app.COMMANDS:
        command = app.handoff.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(200)


# --- speed -----------------------------------------------------------------------------------------------------------

SLOW = (
    "engine.bootstrap", "engine.pipeline.channel", "engine.mapping.compile", "engine.care.protocol",
    "engine.runtime.worker", "aiohttp", "structlog", "holidays", "requests", "phonenumbers", "simple_salesforce",
    "prometheus_client", "alembic",
)  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [("messages", "list"), ("tasks", "list"), ("dead", "list"), ("held", "list"), ("patients", "find"), ("ledger",),
     ("audit", "list"), ("senders",), ("destinations", "list")],
    ids=" ".join,
)  # fmt: skip
def test_a_command_that_reads_waits_for_nothing_it_does_not_need(bare: Site, command: tuple[str, ...]) -> None:
    """Imports are most of the time that a command takes."""
    program = (
        "import sys; from engine.cli import app\n"
        f"code = app.run([*{command!r}, '--config', {str(bare.config)!r}])\n"
        f"print(code, [name for name in {SLOW!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr


def test_status_needs_no_store_and_no_sql(bare: Site) -> None:
    program = (
        "import sys; import engine.cli.status, engine.runtime.status\n"
        "print([name for name in ('sqlalchemy', 'aiohttp', 'structlog') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
