"""The pure decisions of intake: the acknowledgments of docs/hl7.md as a table, and no bytes that break it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.message import AckCode, AckState
from engine.errors import Fault
from engine.hl7v2.ack import acknowledge
from engine.pipeline import acceptance, faults
from engine.pipeline.acceptance import Rules, judge, verdict
from engine.settings import Accept, Ack, Channel, Listen


def rules(**ack: object) -> Rules:
    return Rules.of(
        Channel(name="adt", listen=Listen(port=0), timezone="UTC", mapping="adt", ack=Ack.model_validate(ack))
    )


def message(accept: str = "", application: str = "", **more: str) -> bytes:
    fields = {"type": "ADT^A01^ADT_A01", "id": "1", "processing": "P", "version": "2.5"} | more
    return (
        f"MSH|^~\\&|A|B|C|D|20260101||{fields['type']}|{fields['id']}|{fields['processing']}|{fields['version']}"
        f"|{fields.get('sequence', '')}||{accept}|{application}\rPID|1||5\r"
    ).encode()


def test_a_type_that_is_not_accepted_is_refused_for_that_though_its_event_is_missing_too() -> None:
    refusal = judge(rules(), message(type="SIU")).refusal
    assert refusal is not None
    assert refusal.error == "type-not-accepted"


CONDITIONS = ("", "AL", "NE", "ER", "SU")


@pytest.mark.parametrize(("accept", "application"), list(itertools.product(CONDITIONS, CONDITIONS)))
def test_every_pair_of_conditions_answers_what_table_0155_says(accept: str, application: str) -> None:
    good = judge(rules(), message(accept, application))
    bad = judge(rules(), message(accept, application, version="9"))
    if not accept and not application:
        assert (good.code, bad.code) == (AckCode.AA, AckCode.AR)
        return
    assert good.code == (AckCode.CA if accept in {"AL", "SU"} else None)
    assert good.awaits_outcome is (application in {"AL", "ER", "SU"})
    if accept in {"AL", "ER"}:
        assert bad.code == AckCode.CR
    else:
        assert bad.code == (AckCode.AR if application in {"AL", "ER"} else None)
    assert bad.awaits_outcome is False


def test_a_message_without_a_processing_id_is_taken_and_one_with_another_is_not() -> None:
    silent = judge(rules(), message(processing=""))
    assert (silent.code, silent.refusal) == (AckCode.AA, None)
    assert silent.header is not None
    assert "processing-id-missing" in silent.header.deviations
    for other in ("T", "D", "X"):
        assert judge(rules(), message(processing=other)).refusal == faults.PROCESSING_ID


@given(st.binary(max_size=300), st.sampled_from(["auto", "original", "enhanced", "none"]), st.booleans())
def test_no_bytes_break_the_judgement_and_there_is_always_an_answer(payload: bytes, mode: str, oversize: bool) -> None:
    judgement = judge(rules(mode=mode), payload, oversize=oversize)
    if mode == "none":
        assert judgement.code is None
        return
    assert judgement.refusal is not None
    if judgement.code is not None:
        import datetime

        said = verdict(judgement.code, judgement.refusal)
        answer = acknowledge(judgement.header, said, now=datetime.datetime.now(datetime.UTC), control_id="1")
        assert answer.startswith(b"MSH")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="|^~\\&"), max_size=20))
def test_only_an_accepted_processing_id_is_accepted(processing_id: str) -> None:
    judgement = judge(rules(), message(processing=processing_id))
    assert (judgement.refusal is None) is (processing_id in {"P", ""})


@pytest.mark.parametrize(
    ("types", "given_type", "refusal"),
    [
        (("ADT^A01",), "ADT^A01", None),
        (("ADT^A01",), "adt^a01", None),
        (("ADT^A01",), "ADT^A02", faults.EVENT),
        (("ADT^A01",), "ORU^A01", faults.TYPE),
        (("ADT^*",), "ADT^A77", None),
        (("ADT",), "ADT^A77", None),
        (("*",), "ZZZ^Z99", None),
        (("*^A01",), "ZZZ^A01", None),
        (("*^A01",), "ZZZ^A02", faults.EVENT),
        (("ADT^A01^ADT_A01",), "ADT^A01", None),
        (("ORU^R01", "ADT^A08"), "ADT^A08", None),
    ],
)
def test_types_match_whole_or_by_wildcard(types: tuple[str, ...], given_type: str, refusal: object) -> None:
    channel = Channel(name="adt", listen=Listen(port=0), timezone="UTC", mapping="adt", accept=Accept(types=types))
    assert judge(Rules.of(channel), message(type=given_type)).refusal == refusal


def test_a_message_type_of_great_length_is_refused_and_not_remembered() -> None:
    acceptance._check_type.cache_clear()
    for number in range(3):
        judgement = judge(rules(), message(type=f"ADT^{'Z' * 100_000}{number}"))
        assert judgement.refusal is None  # the channel takes every event
        judgement = judge(rules(), message(type=f"{'Z' * 100_000}{number}^A01"))
        assert judgement.refusal == faults.TYPE
    assert acceptance._check_type.cache_info().currsize == 0


def test_an_acknowledgment_is_owed_nothing_whatever_it_asks_for() -> None:
    for accept, application in itertools.product(CONDITIONS, CONDITIONS):
        judgement = judge(rules(mode="enhanced"), message(accept, application, type="ACK^A01"))
        assert (judgement.code, judgement.awaits_outcome, judgement.ack_state) == (None, False, AckState.NOT_OWED)


def test_an_answer_after_processing_is_owed_before_its_code_is_known() -> None:
    judgement = judge(rules(when="processed"), message())
    assert (judgement.code, judgement.holds, judgement.ack_state) == (None, True, AckState.OWED)


def test_the_accept_ack_does_not_wait_for_processing() -> None:
    assert judge(rules(when="processed"), message("AL", "AL")).code == AckCode.CA


def test_a_channel_that_counts_needs_a_number_that_is_one() -> None:
    assert judge(rules(sequence_numbers=True), message(sequence="7")).sequence_number == 7
    for wrong in ("", "seven", "7.5"):
        assert judge(rules(sequence_numbers=True), message(sequence=wrong)).refusal == faults.SEQUENCE_NUMBER_MISSING
    assert judge(rules(), message(sequence="7")).sequence_number is None


def test_every_refusal_has_a_code_of_table_0357_and_no_place_for_a_value() -> None:
    from engine.hl7v2.ack import ERROR_TEXTS

    refusals = [value for value in vars(faults).values() if isinstance(value, Fault)]
    assert len(refusals) > 8
    for refusal in refusals:
        assert refusal.hl7_code in ERROR_TEXTS
        assert "{" not in refusal.text
