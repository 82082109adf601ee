"""`handoff resend`: a destination hears how the charts stand, once."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from site_with_store import Site, first_messages, seen

from engine.connectors.registry import load
from engine.domain.delivery import DeliveryState, QueuedDelivery
from engine.snapshot import Snapshot
from engine.store.opening import open_store
from engine.store.outbox import Settled

KEY = "MRN:558181838"
CHANNEL = "channels/main-campus.yaml"


def edit(site: Site, file: str, old: str, new: str) -> None:
    path = site.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def add_destination(site: Site, name: str = "crm", what: str = "patient, encounter, score, task") -> None:
    edit(site, "config.yaml", "destinations:\n", f"destinations:\n  {name}: {{type: file, path: var/{name}}}\n")
    edit(site, CHANNEL, "deliver:\n", f"deliver:\n  - {{to: {name}, what: [{what}]}}\n")


@contextlib.contextmanager
def delivering_nothing(site: Site) -> Iterator[None]:
    """The channel feeds no destination for a while."""
    path = site.folder / CHANNEL
    text = path.read_text()
    path.write_text(text.partition("\ndeliver:")[0] + "\n")
    yield
    path.write_text(text)


def outbox(site: Site, name: str = "crm") -> list[QueuedDelivery]:
    """All that was ever for a destination."""
    from sqlalchemy import select

    from engine.store.schema import delivery

    with open_store(load(Snapshot.read(site.config)), "tool") as store, store.reader() as conn:
        ids = conn.execute(select(delivery.c.id).where(delivery.c.destination == name).order_by(delivery.c.id))
        found = [store.outbox.get(conn, id_) for id_ in ids.scalars()]
    return [one for one in found if one is not None]


def told(site: Site, name: str = "crm") -> list[tuple[str, dict[str, Any]]]:
    return [(one.delivery.operation.value, msgspec.json.decode(one.delivery.payload)) for one in outbox(site, name)]


def settle(site: Site, name: str, state: DeliveryState) -> None:
    with open_store(load(Snapshot.read(site.config)), "tool") as store:
        waiting = [one for one in outbox(site, name) if one.state is DeliveryState.PENDING]
        results = [Settled(id=one.id, state=state, attempts=1, error="x") for one in waiting]
        store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, results, datetime.now(UTC)))


def hear(site: Site, *payloads: bytes) -> None:
    site.receive(*payloads)
    site.process()


def message(event: str, control_id: str, patient: str = "77^^^MRN^MR", *more: str) -> bytes:
    at = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    lines = [
        f"MSH|^~\\&|EHR|MAIN|||{at}||ADT^{event}|{control_id}|P|2.5.1",
        f"EVN|{event}|{at}",
        f"PID|1||{patient}||ROE^RICHARD||19600101|M",
        *more,
        f"PV1|1|I|4W||||||||||||||||V{patient[:2]}^^^VN",
    ]
    return "\r".join(lines).encode() + b"\r"


def test_a_new_destination_is_told_how_everything_stands_and_only_once(stocked: Site):
    add_destination(stocked)
    before = stocked.json("resend", "--destination", "crm", "--all", "--dry-run")
    assert (before["patients"], before["dry_run"]) == (1, True)
    assert outbox(stocked) == []
    done = stocked.json("resend", "--destination", "crm", "--all")
    assert done["deliveries"] == before["deliveries"]
    shown = stocked.json("patients", "show", KEY, "--reveal", "--reason", "test")
    said = told(stocked)
    assert [payload["task"] for operation, payload in said if operation == "upsert_task"] == shown["tasks"]
    assert [payload["score"] for operation, payload in said if operation == "upsert_score"] == shown["scores"]
    assert [payload["encounter"] for operation, payload in said if operation == "upsert_encounter"] == shown[
        "encounters"
    ]
    assert [operation for operation, _ in said] == sorted(
        (operation for operation, _ in said),
        key=["upsert_patient", "upsert_encounter", "upsert_score", "upsert_task"].index,
    )
    again = stocked.json("resend", "--destination", "crm", "--all")
    assert (again["patients"], again["unchanged"], again["deliveries"]) == (0, 1, {})
    assert len(outbox(stocked)) == sum(done["deliveries"].values())
    assert "has this very state" in stocked.run("resend", "--destination", "crm", "--all").out


def test_a_destination_that_was_told_all_along_is_told_nothing(stocked: Site):
    done = stocked.json("resend", "--destination", "files", "--all")
    assert (done["patients"], done["unchanged"]) == (0, 1)


@pytest.mark.parametrize("state", [DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.HELD])
def test_what_waits_or_was_delivered_is_not_sent_again(stocked: Site, state: DeliveryState):
    add_destination(stocked)
    stocked.json("resend", "--destination", "crm", "--patient", KEY)
    settle(stocked, "crm", state)
    assert stocked.json("resend", "--destination", "crm", "--patient", KEY)["patients"] == 0


def test_what_died_is_sent_again(stocked: Site):
    add_destination(stocked)
    first = stocked.json("resend", "--destination", "crm", "--all")
    settle(stocked, "crm", DeliveryState.DEAD)
    settle(stocked, "crm", DeliveryState.DEAD)
    while any(one.state is DeliveryState.PENDING for one in outbox(stocked)):
        settle(stocked, "crm", DeliveryState.DEAD)
    assert stocked.json("resend", "--destination", "crm", "--all")["deliveries"] == first["deliveries"]


def test_again_sends_what_the_destination_has(stocked: Site):
    add_destination(stocked)
    first = stocked.json("resend", "--destination", "crm", "--all")
    assert stocked.json("resend", "--destination", "crm", "--all", "--again")["deliveries"] == first["deliveries"]
    keys = [one.delivery.idempotency_key for one in outbox(stocked)]
    assert len(set(keys)) == 2 * sum(first["deliveries"].values())


def test_a_later_change_is_told_as_ever_and_then_there_is_nothing_to_resend(bare: Site):
    hear(bare, message("A01", "1"))
    add_destination(bare)
    bare.json("resend", "--destination", "crm", "--all")
    hear(bare, message("A08", "2").replace(b"RICHARD", b"RICK"))
    assert len([payload for operation, payload in told(bare) if operation == "upsert_patient"]) == 2
    assert bare.json("resend", "--destination", "crm", "--all")["patients"] == 0


def test_a_state_that_comes_back_while_the_channel_does_not_deliver_there_is_told(bare: Site):
    add_destination(bare)
    hear(bare, message("A01", "1"))
    hear(bare, message("A08", "2").replace(b"RICHARD", b"RICK"))
    with delivering_nothing(bare):
        hear(bare, message("A08", "3"))
    assert bare.json("resend", "--destination", "crm", "--all")["deliveries"] == {"upsert_patient": 1}
    names = [payload["patient"]["name"]["given"] for operation, payload in told(bare) if operation == "upsert_patient"]
    assert names == ["RICHARD", "RICK", "RICHARD"]


def test_nothing_of_a_shadow_leaves_and_a_replay_brings_it_in_when_it_is_live(bare: Site):
    add_destination(bare, what="patient, encounter, score, task, message")
    hear(bare, message("A03", "before"))
    known = len(outbox(bare))
    edit(bare, CHANNEL, "mode: live", "mode: shadow")
    hear(bare, *first_messages(bare), message("A20", "no-chart"), message("A19", "nobody"))
    task = bare.json("tasks", "list", "--state", "open")[0]["id"]
    bare.json("tasks", "done", task)  # of a patient of the living; its channel delivers nothing now
    assert len(outbox(bare)) == known
    refused = bare.run("resend", "--destination", "crm", "--all")
    assert refused.code == 1
    assert "in shadow" in refused.err
    edit(bare, CHANNEL, "mode: shadow", "mode: live")
    assert bare.json("resend", "--destination", "crm", "--all")["deliveries"] == {"upsert_task": 1}
    assert bare.run("patients", "show", KEY).code == 1
    bare.json("replay", "--channel", "main-campus", "--since", "2026-01-01", "--yes")
    bare.process()
    tasks = {payload["task"]["id"]: payload["task"]["state"] for op, payload in told(bare) if op == "upsert_task"}
    assert tasks[task] == "done"
    of_replayed = {one["id"] for one in bare.json("tasks", "list", "--patient", KEY)}
    assert of_replayed
    assert of_replayed <= tasks.keys()


def test_a_task_that_is_done_on_a_live_or_paused_channel_is_told(stocked: Site):
    edit(stocked, CHANNEL, "mode: live", "mode: paused")
    task = stocked.json("tasks", "list", "--state", "open")[0]["id"]
    stocked.json("tasks", "done", task)
    states = [payload["task"]["state"] for operation, payload in told(stocked, "files") if operation == "upsert_task"]
    assert states[-1] == "done"


def test_patients_of_no_channel_that_delivers_there_are_counted_and_left_out(stocked: Site):
    add_destination(stocked)
    other = (stocked.folder / CHANNEL).read_text().replace("main-campus", "west").replace("2575", "2599")
    (stocked.folder / "channels/west.yaml").write_text(other.replace("- {to: crm", "# - {to: crm"))
    hear_on = stocked.receive(message("A01", "w1"), channel="west")
    assert hear_on
    stocked.process()
    done = stocked.json("resend", "--destination", "crm", "--all")
    assert (done["patients"], done["not_delivered_there"]) == (1, 1)


def test_a_merge_that_it_was_not_told_of_is_told(bare: Site):
    add_destination(bare)
    hear(bare, message("A01", "1"), message("A28", "2", "88^^^MRN^MR"))
    with delivering_nothing(bare):
        hear(bare, message("A40", "3", "77^^^MRN^MR", "MRG|88^^^MRN^MR"))
    done = bare.json("resend", "--destination", "crm", "--all")
    assert done["deliveries"]["merge_patient"] == 1
    assert ("merge_patient", {"survivor": "MRN:77", "merged": "MRN:88"}) in told(bare)
    assert bare.json("resend", "--destination", "crm", "--all")["patients"] == 0


def test_a_merged_patient_that_it_never_heard_of_is_no_news(bare: Site):
    hear(bare, message("A01", "1"), message("A28", "2", "88^^^MRN^MR"))
    hear(bare, message("A40", "3", "77^^^MRN^MR", "MRG|88^^^MRN^MR"))
    add_destination(bare)
    assert "merge_patient" not in bare.json("resend", "--destination", "crm", "--all")["deliveries"]


def test_a_score_whose_withdrawal_it_was_not_told_is_withdrawn_there(bare: Site):
    add_destination(bare)
    hear(bare, message("A01", "1"))
    before = Counter(operation for operation, _ in told(bare))
    assert before["upsert_score"]
    with delivering_nothing(bare):
        hear(bare, message("A11", "2"))
    bare.json("resend", "--destination", "crm", "--all")
    last = {
        (payload["score"]["encounter"], payload["score"]["model"]): payload["withdrawn"]
        for operation, payload in told(bare)
        if operation == "upsert_score"
    }
    shown = bare.json("patients", "show", "MRN:77")
    assert not shown["scores"]
    assert all(last.values())
    assert bare.json("resend", "--destination", "crm", "--all")["patients"] == 0


def test_two_destinations_of_one_object_are_both_told(bare: Site):
    add_destination(bare)
    add_destination(bare, "third")
    hear(bare, *first_messages(bare))
    crm, files, third = (told(bare, name) for name in ("crm", "files", "third"))
    assert crm
    assert crm == files == third
    keys = [one.delivery.idempotency_key for name in ("crm", "files", "third") for one in outbox(bare, name)]
    assert len(set(keys)) == len(keys)


def test_only_what_the_channel_delivers_there_is_sent(stocked: Site):
    add_destination(stocked, what="task")
    stocked.json("resend", "--destination", "crm", "--all")
    assert {operation for operation, _ in told(stocked)} == {"upsert_task"}


def test_since_takes_the_patients_that_changed(stocked: Site):
    add_destination(stocked)
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert stocked.json("resend", "--destination", "crm", "--since", ahead, "--dry-run")["patients"] == 0
    assert stocked.json("resend", "--destination", "crm", "--since", "1h")["patients"] == 1


def test_a_dry_run_for_a_patient_shows_what_would_go_out_and_names_nobody(stocked: Site):
    add_destination(stocked)
    done = stocked.json("resend", "--destination", "crm", "--patient", KEY, "--dry-run")
    assert len(done["details"]) == sum(done["deliveries"].values())
    text = stocked.run("resend", "--destination", "crm", "--patient", KEY, "--dry-run")
    assert "upsert_task pcp_follow_up open" in text.out
    assert seen(text.out + str(done["details"])) == []
    assert outbox(stocked) == []


def test_a_destination_that_is_paused_gets_it_later(stocked: Site):
    add_destination(stocked)
    stocked.json("destinations", "pause", "crm")
    assert "crm is paused" in stocked.run("resend", "--destination", "crm", "--all").out


def test_it_is_on_record_who_sent_it_and_why(stocked: Site):
    add_destination(stocked)
    stocked.json("resend", "--destination", "crm", "--patient", KEY, "--reason", "asked for by the practice")
    acts = [one for one in stocked.json("audit", "list") if one["action"] == "resend"]
    assert {one["subject"].partition(":")[0] for one in acts} == {"destination", "chart"}
    assert None not in {one["reason"] for one in acts}


@pytest.mark.parametrize(
    "arguments",
    [(), ("--all", "--since", "1d"), ("--patient", KEY, "--all")],
)
def test_it_must_be_said_of_whom(stocked: Site, arguments: tuple[str, ...]):
    assert stocked.run("resend", "--destination", "files", *arguments).code == 2


def test_a_destination_of_messages_is_told_no_charts(stocked: Site):
    edit(stocked, "config.yaml", "destinations:\n", "destinations:\n  lab: {type: mllp, host: h, port: 1}\n")
    edit(stocked, CHANNEL, "deliver:\n", "deliver:\n  - {to: lab, what: [message]}\n")
    done = stocked.run("resend", "--destination", "lab", "--all")
    assert done.code == 1
    assert "handoff replay" in done.err
    wrong = stocked.run("resend", "--destination", "nosuch", "--all")
    assert (wrong.code, "there are files" in wrong.err) == (1, True), "as `destinations show` says it"


def test_a_chart_that_can_t_be_read_stops_nobody_else(stocked: Site):
    from sqlalchemy import text

    hear(stocked, message("A01", "1"))
    add_destination(stocked)
    with open_store(load(Snapshot.read(stocked.config)), "tool") as store:
        store.charts_ledger.write_now(
            lambda conn: conn.execute(
                text("UPDATE chart SET document = substr(document, 1, 40) WHERE id = (SELECT min(id) FROM chart)")
            )
        )
    done = stocked.json("resend", "--destination", "crm", "--all", code=1)
    assert (done["patients"], done["damaged"]) == (1, 1)
