"""Why a message brought a plan, a score or a delivery, or none: a table of situations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from heart import ROOT, Heart, adt, merge

from engine.care.protocol import load_protocol
from engine.domain.message import EntryState
from engine.domain.outcome import Outcome
from engine.domain.why import MEANINGS, Reason, say
from engine.errors import Fault
from engine.pipeline.channel import Planner
from engine.pipeline.why import why_shapes
from engine.store.record import OutcomeDocument
from engine.trial.dryrun import Clear, Trial
from engine.yamlfile import parse

PROTOCOL = ROOT / "mappings/protocols/post-discharge.yaml"

CHF = ("DG1|1||I50.9^Heart failure^I10|||F",)
STAY = {4: "E", 44: "20260301113000"}
HOME = {**STAY, 36: "01", 45: "20260306114500"}
ADMIT = adt("A01", at="20260301120000", pv1=STAY, segments=CHF)
DISCHARGE = adt("A03", pv1=HOME, segments=CHF)
AGAIN = {4: "E", 19: "V2^^^MRN", 44: "20260308113000"}


def leaving(**changes: Any) -> bytes:
    """A discharge with other fields of PV1 (`pv2` is the class)."""
    return adt("A03", pv1=HOME | {int(name[2:]): value for name, value in changes.items()}, segments=CHF)


def explained(heart: Heart, payload: bytes, **entry: Any) -> tuple[Outcome, list[dict[str, Any]]]:
    one = msgspec.structs.replace(heart.entry(payload), **entry)
    outcome = heart.work(one)
    sent = [(item.destination, item.operation) for item in outcome.deliveries]
    replay = one.replay_of is not None
    return outcome, why_shapes(outcome.state, outcome, sent, heart.channel.settings, replay=replay)


def words(why: Sequence[dict[str, Any]], what: str) -> list[str]:
    """`done planned`, `withheld class`, in order."""
    return [f"{one['decided']} {one['reason'].partition(':')[0]}" for one in why if one["what"] == what]


def told(why: Sequence[dict[str, Any]], what: str) -> str:
    return "\n".join(one["reason"] for one in why if one["what"] == what)


PLANS: dict[str, tuple[list[bytes], bytes, str, str]] = {
    "admitted": ([], ADMIT, "withheld not_discharged", "the stay has no discharge"),
    "discharged home": ([ADMIT], DISCHARGE, "done planned", "new tasks: "),
    "discharge unheard of before": ([], DISCHARGE, "done planned", "by post-discharge"),
    "discharge repeated": ([ADMIT, DISCHARGE], DISCHARGE, "withheld no_change", "post-discharge"),
    "nothing new after it": (
        [ADMIT, DISCHARGE], adt("A08", at="20260306130000", pv1=HOME, segments=CHF), "withheld no_change", "",
    ),
    "emergency": ([], leaving(pv2="E"), "withheld class", "class E is not in classes of post-discharge"),
    "outpatient": ([], adt("A04", pv1={2: "O"}), "withheld not_discharged", ""),
    "outpatient who left": ([], leaving(pv2="O"), "withheld class", "class O"),
    "class that no table knows": ([], leaving(pv2="STAT"), "done class", "a class that no table knows: a person"),
    "no class": ([], leaving(pv2=""), "done class", "a stay without a class: a person is asked"),
    "transfer": ([ADMIT], leaving(pv36="02"), "withheld disposition", "disposition 02 (transfer) calls for no task"),
    "still here": ([ADMIT], leaving(pv36="30"), "withheld hold", "disposition-is-no-discharge"),
    "facility": ([ADMIT], leaving(pv36="03"), "done planned", "new tasks: "),
    "hospice": ([ADMIT], leaving(pv36="50"), "done planned", "new tasks: "),
    "no disposition": ([ADMIT], leaving(pv36=""), "done disposition", "no disposition was sent: a person is asked"),
    "disposition of no table": ([ADMIT], leaving(pv36="ZZ9"), "done disposition", "the disposition sent is not in"),
    "died in hospital": ([ADMIT], leaving(pv36="20"), "withheld deceased", "the patient has died"),
    "dead": ([adt("A01", pv1=STAY, pid={30: "Y"})], DISCHARGE, "withheld deceased", ""),
    "cancelled discharge": (
        [ADMIT, DISCHARGE], adt("A13", at="20260306130000", pv1=STAY), "withheld reversed", "",
    ),
    "cancelled admission": ([ADMIT], adt("A11", at="20260302120000", pv1=STAY), "withheld reversed", ""),
    "stay of more days, and so a higher band": (
        [DISCHARGE], adt("A08", at="20260306130000", pv1=HOME | {44: "20260220113000"}),
        "done planned, withheld too_late", "discharged more than 12 hours ago: nobody is called at once",
    ),
    "person without a stay": ([ADMIT], adt("A31", at="20260302120000", pid={8: "M"}), "withheld no_visit", ""),
    "merge": ([ADMIT], merge("558181838", "7"), "withheld no_visit", "speaks of no stay"),
}  # fmt: skip


@pytest.mark.parametrize("situation", PLANS)
def test_a_message_says_why_there_is_a_plan_or_none(situation: str) -> None:
    before, payload, word, text = PLANS[situation]
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, tzinfo=UTC)
    for one in before:
        heart.send(one)
    outcome, why = explained(heart, payload)
    assert outcome.state is EntryState.PROCESSED
    assert words(why, "plan") == word.split(", ")
    assert text in told(why, "plan")
    # What is said is what was done: new tasks are there exactly when it says done, or none were said to be needed.
    created = any(effect.kind == "task-created" for effect in outcome.effects)
    assert created <= ("done" in word)


SCORES: dict[str, tuple[list[bytes], bytes, str, str]] = {
    "emergency": ([], adt("A04", pv1={2: "E"}), "withheld class", "class E is not scored"),
    "class that no table knows": ([], leaving(pv2="STAT"), "withheld class", "a class that no table knows is not"),
    "no class": ([], leaving(pv2=""), "withheld class", "a stay without a class is not scored"),
    "no inpatient any more": ([ADMIT], adt("A08", at="20260302120000", pv1=STAY | {2: "O"}), "withheld class", ""),
    "cancelled stay": ([ADMIT], adt("A11", at="20260302120000", pv1=STAY), "withheld reversed", ""),
    "expected only": ([], adt("A05", pv1=STAY), "withheld not_arrived", "the stay has not begun"),
    "repeated": ([ADMIT], ADMIT, "withheld no_change", "it is as before"),
    "another bed": ([ADMIT], adt("A02", at="20260301130000", pv1=STAY | {3: "4C^1"}, segments=CHF),
                    "withheld no_change", ""),
    "merge": ([ADMIT], merge("558181838", "7"), "withheld no_visit", ""),
}  # fmt: skip


@pytest.mark.parametrize("situation", SCORES)
def test_a_message_says_why_there_is_a_score_or_none_for_each_model(situation: str) -> None:
    before, payload, word, text = SCORES[situation]
    heart = Heart()
    for one in before:
        heart.send(one)
    outcome, why = explained(heart, payload)
    assert [one["name"] for one in why if one["what"] == "score"] == ["lace", "seed"]
    assert set(words(why, "score")) == {word}
    assert text in told(why, "score")
    assert any(effect.kind == "scored" for effect in outcome.effects) == word.startswith("done")


def test_a_new_score_says_its_band_and_with_inputs_missing_the_interval_and_which() -> None:
    heart = Heart()
    _, why = explained(heart, ADMIT)
    lace, seed = heart.chart().scores
    assert not lace.missing
    assert seed.missing
    assert [one["reason"] for one in why if one["what"] == "score"] == [
        f"scored: band {lace.band}",
        f"missing_inputs: {seed.min} to {seed.max} points, not known: {', '.join(seed.missing)}",
    ]


def test_a_readmission_says_that_the_plan_of_the_stay_before_waits() -> None:
    heart = Heart()
    heart.send(ADMIT)
    heart.send(DISCHARGE)
    _, why = explained(heart, adt("A01", at="20260308120000", pv1=AGAIN))
    assert words(why, "plan") == ["withheld not_discharged", "withheld superseded"]
    # The old stay is heard of late: its plan waits from the start.
    other = Heart()
    other.send(adt("A01", at="20260308120000", pv1=AGAIN))
    _, why = explained(other, DISCHARGE)
    assert words(why, "plan") == ["withheld superseded"]


def test_an_old_discharge_says_how_old_it_may_be_also_when_it_is_repeated() -> None:
    heart = Heart()
    text = PROTOCOL.read_text().replace("# discharge_age_days_max: 30", "discharge_age_days_max: 30")
    planner = Planner(load_protocol(parse(text, PROTOCOL.name)), "lace")
    heart.channel = dataclasses.replace(heart.channel, planner=planner)
    heart.now += timedelta(days=32)
    _, why = explained(heart, DISCHARGE)
    assert (words(why, "plan"), "more than 30 days ago" in told(why, "plan")) == (["withheld too_late"], True)
    trial = Trial(heart.channel, heart.now)
    trial.charts = heart.charts
    trial.prepare([DISCHARGE])
    assert words(trial.run(Clear())[0]["why"], "plan") == ["withheld too_late"]


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (leaving(pv2="E"), "withheld class"),
        (leaving(pv36="02"), "withheld disposition"),
        (DISCHARGE, "withheld no_change"),
    ],
)
def test_a_message_tried_that_changes_nothing_says_what_holds_for_the_stay(payload: bytes, word: str) -> None:
    heart = Heart()
    heart.send(payload)
    trial = Trial(heart.channel, heart.now)
    trial.charts = heart.charts
    trial.prepare([payload])
    assert words(trial.run(Clear())[0]["why"], "plan") == [word]


def test_a_channel_without_protocol_models_and_destinations_says_so() -> None:
    heart = Heart(risk=[], protocol=None, deliver=[])
    heart.channel = dataclasses.replace(heart.channel, models=(), planner=None)
    _, why = explained(heart, DISCHARGE)
    assert [(one["what"], one["name"], one["decided"], one["reason"].partition(":")[0]) for one in why] == [
        ("plan", None, "withheld", "no_protocol"),
        ("score", None, "withheld", "no_model"),
        ("delivery", None, "withheld", "no_destination"),
    ]


# --- deliveries -------------------------------------------------------------------------------------------------------

SCORES_ONLY = [{"to": "scores", "what": ["score"]}]
ALL = [{"to": "all", "what": ["patient", "encounter", "score", "task"]}]


@pytest.mark.parametrize(
    ("changes", "before", "payload", "words_", "text"),
    [
        ({"deliver": ALL}, [], DISCHARGE, ["done queued"], "patient, encounter, score, task"),
        ({"deliver": ALL}, [], ADMIT, ["done queued", "withheld no_change"], "has changed: task"),
        ({"deliver": ALL}, [ADMIT], ADMIT, ["withheld no_change"], "patient, encounter, score, task"),
        ({"deliver": SCORES_ONLY}, [], ADMIT, ["done queued"], "queued: score"),
        ({"deliver": SCORES_ONLY}, [], adt("A04", pv1={2: "O"}), ["withheld not_in_deliver"], "patient, encounter"),
        ({"deliver": SCORES_ONLY}, [ADMIT], ADMIT, ["withheld no_change"], "score"),
        ({"deliver": ALL, "mode": "shadow"}, [], DISCHARGE, ["withheld shadow"], "patient, encounter, score, task"),
        ({"deliver": ALL, "mode": "paused"}, [], DISCHARGE, ["withheld paused"], "would go: patient"),
        ({"deliver": [{"to": "peer", "what": ["message"]}]}, [ADMIT], ADMIT, ["done queued"], "message"),
        ({"deliver": [{"to": "peer", "what": ["message"]}], "mode": "shadow"}, [ADMIT], ADMIT, ["withheld shadow"], ""),
    ],
)  # fmt: skip
def test_a_message_says_what_goes_to_each_destination_and_why_not_more(
    changes: dict[str, Any], before: list[bytes], payload: bytes, words_: list[str], text: str
) -> None:
    heart = Heart(**changes)
    for one in before:
        heart.send(one)
    outcome, why = explained(heart, payload)
    assert words(why, "delivery") == words_
    assert text in told(why, "delivery")
    assert bool(outcome.deliveries) == ("done queued" in words_)


def test_two_destinations_are_told_apart() -> None:
    heart = Heart(deliver=ALL + SCORES_ONLY)
    _, why = explained(heart, adt("A04", pv1={2: "O"}))
    assert [(one["name"], one["decided"]) for one in why if one["what"] == "delivery"] == [
        ("all", "done"), ("all", "withheld"), ("scores", "withheld"),
    ]  # fmt: skip


def test_a_delivery_that_the_replayed_message_has_queued_is_a_duplicate() -> None:
    heart = Heart(deliver=[{"to": "peer", "what": ["message"]}])
    heart.send(ADMIT)
    outcome = heart.work(msgspec.structs.replace(heart.entry(ADMIT), replay_of=1, replay_root=1))
    why = why_shapes(outcome.state, outcome, [], heart.channel.settings, replay=True)
    assert words(why, "delivery") == ["withheld duplicate"]


def test_a_destination_that_was_added_later_was_not_told() -> None:
    heart = Heart(deliver=ALL)
    outcome = heart.send(ADMIT)
    sent = [(item.destination, item.operation) for item in outcome.deliveries]
    later = Heart(deliver=ALL + SCORES_ONLY).channel.settings
    why = why_shapes(outcome.state, outcome, sent, later, replay=False)
    assert [one["reason"] for one in why if one["name"] == "scores"] == [
        "not_in_deliver: the channel did not deliver it there then: score"
    ]


# --- messages that changed nothing ------------------------------------------------------------------------------------


def _stale(heart: Heart) -> bytes:
    heart.send(ADMIT)
    heart.send(DISCHARGE)
    heart.send(adt("A13", at="20260306170000", pv1=STAY))
    return adt("A03", at="20260306110000", pv1=HOME, segments=CHF)


def _other_person(heart: Heart) -> bytes:
    heart.send(ADMIT)
    return adt("A03", pv1=HOME, pid={5: "Quill^Ada", 7: "19990101"})


def _identity(_heart: Heart) -> bytes:
    return adt("A24")


@pytest.mark.parametrize(
    ("prepared", "word"), [(_stale, "stale"), (_other_person, "hold"), (_identity, "hold")]
)  # fmt: skip
def test_a_held_message_says_that_it_waits_for_a_person(prepared: Callable[[Heart], bytes], word: str) -> None:
    heart = Heart()
    outcome, why = explained(heart, prepared(heart))
    assert outcome.holds
    assert words(why, "plan") == [f"withheld {word}"]
    assert outcome.holds[0].code in told(why, "plan")


@pytest.mark.parametrize(
    ("changes", "payload", "word"),
    [
        ({"filter": "PV1-2 == 'O'"}, ADMIT, "filtered"),
        ({}, adt("A03", pv1=HOME, pid3=""), "dead"),
        ({}, adt("A20"), "without_effect"),
    ],
)
def test_a_message_that_touched_no_chart_says_so_of_everything(
    changes: dict[str, Any], payload: bytes, word: str
) -> None:
    heart = Heart(**changes)
    _, why = explained(heart, payload)
    assert {f"{one['decided']} {one['reason'].partition(':')[0]}" for one in why} == {f"withheld {word}"}
    assert [one["name"] for one in why if one["what"] != "delivery"] == ["post-discharge", "lace", "seed"]


def test_a_refused_message_says_so() -> None:
    heart = Heart()
    _, why = explained(heart, b"nothing", refusal=Fault(error="framing", text="no MSH", hl7_code=100))
    assert {one["reason"].partition(":")[0] for one in why} == {"refused"}


@pytest.mark.parametrize(("mode", "word"), [("live", "waiting"), ("paused", "paused")])
def test_a_message_that_is_not_processed_yet_says_what_it_waits_for(mode: str, word: str) -> None:
    why = why_shapes(EntryState.RECEIVED, None, [], Heart(mode=mode).channel.settings, replay=False)
    assert {one["reason"].partition(":")[0] for one in why} == {word}


def test_a_message_of_a_channel_that_is_gone_says_what_is_known() -> None:
    heart = Heart()
    outcome = heart.send(DISCHARGE)
    sent = [(item.destination, item.operation) for item in outcome.deliveries]
    why = why_shapes(outcome.state, outcome, sent, None, replay=False)
    assert words(why, "plan") == ["done planned"]
    assert {one["name"] for one in why if one["what"] == "delivery"} == {
        item.destination for item in outcome.deliveries
    }
    assert [one["name"] for one in why_shapes(EntryState.DEAD, None, [], None, replay=False)] == [None, None, None]


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_reason_has_a_meaning_whose_word_is_one_word() -> None:
    assert set(MEANINGS) == set(Reason)
    assert all(one.word.replace("_", "").isalnum() and one.word.islower() for one in MEANINGS.values())


def test_what_is_stored_of_the_reasons_is_small_and_a_sentence_holds_nothing_that_was_sent() -> None:
    for payload in (ADMIT, leaving(pv2="SECRETCLASS"), leaving(pv36="SECRET")):
        outcome = Heart().send(payload)
        stored = msgspec.json.encode(OutcomeDocument(why=outcome.why, changed=outcome.changed))
        assert len(stored) - len(msgspec.json.encode(OutcomeDocument())) < 500
        assert not any("SECRET" in say(one, "x").reason for one in outcome.why)


def test_a_merge_of_several_patients_says_why_of_each() -> None:
    heart = Heart()
    heart.send(adt("A01", at="20260301120000", pid3="1^^^MRN^MR", pv1=STAY))
    heart.send(adt("A03", pid3="1^^^MRN^MR", pv1=HOME | {36: "20"}))
    heart.send(adt("A31", at="20260307120000", pid3="1^^^MRN^MR", pid={30: "N"}))
    groups = ("MRG|3^^^MRN^MR", "PID|2||2^^^MRN^MR||Roe^Rich||19500101", "MRG|4^^^MRN^MR")
    outcome, why = explained(heart, adt("A40", at="20260309120000", pid3="1^^^MRN^MR", segments=groups))
    assert outcome.state is EntryState.PROCESSED
    assert words(why, "plan") == ["withheld hold", "withheld no_visit"]
