"""The commands that read and change the store, on a site that has seen four messages."""

from __future__ import annotations

import json
import re

import pytest
from site_with_store import REFUSED, UNREADABLE, Site, first_messages, seen

KEY = "MRN:558181838"
REVEAL = ("--reveal", "--reason", "a test")


def pseudonym(site: Site) -> str:
    return site.json("messages", "list", "--control-id", "FIRST-0001")[0]["patient_key"]


# --- what the contract promises of shapes ----------------------------------------------------------------------------


def test_messages_list_shows_each_entry_with_both_legs_newest_first(stocked: Site) -> None:
    listed = stocked.json("messages", "list")
    assert [(m["control_id"], m["type"], m["state"], m["ack"], m["ack_state"]) for m in listed] == [
        ("WRONG-TYPE", "ORU^R01", "refused", "AR", "sent"),
        ("NO-ID", "ADT^A08", "dead", "AA", "sent"),
        ("FIRST-0002", "ADT^A03", "processed", "AA", "sent"),
        ("FIRST-0001", "ADT^A01", "processed", "AA", "sent"),
    ]
    assert {"id", "channel", "received_at", "patient_key", "replay_of"} <= listed[0].keys()
    assert [m["id"] for m in listed] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--state", "dead"), [3]),
        (("--state", "refused"), [4]),
        (("--control-id", "FIRST-0001"), [1]),
        (("--error", "identifier-missing"), [3]),
        (("--sender", "MAIN"), [4, 3, 2, 1]),
        (("--sender", "EHR/MAIN", "--state", "dead"), [3]),
        (("--sender", "ELSEWHERE"), []),
        (("--deviation", "nothing-of-the-sort"), []),
        (("--without-effect",), []),
        (("--flagged",), []),
        (("--since", "yesterday", "--until", "tomorrow"), [4, 3, 2, 1]),
        (("--patient", KEY), [4, 2, 1]),
        (("--since", "1h"), [4, 3, 2, 1]),
        (("--until", "1h"), []),
        (("--since", "2020-01-01", "--until", "2020-01-02T00:00:00+02:00"), []),
        (("--limit", "1"), [4]),
    ],
)
def test_messages_list_is_narrowed_by_its_options(stocked: Site, options: tuple[str, ...], ids: list[int]) -> None:
    assert [m["id"] for m in stocked.json("messages", "list", *options)] == ids


def test_patients_show_has_the_shape_of_the_contract(stocked: Site) -> None:
    shape = stocked.json("patients", "show", KEY, *REVEAL)
    assert shape["key"] == KEY
    assert shape["identifiers"] == [{"value": "558181838", "authority": "MRN", "type": "MR"}]
    assert shape["name"] == {"family": "DOE", "given": "JANE", "middle": "Q", "prefix": "MS", "suffix": None}
    assert shape["birth_date"] == "1947-07-15"
    assert shape["pcp"] == {"id": "1730155555", "family": "CARTER", "given": "JOHN"}
    assert shape["phones"] == ["+12125550143"]
    assert {"sex", "address", "language", "deceased", "deceased_at", "merged_from"} <= shape.keys()
    (encounter,) = shape["encounters"]
    assert (encounter["visit_number"], encounter["class"], encounter["status"]) == ("V90001", "I", "finished")
    assert encounter["disposition"] == "01"
    assert [d["code"] for d in encounter["diagnoses"]] == ["I50.9", "J44.9", "E11.9"]
    lace = next(score for score in shape["scores"] if score["model"] == "lace")
    assert (lace["value"], lace["band"]) == (12, "high")
    task = shape["tasks"][0]
    assert {"id", "kind", "patient_key", "encounter", "due_at", "escalate_at", "state", "assignee", "reason"} <= (
        task.keys()
    )


