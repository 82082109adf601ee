"""Restrictions on what leaves, through a site: withheld at once, asked again, released, and what a copy carries."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sqlite3
from contextlib import suppress
from typing import Any

import pytest
from held_leases import held_leases
from site_with_store import Site
from test_cli_access import admit, fill_in

from engine.bootstrap import _ready
from engine.clock import SystemClock
from engine.connectors.registry import load
from engine.domain.delivery import Delivery, Forward, Operation
from engine.pipeline.copies import of_message
from engine.runtime.courier import Courier
from engine.snapshot import Snapshot
from engine.store import admissions
from engine.store.opening import open_store

KEY = "MRN:900001"
WHY = ("--reason", "form of today")
PROTECTED = "PD1||||||||||||Y\r"


def settings(site: Site, keys: str) -> None:
    text = site.config.read_text()
    site.config.write_text(text.replace("sealed: false}", f"sealed: false, {keys}}}"))
    fill_in(site)


def heard(site: Site, *messages: bytes) -> None:
    site.receive(*messages)
    site.process()


def states(site: Site) -> list[tuple[str, str, str | None]]:
    """Operation, state and why, of all deliveries of the patient in order."""
    return [
        (one["operation"], one["state"], one["last_error"])
        for entry in reversed(site.json("messages", "list"))
        for one in site.json("messages", "show", str(entry["id"]))["deliveries"]
    ]


def deliver(site: Site, *, let_out: bool = False) -> list[dict[str, Any]]:
    """Run the courier until nothing is due; what stands in the files then. let_out: nor anything withheld."""
    configuration = load(Snapshot.read(site.config))

    async def run() -> None:
        with open_store(configuration, "worker") as store:
            _, routes = _ready(configuration, store)
            courier = Courier(
                store.outbox, store.charts_ledger, store.reader, routes, clock=SystemClock(),
                leases=held_leases(store, *routes),
            )  # fmt: skip
            task = asyncio.create_task(courier.run())
            for _ in range(400):
                await asyncio.sleep(0.01)
                with store.reader() as conn:
                    kept = let_out and admissions.counts(conn)
                    if not kept and not any(one for one in store.outbox.unfinished(conn).values()):
                        break
            courier.stop()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())
    lines = [line for file in sorted((site.folder / "var/outbox").glob("*.ndjson")) for line in file.open()]
    return [json.loads(line) for line in lines]


def withheld(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.json("held", "list", "--what", "withheld")
    return found


def test_a_restricted_record_is_withheld_when_it_is_queued_and_where_a_person_sees_it(bare: Site) -> None:
    settings(bare, "restricted: withhold")
    heard(bare, admit("900001", more=PROTECTED))
    assert {(state, why) for _, state, why in states(bare)} == {("withheld", "restricted")}
    assert {one["code"] for one in withheld(bare)} == {"restricted"}
    assert {one["what"] for one in bare.json("gaps")} >= {"withheld"}
    entry = bare.json("messages", "list")[0]["id"]
    whys = [one for one in bare.json("messages", "show", str(entry))["why"] if one["what"] == "delivery"]
    assert {one["decided"] for one in whys} == {"withheld"}
    assert whys[0]["reason"].startswith("restricted: ")
    assert deliver(bare) == []


def test_a_restriction_that_comes_later_withholds_what_waits_and_one_that_goes_lets_it_out_in_order(bare: Site) -> None:
    settings(bare, "restricted: withhold")
    heard(bare, admit("900001"))
    assert {state for _, state, _ in states(bare)} == {"pending"}
    heard(bare, admit("900001", more=PROTECTED, n="2"))
    assert deliver(bare) == []
    assert {(state, why) for _, state, why in states(bare)} == {("withheld", "restricted")}
    heard(bare, admit("900001", more="PD1||||||||||||N\r", n="3"))
    assert withheld(bare) == []
    sent = deliver(bare)
    assert {state for _, state, _ in states(bare)} == {"delivered"}
    assert sent
    assert all(one["patient"]["protection"] is False for one in sent if "patient" in one)
    assert sent[0]["operation"] == "upsert_patient"
    assert all("marking" not in one for one in sent)


def test_what_a_person_has_dismissed_stays_unsent(bare: Site) -> None:
    settings(bare, "restricted: withhold")
    heard(bare, admit("900001", more=PROTECTED))
    first = str(withheld(bare)[0]["id"])
    assert bare.run("held", "dismiss", first, *WHY).code == 0
    heard(bare, admit("900001", more="PD1||||||||||||N\r", n="2"))
    deliver(bare)
    assert "withheld" in {state for _, state, _ in states(bare)}
    assert withheld(bare) == []


def test_what_a_person_releases_goes_out_with_its_notice(bare: Site) -> None:
    settings(bare, "restricted: withhold")
    heard(bare, admit("900001", more=PROTECTED))
    ids = [str(one["id"]) for one in withheld(bare)]
    assert bare.run("held", "release", *ids, *WHY).code == 0
    sent = deliver(bare)
    assert len(sent) == len(ids)
    for one in sent:
        assert one["marking"]["confidentiality"] == "V"
        assert one["marking"]["notice"] == ["This record is protected at the patient's request."]


def test_without_clinical_data_the_rest_goes_out(bare: Site) -> None:
    settings(bare, "restricted: without_clinical")
    heard(bare, admit("900001", more=f"{PROTECTED}DG1|1||F11.2^x^I10|||A\r"))
    sent = deliver(bare)
    assert {one["operation"] for one in sent} == {"upsert_patient", "upsert_encounter"}
    assert "F11.2" not in json.dumps(sent)
    assert all(one["marking"]["without"] == ["clinical"] for one in sent)


def test_a_part_2_record_waits_for_a_consent_and_goes_with_its_scope(bare: Site) -> None:
    settings(bare, "disclosure: {as: tpo, recipient: R}")
    heard(bare, admit("900001", unit="PART2"))
    assert {why for _, _, why in states(bare)} == {"part2_no_consent"}
    made = bare.json("consents", "add", KEY, "--kind", "part2_tpo", *WHY)
    assert made["holds"]
    assert withheld(bare) == []
    sent = deliver(bare)
    assert sent
    for one in sent:
        assert one["marking"]["notice"] == ["42 CFR part 2 prohibits unauthorized use or disclosure of these records."]
        assert "treatment, payment" in one["marking"]["consent"]
        assert one["marking"]["confidentiality"] == "ETH"
    (said,) = bare.json("consents", "list", KEY)
    assert (said["id"], said["because"]) == (made["id"], "***")
    assert bare.json("consents", "revoke", KEY, made["id"], *WHY)["holds"] is False
    heard(bare, admit("900001", unit="PART2", attending="78", n="2"))
    assert {one["code"] for one in withheld(bare)} == {"part2_no_consent"}
    assert [one["action"] for one in bare.json("audit", "list") if one["action"].startswith("consent-")] == [
        "consent-revoked",
        "consent-given",
    ]


def test_a_consent_for_one_destination_is_for_no_other(bare: Site) -> None:
    settings(bare, "part2: needs_consent")
    heard(bare, admit("900001", unit="PART2"))
    assert bare.run("consents", "add", KEY, "--kind", "part2_specific", "--to", "nobody", *WHY).code == 2
    assert bare.run("consents", "add", KEY, "--kind", "part2_specific", *WHY).code == 1
    bare.json("consents", "add", KEY, "--kind", "part2_specific", "--to", "files", *WHY)
    assert withheld(bare) == []
    assert all(one["marking"]["consent"] == "disclosure to this recipient" for one in deliver(bare))


def test_a_refusal_of_notices_is_honoured_where_notices_go(bare: Site) -> None:
    settings(bare, "event_notices: true")
    heard(bare, admit("900001"))
    made = bare.json("consents", "add", KEY, "--kind", "notices_refused", *WHY)
    assert deliver(bare) == []
    assert {why for _, _, why in states(bare)} == {"patient_refused"}
    bare.json("consents", "revoke", KEY, made["id"], *WHY)
    assert deliver(bare) != []


@pytest.mark.parametrize(("unit", "warned"), [("PART2", ["part2_tpo", "notices_refused"]), (None, None)])
def test_check_tells_what_is_not_filled_in(bare: Site, unit: str | None, warned: list[str] | None) -> None:
    if unit is None:
        assert bare.json("check")["problems"] == []  # nobody is asked on a site without accounts or such settings
        return
    settings(bare, "part2: needs_consent")
    found = [one["key"] for one in bare.json("check")["problems"]]
    assert found == [f"consents.{name}.when" for name in warned or ()]
    roles = bare.folder / "mappings/access/roles.yaml"
    roles.write_text(roles.read_text().replace("units: [PART2]", "units: []"))
    assert "restrictions.part2.when" in [one["key"] for one in bare.json("check")["problems"]]


def passing_on(site: Site) -> None:
    channel = site.folder / "channels/main-campus.yaml"
    channel.write_text(channel.read_text().replace("what: [patient, encounter, score, task]", "what: [message]"))


def test_a_message_of_a_part_2_stay_is_withheld_and_one_of_another_stay_goes(bare: Site) -> None:
    settings(bare, "part2: needs_consent")
    passing_on(bare)
    other = admit("900001", unit="3W", n="2").replace(b"V900001", b"V900009")
    heard(bare, admit("900001", unit="PART2"), other)
    assert [(state, why) for _, state, why in states(bare)] == [("withheld", "part2_no_consent"), ("pending", None)]
    (sent,) = deliver(bare)
    assert sent["stay"] == "MRN:V900009"
    bare.json("consents", "add", KEY, "--kind", "part2_specific", "--to", "files", *WHY)
    # A later message of the patient went there since: which of the two is to stand there a person says.
    assert [one["code"] for one in withheld(bare)] == ["part2_no_consent"]


def test_messages_that_nothing_has_overtaken_go_out_in_their_order(bare: Site) -> None:
    settings(bare, "part2: needs_consent")
    passing_on(bare)
    heard(bare, *(admit("900001", unit="PART2", n=str(number)) for number in range(1, 4)))
    assert len(withheld(bare)) == 3
    bare.json("consents", "add", KEY, "--kind", "part2_specific", "--to", "files", *WHY)
    sent = [base64.b64decode(one["hl7"]) for one in deliver(bare)]
    assert [number for one in sent for number in (b"1", b"2", b"3") if b"OTHER-" + number in one] == [b"1", b"2", b"3"]


def test_a_merge_brings_the_restriction_and_the_consents_along(bare: Site) -> None:
    settings(bare, "restricted: withhold")
    heard(bare, admit("900001"))
    heard(bare, admit("900002", more=PROTECTED, n="2"))
    made = bare.json("consents", "add", "MRN:900002", "--kind", "notices_refused", *WHY)
    merge = (
        "MSH|^~\\&|EHR|MAIN|||20261102||ADT^A40^ADT_A39|M-1|P|2.5.1\rEVN|A40|20261102\r"
        "PID|1||900001^^^MRN^MR||ROE^RICHARD||1950\rPD1||||||||||||Y\rMRG|900002^^^MRN^MR\r"
    )
    heard(bare, merge.encode())
    assert [one["id"] for one in bare.json("consents", "list", KEY)] == [made["id"]]
    assert deliver(bare) == []


def test_what_waits_is_asked_again_when_the_site_restricts_more(bare: Site) -> None:
    heard(bare, admit("900001", unit="PART2"))
    assert {state for _, state, _ in states(bare)} == {"pending"}
    settings(bare, "part2: needs_consent")
    assert deliver(bare) == []
    assert {(state, why) for _, state, why in states(bare)} == {("withheld", "part2_no_consent")}


def test_what_was_withheld_goes_out_when_the_site_restricts_less(bare: Site) -> None:
    settings(bare, "restricted: withhold")
    heard(bare, admit("900001", more=PROTECTED))
    assert deliver(bare) == []
    bare.config.write_text(bare.config.read_text().replace("restricted: withhold", "restricted: send"))
    sent = deliver(bare, let_out=True)
    assert sent[0]["operation"] == "upsert_patient"
    assert all(one["marking"]["confidentiality"] == "V" for one in sent)
    assert withheld(bare) == []


def test_a_resend_tells_nothing_that_is_restricted(bare: Site) -> None:
    settings(bare, "restricted: withhold")
    heard(bare, admit("900001", more=PROTECTED))
    assert bare.run("resend", "--destination", "files", "--all", "--again", "--reason", "test", "--yes").code == 0
    assert deliver(bare) == []


def test_try_says_what_would_be_withheld(bare: Site) -> None:
    settings(bare, "restricted: withhold")
    file = bare.folder / "one.hl7"
    file.write_bytes(admit("900001", more=PROTECTED))
    tried = bare.json("try", "main-campus", str(file))
    one = tried[0] if isinstance(tried, list) else tried
    assert {each["state"] for each in one["deliveries"]} == {"withheld"}


def test_why_names_the_rule(bare: Site) -> None:
    settings(bare, "restricted: withhold")
    heard(bare, admit("900001", more=PROTECTED))
    said = [one for one in bare.json("why", KEY) if one["what"] == "delivery"]
    assert {(one["decided"], one["reason"]) for one in said} == {("withheld", "restricted")}


def test_a_message_of_nobody_known_is_judged_by_what_it_says_itself() -> None:
    hl7 = admit("900001", unit="SUD", more=PROTECTED)
    one = Delivery(
        destination="lab", operation=Operation.FORWARD, ordering_key="entry-1", idempotency_key="k",
        payload=Forward(hl7=hl7).encoded(),
    )  # fmt: skip
    chart = of_message(one)
    assert chart is not None
    assert chart.patient.protection is True
    assert chart.encounters[0].location is not None
    assert chart.encounters[0].location.point_of_care == "SUD"


def test_nobody_who_writes_in_the_database_can_say_that_a_copy_is_free(bare: Site) -> None:
    settings(bare, "restricted: send")
    heard(bare, admit("900001"))  # marked later, when the restriction comes
    heard(bare, admit("900001", more=PROTECTED, n="2"))
    assert {state for _, state, _ in states(bare)} == {"pending"}
    for file in (bare.folder / "var").glob("handoff*.db"):
        with contextlib.closing(sqlite3.connect(file)) as conn:
            if conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'delivery'").fetchone():
                assert conn.execute("UPDATE delivery SET marked = 0 WHERE marked = 1").rowcount > 0
                conn.commit()
    assert deliver(bare) == []
    assert {(state, why) for _, state, why in states(bare)} == {("dead", "payload-damaged")}
