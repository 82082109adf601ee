"""The table of what each meaning says of a stay: every row does what it says, at every status."""

from __future__ import annotations

from typing import Any

import pytest
from ward import Ward

from engine.care.adt.event import REARRANGING, RENUMBERING, Meaning
from engine.care.adt.says import ARRIVAL, CANCELS, CLASS_CHANGE, OWN, SAYS, STATUS, heard
from engine.domain.encounter import Encounter, EncounterStatus

S, M = EncounterStatus, Meaning

WAYS: dict[EncounterStatus, tuple[Meaning, ...]] = {
    S.PLANNED: (M.PRE_ADMIT,),
    S.ACTIVE: (M.ADMIT,),
    S.ON_LEAVE: (M.ADMIT, M.LEAVE),
    S.FINISHED: (M.ADMIT, M.DISCHARGE),
    S.CANCELLED: (M.PRE_ADMIT, M.CANCEL_PRE_ADMIT),
}
"""How a stay comes to each status."""

WHO_IS_WHO = {*REARRANGING, *RENUMBERING, M.MERGE, M.MERGE_WITH_ACCOUNT, M.SWAP, M.LINK, M.UNLINK, M.DELETE_PERSON}
NOT_OF_A_STAY = {M.PERSON, M.HOLD, M.RECORD, *WHO_IS_WHO}


def stay_of(ward: Ward, status: EncounterStatus) -> float:
    """A stay of that status; the time after it."""
    for number, meaning in enumerate(WAYS[status], 1):
        ward.apply(meaning, number)
    assert ward.encounter().status is status
    return len(WAYS[status]) + 1.0


@pytest.mark.parametrize("meaning", SAYS)
@pytest.mark.parametrize("status", S)
def test_a_newer_event_does_what_its_row_says_or_asks_a_person(
    ward: Ward, meaning: Meaning, status: EncounterStatus
) -> None:
    at = stay_of(ward, status)
    applied = ward.apply(meaning, at)
    says, after = SAYS[meaning], ward.encounter().status
    asked = [hold.code for hold in applied.holds]
    if says.in_bed and status is S.FINISHED:
        assert (after, asked) == (S.ACTIVE, [])
    elif says.status is None or (meaning in CLASS_CHANGE and status is not S.PLANNED):
        assert (after, asked) == (status, [])
    elif says.among is not None:
        assert (after, asked) == ((says.status, []) if status in says.among else (status, ["status-event-stale"]))
    else:
        assert asked or after in {says.status, status}
        assert after is says.status or asked or status in {S.FINISHED, S.ON_LEAVE} or meaning is M.PRE_ADMIT


@pytest.mark.parametrize("meaning", SAYS)
@pytest.mark.parametrize("status", S)
def test_what_is_said_twice_changes_nothing_more(ward: Ward, meaning: Meaning, status: EncounterStatus) -> None:
    at = stay_of(ward, status)
    ward.apply(meaning, at)
    first = ward.encounter()
    ward.apply(meaning, at)
    assert ward.encounter() == first


@pytest.mark.parametrize("cancel", [meaning for meaning in CANCELS if STATUS[meaning] is None])
def test_a_reversal_without_a_status_takes_back_what_the_event_has_set_in_either_order(
    ward: Ward, cancel: Meaning
) -> None:
    (undone,) = CANCELS[cancel]
    said: dict[str, Any] = dict.fromkeys(SAYS[undone].takes, None)
    ward.apply(M.ADMIT, 1)
    before = ward.encounter()
    for meaning, at in ((undone, 2), (cancel, 3)):
        ward.apply(meaning, at, encounter={"class_": "I", **said})
    assert ward.encounter() == before if undone is not M.ARRIVE else ward.encounter().in_transit
    in_order = ward.encounter()
    ward.charts.by_id.clear()
    ward.charts.aliases.clear()
    ward.charts.visits.clear()
    for meaning, at in ((M.ADMIT, 1), (cancel, 3), (undone, 2)):
        ward.apply(meaning, at, encounter={"class_": "I", **said})
    assert ward.encounter() == in_order


@pytest.mark.parametrize("meaning", Meaning)
def test_every_meaning_speaks_of_a_stay_or_of_none(meaning: Meaning) -> None:
    assert (meaning in SAYS) is (meaning not in NOT_OF_A_STAY)


@pytest.mark.parametrize("meaning", SAYS)
def test_every_row_names_fields_of_a_stay(meaning: Meaning) -> None:
    says = SAYS[meaning]
    assert {*says.sets, *says.takes, *says.leaves, *OWN} <= set(Encounter.__struct_fields__)
    assert says.takes <= OWN
    assert says.undoes <= SAYS.keys()
    assert meaning not in says.undoes


def test_every_cancel_says_what_it_cancels_and_everything_that_begins_can_be_cancelled() -> None:
    assert {meaning for meaning in SAYS if meaning.startswith("cancel_")} | {M.DELETE_VISIT} == set(CANCELS)
    undone = frozenset().union(*CANCELS.values())
    assert set(SAYS) - undone - CANCELS.keys() == {M.UPDATE, *CLASS_CHANGE}  # a class change is undone by the other one
    assert undone >= ARRIVAL


@pytest.mark.parametrize("meaning", SAYS)
def test_a_field_that_only_some_events_may_set_is_heard_in_those_alone(meaning: Meaning) -> None:
    said = dict.fromkeys((*OWN, "class_", "location", "discharged_at"), "x")
    assert set(heard(meaning, said)) == said.keys() - (OWN - SAYS[meaning].takes) - SAYS[meaning].leaves