def test_tasks_list_is_narrowed_by_its_options(stocked: Site) -> None:
    every = stocked.json("tasks", "list")
    assert {task["kind"] for task in every} >= {"medication_reconciliation", "pcp_follow_up", "on_call_page"}
    assert {task["state"] for task in every} == {"open"}
    assert [t["kind"] for t in stocked.json("tasks", "list", "--kind", "pcp_follow_up")] == ["pcp_follow_up"]
    assert stocked.json("tasks", "list", "--state", "done") == []
    assert len(stocked.json("tasks", "list", "--patient", KEY)) == len(every)


def test_the_ledger_balances_and_says_so_with_its_exit_code(stocked: Site) -> None:
    (line,) = stocked.json("ledger", code=0)
    assert line["balanced"] is True
    assert (line["received"], line["processed"], line["dead"], line["refused"], line["pending"]) == (4, 2, 1, 1, 0)
    assert line["deliveries"]["pending"] > 0


def test_the_ledger_shows_what_is_not_processed_yet_as_pending(bare: Site) -> None:
    bare.receive(*first_messages(bare))
    (line,) = bare.json("ledger")
    assert (line["received"], line["pending"], line["balanced"]) == (2, 2, True)


def test_dead_letters_have_the_shape_of_the_contract(stocked: Site) -> None:
    letters = stocked.json("dead", "list")
    assert [(letter["entry"], letter["stage"]) for letter in letters] == [(4, "intake"), (3, "processing")]
    assert {"id", "error", "location", "detail", "died_at", "resolved_by"} <= letters[0].keys()
    assert letters[0]["location"] == "MSH-9.1"
    assert [(letter["patient_key"], letter["sender"]) for letter in letters] == [
        (pseudonym(stocked), letters[1]["sender"]), (None, letters[1]["sender"]),
    ]  # fmt: skip
    assert re.fullmatch("~[0-9a-f]{8}/~[0-9a-f]{8}", letters[0]["sender"]), "nobody has named it"
    channel = stocked.folder / "channels/main-campus.yaml"
    channel.write_text(channel.read_text() + "\nsenders: [MAIN]\n")
    assert stocked.json("dead", "list")[0]["sender"] == letters[0]["sender"].partition("/")[0] + "/MAIN"
    assert stocked.json("dead", "list", "--stage", "intake")[0]["entry"] == 4


# --- masking ---------------------------------------------------------------------------------------------------------

READERS = [
    ("messages", "list"), ("messages", "show", "1"), ("messages", "show", "2"), ("patients", "find"),
    ("patients", "show", KEY), ("tasks", "list"), ("dead", "list"), ("dead", "show", "1"), ("ledger",),
    ("risk", "score", "lace", "--patient", KEY), ("audit", "list"),
]  # fmt: skip


@pytest.mark.parametrize("command", READERS, ids=" ".join)
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "table"])
def test_without_reveal_nothing_says_who_the_patient_is(stocked: Site, command: tuple[str, ...], as_json: bool) -> None:
    done = stocked.run(*command, *(["--json"] if as_json else []))
    assert done.code == 0, done
    assert seen(done.out + done.err) == []


def test_the_masked_key_is_a_pseudonym_that_commands_take_for_the_key(stocked: Site) -> None:
    name = pseudonym(stocked)
    assert name.startswith("MRN:~")
    assert stocked.json("patients", "show", name)["key"] == name
    assert stocked.json("patients", "show", KEY)["key"] == name
    assert {task["patient_key"] for task in stocked.json("tasks", "list", "--patient", name)} == {name}
    assert [m["id"] for m in stocked.json("messages", "list", "--patient", name)] == [4, 2, 1]


def test_masked_output_keeps_what_the_work_needs(stocked: Site) -> None:
    shape = stocked.json("patients", "show", KEY)
    (encounter,) = shape["encounters"]
    assert (encounter["status"], encounter["disposition"], encounter["class"]) == ("finished", "01", "I")
    assert (encounter["admitted_at"], encounter["discharged_at"]) == ("2026-11-04", "2026-11-09")
    assert all(score["band"] and score["value"] for score in shape["scores"])
    assert [(score["factors"], score["factors_masked"] > 0) for score in shape["scores"]] == [([], True)] * 2


