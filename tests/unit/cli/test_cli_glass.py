"""Breaking the glass: for one patient, some hours and to look only; on the trail, told, attested, counted."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyotp
import pytest
from site_with_store import Site, seen
from test_cli_access import KEY, ME, admit, configure, denials, refused, sit

from engine.connectors.registry import load
from engine.snapshot import Snapshot
from engine.store.glassnotices import remind
from engine.store.opening import open_store

WHY = ("--reason", "covering", "--because", "I round for a colleague today")


@pytest.fixture
def nurse(stocked: Site) -> Site:
    """A nurse of another unit sits there; there are a privacy officer and another patient."""
    configure(stocked)
    stocked.receive(admit("900001"))
    stocked.process()
    assert stocked.run("users", "add", "pat", "--role", "privacy_officer").code == 0
    sit(stocked, "--role", "nurse", "--unit", "9Z")
    return stocked


def as_(site: Site, role: str) -> None:
    assert site.run("users", "change", ME, "--role", role).code == 0


def test_a_broken_glass_shows_one_patient_to_look_only(nurse: Site) -> None:
    refused(nurse.run("patients", "show", KEY), "break-glass")
    made = nurse.json("break-glass", KEY, *WHY)
    assert made["told"] == ["pat"]
    ends = datetime.fromisoformat(made["ends_at"])
    assert timedelta(hours=1.9) < ends - datetime.now(UTC) <= timedelta(hours=2)
    shape = nurse.json("patients", "show", KEY, "--reveal", "--reason", "rounds")
    assert shape["name"]["family"] == "DOE"
    refused(nurse.run("patients", "show", "MRN:900001"), "none of yours")
    task = nurse.json("tasks", "list")[0]["id"]
    refused(nurse.run("tasks", "done", task), "none of yours")
    assert [one["key"] for one in nurse.json("patients", "find", "--reveal", "--reason", "rounds")] == [KEY]


def test_it_ends(nurse: Site) -> None:
    (nurse.folder / "offset").write_text("0")
    text = nurse.config.read_text()
    nurse.config.write_text(text + "\npurpose: test\nclock: {offset_seconds_file: offset}\n")
    nurse.json("break-glass", KEY, *WHY)
    (nurse.folder / "offset").write_text("7100")
    assert nurse.run("patients", "show", KEY).code == 0
    (nurse.folder / "offset").write_text("7300")
    refused(nurse.run("patients", "show", KEY), "none of yours")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--reason", "curious", "--because", "I just want to know"), 2, "There is no reason curious"),
        (("--reason", "emergency", "--because", "asap"), 1, "say in words"),
        (("--reason", "emergency"), 2, "--because"),
    ],
)
def test_a_reason_is_one_of_the_list_and_in_words(nurse: Site, options: tuple[str, ...], code: int, said: str) -> None:
    done = nurse.run("break-glass", KEY, *options)
    assert done.code == code
    assert said in done.err
    refused(nurse.run("patients", "show", KEY), "none of yours")


def test_who_may_not_break_it_does_not(nurse: Site) -> None:
    as_(nurse, "billing")
    refused(nurse.run("break-glass", KEY, *WHY), "billing may not break the glass")
    assert denials(nurse)


def test_it_is_attested_by_somebody_else_and_counted(nurse: Site) -> None:
    broken = nurse.json("break-glass", KEY, *WHY)["id"]
    as_(nurse, "privacy_officer")
    (found,) = nurse.json("audit", "glasses", "--open")
    assert (found["id"], found["actor"], found["because"]) == (broken, ME, "***")
    assert KEY not in str(found)
    (found,) = nurse.json("audit", "glasses", "--reveal", "--reason", "review")
    assert found["because"] == "I round for a colleague today"
    refused(nurse.run("audit", "attest", broken, "--right", "--because", "it was me"), "somebody else does")
    text = nurse.config.read_text()
    nurse.config.write_text(text.replace("grace_days: 366", f"grace_days: 366, local_users: {{{ME}: pat}}"))
    assert nurse.json("audit", "attest", broken, "--wrong", "--because", "no shift that day")["verdict"] == "wrong"
    refused(nurse.run("audit", "attest", broken, "--right", "--because", "again"), "attested already")
    assert nurse.json("audit", "glasses", "--open") == []
    assert nurse.json("audit", "glasses", "--by-person") == [{"name": ME, "broken": 1, "wrong": 1}]
    actions = [one["action"] for one in nurse.json("audit", "list")]
    assert {"glass-broken", "glass-attested"} <= set(actions)


def test_it_opens_a_restricted_record_unless_the_roles_say_that_none_does(nurse: Site) -> None:
    nurse.receive(admit("900002", more="PD1||||||||||||Y\r", n="2"))
    nurse.process()
    refused(nurse.run("patients", "show", "MRN:900002"), "none of yours")
    assert nurse.run("break-glass", "MRN:900002", *WHY).code == 0
    assert nurse.run("patients", "show", "MRN:900002").code == 0
    roles = nurse.folder / "mappings/access/roles.yaml"
    text = roles.read_text()
    roles.write_text(text.replace("hides: all\n    notice: This", "hides: all\n    glass: false\n    notice: This"))
    assert nurse.run("patients", "show", "MRN:900002").code == 1
    refused(nurse.run("break-glass", "MRN:900002", *WHY), "can't be opened")


def test_without_access_there_is_no_glass_to_break(stocked: Site) -> None:
    assert "nothing is shut" in stocked.run("break-glass", KEY, *WHY).err


# --- told by a delivery, and who they are shown again ----------------------------------------------------------------


def notices(site: Site, name: str = "files") -> list[dict[str, Any]]:
    with open_store(load(Snapshot.read(site.config)), "tool") as store, store.reader() as conn:
        queued = store.outbox.due(conn, name, datetime.now(UTC), 1000, ordered_batches=True)
        return [json.loads(one.delivery.payload) for one in queued if one.delivery.operation == "notify_glass"]


def test_it_is_told_by_a_delivery_with_nothing_of_the_patient(nurse: Site) -> None:
    text = nurse.config.read_text()
    nurse.config.write_text(text.replace("grace_days: 366", "grace_days: 366, glass_notices: [files]"))
    made = nurse.json("break-glass", KEY, *WHY)
    (said,) = notices(nurse)
    assert (said["id"], said["actor"], said["reason"], said["told"], said["reminder"]) == (
        made["id"], ME, "covering", ["pat"], 0,
    )  # fmt: skip
    assert not seen(json.dumps(said))
    assert made["chart"] not in json.dumps(said)
    assert "colleague" not in json.dumps(said)


def test_it_is_told_again_until_it_is_attested_and_each_reminder_once(nurse: Site) -> None:
    broken = nurse.json("break-glass", KEY, *WHY)["id"]
    with open_store(load(Snapshot.read(nurse.config)), "tool") as store:
        for hours in (23, 25, 26, 49):
            remind(store, ["files"], datetime.now(UTC) + timedelta(hours=hours), 24.0)
    assert [(one["id"], one["reminder"]) for one in notices(nurse)] == [(broken, 1), (broken, 2)]
    as_(nurse, "privacy_officer")
    text = nurse.config.read_text()
    nurse.config.write_text(text.replace("grace_days: 366", f"grace_days: 366, local_users: {{{ME}: pat}}"))
    assert nurse.run("audit", "attest", broken, "--right", "--because", "the roster says so").code == 0
    with open_store(load(Snapshot.read(nurse.config)), "tool") as store:
        remind(store, ["files"], datetime.now(UTC) + timedelta(hours=73), 24.0)
    assert len(notices(nurse)) == 2


@pytest.mark.parametrize(("names", "said"), [("[nobody]", "no destination"), ("[lab]", "takes no such notices")])
def test_a_destination_that_can_not_be_told_is_a_problem(nurse: Site, names: str, said: str) -> None:
    text = nurse.config.read_text().replace("grace_days: 366", f"grace_days: 366, glass_notices: {names}")
    nurse.config.write_text(
        text.replace("destinations:", "destinations:\n  lab: {type: mllp, host: 127.0.0.1, port: 2}")
    )
    assert said in nurse.run("check").out


def test_an_account_with_a_password_shows_it_again(nurse: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def type_(*lines: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))

    type_("correct horse battery staple")
    assert nurse.run("users", "change", ME, "--role", "admin").code == 0
    assert nurse.run("users", "password", ME).code == 0
    secret = nurse.json("users", "mfa", ME)["secret"]
    as_(nurse, "nurse")
    type_("wrong horse battery staple", "000000")
    done = nurse.run("break-glass", KEY, *WHY)
    assert done.code == 1
    refused(nurse.run("patients", "show", KEY), "none of yours")
    type_("correct horse battery staple", "000000")
    assert nurse.run("break-glass", KEY, *WHY).code == 1
    type_("correct horse battery staple", pyotp.TOTP(secret).now())
    assert nurse.json("break-glass", KEY, *WHY)["proved"] == "password"
    assert nurse.run("patients", "show", KEY).code == 0


def test_an_account_without_a_password_is_named_as_such(nurse: Site) -> None:
    assert nurse.json("break-glass", KEY, *WHY)["proved"] == "local user"