@pytest.mark.parametrize("options", [("--reveal",), ("--reveal", "--reason", "  ")])
def test_to_reveal_needs_a_reason(stocked: Site, options: tuple[str, ...]) -> None:
    assert stocked.run("patients", "show", KEY, *options).code == 2


def test_revealing_is_audited_with_who_and_what_and_the_reason_is_masked_in_turn(stocked: Site) -> None:
    stocked.run("patients", "show", KEY, "--reveal", "--reason", "asked by Dr. Liu")
    (record,) = stocked.json("audit", "list", "--action", "reveal")
    assert record["subject"].startswith("chart:")
    assert record["actor"]
    assert record["reason"] == "***"
    shown = stocked.json("audit", "list", "--action", "reveal", "--reveal", "--reason", "review")
    assert "asked by Dr. Liu" in {item["reason"] for item in shown}


def test_a_masked_look_by_key_is_on_record_as_one_and_without_a_key_as_another(stocked: Site) -> None:
    name = stocked.json("patients", "show", KEY, "--reason", "asked by MARK")["key"]
    stocked.run("patients", "show", name)
    assert [one["action"] for one in stocked.json("audit", "list")] == ["looked", "searched"]
    (record,) = stocked.json("audit", "list", "--action", "searched")
    assert (record["reason"], record["terms"], record["count"]) == ("***", "***", 1)


def test_a_message_is_shown_with_its_text_only_when_revealed(stocked: Site) -> None:
    masked = stocked.json("messages", "show", "1")
    assert masked["payload"] == "***"
    shown = stocked.json("messages", "show", "1", *REVEAL)
    assert "DOE^JANE" in shown["payload"]
    assert shown["deliveries"][0]["payload"]["patient"]["key"] == KEY


def test_a_withdrawn_score_is_called_so_and_masked(stocked: Site) -> None:
    for event in ("A13", "A11"):  # neither the discharge nor the stay has been
        stocked.receive(
            f"MSH|^~\\&|EHR|MAIN|||20261112||ADT^{event}|{event}|P|2.5.1\rEVN|{event}|20261112\r"
            "PID|1||558181838^^^MRN^MR\rPV1|1|I|||||||||||||||||V90001\r".encode()
        )
    stocked.process()
    withdrawn = [
        (entry["id"], item["payload"]["score"]["model"])
        for entry in stocked.json("messages", "list")
        for item in stocked.json("messages", "show", str(entry["id"]))["deliveries"]
        if item["payload"].get("withdrawn")
    ]
    assert {model for _, model in withdrawn} == {"lace", "seed"}
    shown = stocked.run("messages", "show", str(withdrawn[0][0])).out
    assert "upsert_score lace withdrawn to files" in shown
    assert seen(shown) == []


def test_control_characters_of_a_message_do_not_reach_the_terminal(bare: Site) -> None:
    bare.receive(b"MSH|^~\\&|E|M|||2026||ADT^A08|\x1b[2Jgone|P|2.5.1\rPID|1\r")
    assert "\x1b" not in bare.run("messages", "list").out


# --- what is not there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("messages", "show", "999"), ("patients", "show", "MRN:1"), ("patients", "show", "MRN:~00000000"),
        ("dead", "show", "999"), ("dead", "discard", "999", "--reason", "x"), ("tasks", "done", "nothing"),
        ("risk", "score", "oracle", "--patient", KEY), ("try", "elsewhere", "channels/examples/first-message.hl7"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_not_there_ends_with_1_and_a_text(
    stocked: Site, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stocked.folder)
    done = stocked.run(*command)
    assert done.code == 1
    assert "there is no" in done.err


def test_a_store_that_is_not_there_ends_with_69(bare: Site) -> None:
    for file in bare.folder.glob("var/*.db*"):
        file.unlink()
    assert bare.run("ledger").code == 69
    assert bare.run("db", "status").code == 1


def test_missing_keys_end_with_78(bare: Site) -> None:
    (bare.folder / "var/keys.json").unlink()
    assert bare.run("ledger").code == 78


# --- replay ----------------------------------------------------------------------------------------------------------


def test_a_dead_letter_is_replayed_as_a_new_entry_once_its_cause_is_put_right(stocked: Site) -> None:
    stocked.config.parent.joinpath("channels/main-campus.yaml").write_text(
        stocked.config.parent.joinpath("channels/main-campus.yaml").read_text().replace('"ADT^*"', '"*"')
    )
    letter = next(letter for letter in stocked.json("dead", "list") if letter["stage"] == "intake")
    (result,) = stocked.json("dead", "replay", str(letter["id"]))
    assert result["entry"] == 5
    stocked.process()
    replayed = stocked.json("messages", "list", "--limit", "1")[0]
    assert (replayed["id"], replayed["replay_of"], replayed["state"]) == (5, 4, "processed")
    resolved = next(one for one in stocked.json("dead", "list") if one["id"] == letter["id"])
    assert resolved["resolved_by"] == "entry:5"
    assert stocked.json("ledger")[0]["balanced"] is True


def test_a_resolved_dead_letter_is_not_replayed_again(stocked: Site) -> None:
    stocked.json("dead", "replay", "1")
    (again,) = stocked.json("dead", "replay", "1", code=1)
    assert again["entry"] is None
    assert "resolved before" in again["problem"]


def test_dead_replay_all_takes_every_unresolved_letter_in_the_order_they_died(stocked: Site) -> None:
    assert [result["entry"] for result in stocked.json("dead", "replay", "--all")] == [5, 6]
    assert stocked.json("dead", "replay", "--all") == []


@pytest.mark.parametrize("options", [(), ("1", "--all"), ("1", "--error", "x")])
def test_dead_replay_wants_either_ids_or_a_choice(stocked: Site, options: tuple[str, ...]) -> None:
    assert stocked.run("dead", "replay", *options).code == 2


def test_a_discarded_dead_letter_says_so_and_its_reason_is_on_record(stocked: Site) -> None:
    stocked.json("dead", "discard", "1", "--reason", "test traffic")
    assert next(one for one in stocked.json("dead", "list") if one["id"] == 1)["resolved_by"] == "discarded"
    assert [one["id"] for one in stocked.json("dead", "list", "--unresolved")] == [2]
    (record,) = stocked.json("audit", "list", "--action", "discard", *REVEAL)
    assert record["reason"] == "test traffic"
    assert stocked.run("dead", "discard", "1", "--reason", "again").code == 1


def test_a_replay_sends_nothing_that_was_sent(stocked: Site) -> None:
    before = stocked.json("ledger")[0]["deliveries"]
    patient = stocked.json("patients", "show", KEY)
    document = stocked.json("replay", "--patient", KEY)
    assert document["selected"] == [1, 2]
    assert document["entries"] == [5, 6]
    stocked.process()
    assert stocked.json("ledger")[0]["deliveries"] == before
    assert stocked.json("patients", "show", KEY)["tasks"] == patient["tasks"]
    assert [m["state"] for m in stocked.json("messages", "list", "--limit", "2")] == ["processed", "processed"]


def test_a_dry_replay_writes_nothing(stocked: Site) -> None:
    document = stocked.json("replay", "--state", "processed", "--dry-run")
    assert (document["selected"], document["replayed"]) == ([1, 2], 0)
    assert len(stocked.json("messages", "list")) == 4
    assert {one["action"] for one in stocked.json("audit", "list")} <= {"looked", "trail-read"}


def test_a_replay_under_the_recorded_configuration_ignores_what_was_changed_since(stocked: Site) -> None:
    mapping = stocked.folder / "mappings/fields/adt.yaml"
    mapping.write_text(mapping.read_text().replace("patient.name: {from: PID-5", "patient.name: {from: PID-9"))
    then = stocked.json("replay", "--state", "processed", "--config-as-of", "then")["entries"]
    now = stocked.json("replay", "--state", "processed", "--config-as-of", "now")["entries"]
    stocked.process()
    versions = {entry: stocked.json("messages", "show", str(entry))["config_version"] for entry in [1, then[0], now[0]]}
    assert versions[then[0]] == versions[1]
    assert versions[now[0]] != versions[1]


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_that_is_done_stays_done_and_its_destinations_are_told(stocked: Site) -> None:
    before = stocked.json("ledger")[0]["deliveries"]["pending"]
    task = stocked.json("tasks", "list", "--kind", "pcp_follow_up")[0]
    assert (task["ended_at"], task["ended_by"], task["end_reason"], task["closed_by"]) == (None, None, None, None)
    done = stocked.json("tasks", "done", task["id"])
    assert (done["state"], done["reason"], done["end_reason"]) == ("done", task["reason"], None)
    (record,) = stocked.json("audit", "list", "--action", "task-done")
    assert done["ended_by"] == done["closed_by"] == record["actor"]
    assert done["ended_at"] is not None
    assert [t["id"] for t in stocked.json("tasks", "list", "--state", "done")] == [task["id"]]
    assert stocked.json("ledger")[0]["deliveries"]["pending"] == before + 1
    assert stocked.run("tasks", "done", task["id"]).code == 1


def test_a_task_is_given_to_somebody(stocked: Site) -> None:
    task = stocked.json("tasks", "list", "--kind", "pcp_follow_up")[0]
    assert stocked.json("tasks", "assign", task["id"], "nurse.kim")["assignee"] == "nurse.kim"
    assert [t["id"] for t in stocked.json("tasks", "list", "--assignee", "nurse.kim")] == [task["id"]]
    stocked.run("tasks", "done", task["id"])
    assert stocked.run("tasks", "assign", task["id"], "nurse.lee").code == 1


# --- held deliveries -------------------------------------------------------------------------------------------------


@pytest.fixture
def held(stocked: Site) -> int:
    """A delivery of which nobody knows whether it arrived."""
    return stocked.hold_first_delivery()


def test_held_deliveries_are_listed_masked(stocked: Site, held: int) -> None:
    done = stocked.run("held", "list", "--json")
    assert [(item["id"], item["state"]) for item in done.json] == [(held, "held")]
    assert seen(done.out) == []


@pytest.mark.parametrize(
    ("command", "state"), [(("release",), "pending"), (("confirm",), "delivered"), (("bury", "--reason", "x"), "dead")]
)
def test_a_person_decides_on_a_held_delivery_once(
    stocked: Site, held: int, command: tuple[str, ...], state: str
) -> None:
    assert stocked.json("held", command[0], str(held), *command[1:])["state"] == state
    assert stocked.json("audit", "list")[0]["action"] == command[0]
    assert stocked.json("held", "list") == []
    assert stocked.run("held", command[0], str(held), *command[1:]).code == 1


def test_a_buried_delivery_is_a_dead_letter_that_goes_back_into_the_outbox_on_replay(stocked: Site, held: int) -> None:
    stocked.run("held", "bury", str(held), "--reason", "x")
    letter = stocked.json("dead", "list", "--stage", "delivery")[0]
    assert letter["error"] == "buried"
    (result,) = stocked.json("dead", "replay", str(letter["id"]))
    assert (result["entry"], result["delivery"]) == (None, held)
    assert stocked.json("dead", "list", "--stage", "delivery")[0]["resolved_by"] == f"delivery:{held}"
    assert stocked.json("ledger")[0]["deliveries"]["dead"] == 0


# --- scores ----------------------------------------------------------------------------------------------------------


def test_a_stored_patient_is_scored_as_of_now(stocked: Site) -> None:
    shape = stocked.json("risk", "score", "lace", "--patient", KEY, *REVEAL)
    assert (shape["model"], shape["value"], shape["band"]) == ("lace", 12, "high")
    assert {"version", "min", "max", "factors", "missing", "observed_since", "scored_at"} <= shape.keys()


@pytest.mark.parametrize(
    ("model", "inputs", "value"),
    [
        ("seed", {"age": 65, "diagnoses": ["E11.9"], "admissions_12m": 0, "lives_alone": False,
                  "no_transportation": False, "active_medications": 0}, 40),
        ("lace", {"los_days": 5, "acute": True, "charlson": 5, "ed_visits_6m": 2}, 14),
        ("charlson", {"diagnoses": ["I50.9", "E11.9"]}, 2),
    ],
)  # fmt: skip
def test_inputs_from_a_file_are_scored(bare: Site, model: str, inputs: dict[str, object], value: int) -> None:
    file = bare.folder / "inputs.json"
    file.write_text(json.dumps(inputs))
    assert bare.json("risk", "score", model, "--inputs", str(file))["value"] == value


def test_absent_inputs_are_missing_and_never_count_as_nothing(bare: Site) -> None:
    file = bare.folder / "inputs.json"
    file.write_text('{"los_days": 5, "acute": null}')
    shape = bare.json("risk", "score", "lace", "--inputs", str(file))
    assert shape["value"] is None
    assert (shape["min"], shape["max"]) == (4, 16)
    assert shape["missing"] == ["acute", "charlson", "ed_visits_6m"]


@pytest.mark.parametrize("text", ["no json", "[]", '{"age": "sixty"}', '{"los_dais": 1}'])
def test_inputs_that_cannot_be_used_end_with_1(bare: Site, text: str) -> None:
    file = bare.folder / "inputs.json"
    file.write_text(text)
    assert bare.run("risk", "score", "seed", "--inputs", str(file)).code == 1


@pytest.mark.parametrize("options", [(), ("--patient", KEY, "--inputs", "config.yaml")])
def test_a_score_is_of_a_patient_or_of_inputs(
    stocked: Site, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stocked.folder)
    assert stocked.run("risk", "score", "lace", *options).code == 2


# --- the dry run -----------------------------------------------------------------------------------------------------


def test_try_shows_what_the_daemon_would_make_of_each_message_of_a_file(bare: Site) -> None:
    results = bare.json("try", "main-campus", str(bare.folder / "channels/examples/first-message.hl7"))
    assert [result["ack"] for result in results] == [{"code": "AA", "error": None, "text": None, "location": None}] * 2
    admitted, discharged = results
    assert (admitted["state"], admitted["encounter"]["status"], admitted["tasks"]) == ("processed", "active", [])
    assert discharged["encounter"]["status"] == "finished"
    assert discharged["header"]["control_id"] == "FIRST-0002"
    assert discharged["patient"]["name"]["family"] == "DOE"
    assert {task["kind"] for task in discharged["tasks"]} >= {"pcp_follow_up"}
    delivery = next(item for item in discharged["deliveries"] if item["operation"] == "upsert_encounter")
    assert {"destination", "idempotency_key", "payload", "state", "attempts", "next_attempt_at"} <= delivery.keys()
    assert bare.json("messages", "list") == []


def test_try_of_one_message_is_one_object(bare: Site) -> None:
    file = bare.folder / "one.hl7"
    file.write_bytes(first_messages(bare)[0])
    assert bare.json("try", "main-campus", str(file))["state"] == "processed"


def test_try_takes_an_mllp_capture_and_a_batch(bare: Site) -> None:
    first, second = first_messages(bare)
    (bare.folder / "capture").write_bytes(b"\x0b" + first + b"\x1c\r\x0b" + second + b"\x1c\r")
    (bare.folder / "batch").write_bytes(b"FHS|^~\\&\rBHS|^~\\&\r" + first + second + b"BTS|2\rFTS|1\r")
    for name in ("capture", "batch"):
        results = bare.json("try", "main-campus", str(bare.folder / name))
        assert [result["header"]["control_id"] for result in results] == ["FIRST-0001", "FIRST-0002"]


@pytest.mark.parametrize(
    ("limit", "error"), [("batch_messages_max: 1", "batch-too-long"), ("frame_bytes_max: 1024", "frame-too-long")]
)
def test_try_refuses_a_batch_as_a_whole_where_the_daemon_does(bare: Site, limit: str, error: str) -> None:
    first, second = first_messages(bare)
    (bare.folder / "batch").write_bytes(b"BHS|^~\\&\r" + first + second + b"BTS|2\r")
    channel = bare.folder / "channels/main-campus.yaml"
    channel.write_text(channel.read_text().replace("listen:\n", f"listen:\n  {limit}\n"))
    result = bare.json("try", "main-campus", str(bare.folder / "batch"), code=1)
    assert (result["state"], result["ack"]["code"], result["ack"]["error"]) == ("refused", "AR", error)
    assert (result["patient"], result["deliveries"]) == (None, [])


def test_try_says_what_deviates_in_the_batch_around_a_message(bare: Site) -> None:
    (bare.folder / "batch").write_bytes(b"BHS|^~\\&\r" + first_messages(bare)[0] + b"BTS|7\r")
    assert "batch-count-wrong" in bare.json("try", "main-campus", str(bare.folder / "batch"))["deviations"]


@pytest.mark.parametrize(
    ("payload", "state", "code"), [(REFUSED, "refused", "AR"), (UNREADABLE, "dead", "AA"), (b"hello", "refused", "AR")]
)
def test_try_ends_with_1_when_a_message_would_be_refused_or_die(
    bare: Site, payload: bytes, state: str, code: str
) -> None:
    file = bare.folder / "one.hl7"
    file.write_bytes(payload)
    result = bare.json("try", "main-campus", str(file), code=1)
    assert (result["state"], result["ack"]["code"]) == (state, code)
    assert result["reason"]


@pytest.mark.parametrize(
    ("conditions", "good", "bad"),
    [("NE|AL", "AA", "AE"), ("ER|AL", "AA", "AE"), ("NE|ER", None, "AE"), ("NE|SU", "AA", None), ("NE|NE", None, None)],
)
def test_try_shows_the_application_answer_where_it_is_the_only_one(
    bare: Site, conditions: str, good: str | None, bad: str | None
) -> None:
    message = first_messages(bare)[0].replace(b"|P|2.5.1||||||", f"|P|2.5.1|||{conditions}||".encode())
    file = bare.folder / "one.hl7"
    file.write_bytes(message)
    assert bare.json("try", "main-campus", str(file))["ack"]["code"] == good
    file.write_bytes(message.replace(b"558181838^^^MRN^MR", b""))
    ack = bare.json("try", "main-campus", str(file), code=1)["ack"]
    assert ack["code"] == bad
    assert (ack["error"] is not None) == (bad is not None)


def test_try_against_the_stored_charts_is_masked_and_writes_nothing(stocked: Site) -> None:
    file = stocked.folder / "one.hl7"
    cancel = first_messages(stocked)[1].replace(b"A03", b"A13").replace(b"FIRST-0002", b"FIRST-0003")
    file.write_bytes(cancel.replace(b"20261109143000", b"20261109150000", 2))
    result = stocked.json("try", "main-campus", str(file), "--charts")
    assert {task["state"] for task in result["tasks"]} == {"retracted"}
    assert seen(json.dumps(result)) == []
    shown = stocked.json("try", "main-campus", str(file), "--charts", *REVEAL)
    assert shown["patient"]["key"] == KEY
    assert {task["state"] for task in stocked.json("tasks", "list")} == {"open"}


def test_what_is_tried_comes_after_what_is_stored_though_it_has_the_same_time(stocked: Site) -> None:
    file = stocked.folder / "one.hl7"
    file.write_bytes(first_messages(stocked)[1].replace(b"A03", b"A13").replace(b"FIRST-0002", b"FIRST-0003"))
    result = stocked.json("try", "main-campus", str(file), "--charts")
    assert {task["state"] for task in result["tasks"]} == {"retracted"}
    assert "stale-event" not in result["deviations"]


def test_try_works_before_there_are_keys_or_a_store(bare: Site) -> None:
    for file in bare.folder.glob("var/*"):
        file.unlink()
    assert bare.run("try", "main-campus", str(bare.folder / "channels/examples/first-message.hl7")).code == 0


# --- check, keys, db -------------------------------------------------------------------------------------------------


def test_check_names_file_line_column_and_key_of_every_problem(bare: Site) -> None:
    assert bare.json("check") == {"ok": True, "problems": []}
    channel = bare.folder / "channels/main-campus.yaml"
    channel.write_text(
        channel.read_text().replace("mapping: adt ", "mapping: nothing ").replace("mode: live", "moode: x")
    )
    document = bare.json("check", code=1)
    assert document["ok"] is False
    assert {"file", "line", "column", "key", "message", "level"} == document["problems"][0].keys()
    assert any(problem["key"] == "moode" and problem["line"] == 4 for problem in document["problems"])
    assert bare.run("ledger").code == 0  # what is stored can be read meanwhile


def test_check_needs_neither_store_nor_keys(bare: Site) -> None:
    for file in bare.folder.glob("var/*"):
        file.unlink()
    assert bare.run("check").code == 0


def test_keys_are_described_but_never_shown(bare: Site) -> None:
    content = json.loads((bare.folder / "var/keys.json").read_text())
    done = bare.run("keys", "status", "--json")
    assert [key["active"] for key in done.json["keys"]] == [True]
    assert content["lookup"] not in done.out
    assert content["keys"]["1"]["key"] not in done.out


@pytest.mark.parametrize("command", [("keys", "rotate"), ("keys", "create")])
def test_keys_that_the_configuration_gives_themselves_are_taken_for_no_path_and_not_shown(
    bare: Site, command: tuple[str, ...]
) -> None:
    """`{credential: NAME}` as under systemd: what the name stands for is the content of the key file."""
    config = bare.folder / "config.yaml"
    config.write_text(config.read_text().replace("keys: var/keys.json ", "keys: {file: var/keys.json} "))
    before = sorted(bare.folder.rglob("*"))
    content = json.loads((bare.folder / "var/keys.json").read_text())
    done = bare.run(*command)
    assert done.code == 78
    assert "not a file that could be written" in done.err
    for secret in (content["lookup"], content["keys"]["1"]["key"]):
        assert secret not in done.out + done.err
    assert sorted(bare.folder.rglob("*")) == before
    status = bare.json("keys", "status")
    assert (status["file"], len(status["keys"])) == (None, 1)


def test_keys_status_names_the_key_file(bare: Site) -> None:
    assert bare.json("keys", "status")["file"] == str(bare.folder / "var/keys.json")


def test_after_a_rotation_the_old_entries_are_still_readable(stocked: Site) -> None:
    assert [key["active"] for key in stocked.json("keys", "rotate")["keys"]] == [False, True]
    assert stocked.json("messages", "show", "1", *REVEAL)["payload"].startswith("MSH")
    stocked.receive(first_messages(stocked)[0].replace(b"FIRST-0001", b"LATER"))
    assert stocked.json("messages", "show", "5", *REVEAL)["payload"].startswith("MSH")


def test_keys_create_never_overwrites(bare: Site) -> None:
    before = (bare.folder / "var/keys.json").read_bytes()
    assert bare.run("keys", "create").code == 1
    assert (bare.folder / "var/keys.json").read_bytes() == before


def test_db_migrate_twice_changes_nothing_more(bare: Site) -> None:
    assert bare.json("db", "migrate")["changed"] is False
    assert bare.json("db", "status")["ready"] is True
