"""Names by their parts, and which repetition of a name, address, provider or phone counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from engine.hl7v2.message import Message
from engine.mapping.apply import Mapped, Mapping, Reading

Build = Callable[..., Message]
RECEIVED = datetime(2026, 3, 6, 18, 0, tzinfo=UTC)


def read(shipped: Mapping, message: Message) -> Mapped:
    return shipped.apply(message, Reading(ZoneInfo("America/New_York"), RECEIVED))


@pytest.mark.parametrize(
    ("xpn1", "family"),
    [
        ("&van der&Berg", "van der Berg"),
        ("&&Berg", "Berg"),
        ("&van der&Berg&de&Boer", "van der Berg"),
        ("&&&de&Boer", "de Boer"),
        ("&&&&Boer", "Boer"),
        ("van der Berg-de Boer&van der&Berg&de&Boer", "van der Berg-de Boer"),
        ("Berg&von", "Berg"),
        ("&van der", None),
        (r"&van &O\T\Neil", "van O&Neil"),
    ],
)
def test_a_family_name_without_fn_1_is_put_together_from_its_parts(
    shipped: Mapping, build: Build, xpn1: str, family: str | None
) -> None:
    segments = (f"PID|1||1^^^H^MR||{xpn1}^ADA", f"PV1|1|I|||||7^{xpn1}^JAN")
    mapped = shipped.apply(build(*segments))
    assert mapped.patient["name"].family == family
    assert mapped.encounter["attending"].family == family


@pytest.mark.parametrize(
    ("pid5", "family"),
    [
        ("Alias^A^^^^^A~Legal^A^^^^^L", "Legal"),
        ("Alias^A^^^^^A~Legal^A^^^^^l", "Legal"),
        ("Old^A^^^^^L^^^^^20100101^20200101~New^A^^^^^L^^^^^20200101", "New"),
        ("Old^A^^^^^L^^^20100101&20200101~New^A^^^^^L", "New"),
        ("Old^A^^^^^L^^^^^^2019~Display^A^^^^^D", "Display"),
        ("Soon^A^^^^^L^^^^^20270101~Now^A^^^^^L", "Now"),
        ("Last^A^^^^^L^^^^^^20260306~Next^A^^^^^L", "Last"),
        ("Old^A^^^^^L^^^^^^20200101", "Old"),
        ("Bad^A^^^^^BAD~Maiden^A^^^^^M", "Maiden"),
    ],
)
def test_the_legal_name_that_is_valid_comes_first(shipped: Mapping, build: Build, pid5: str, family: str) -> None:
    assert read(shipped, build(f"PID|1||1^^^H^MR||{pid5}")).patient["name"].family == family


@pytest.mark.parametrize(
    ("pid11", "city"),
    [
        ("1 A^^Bad^NY^1^USA^BA~2 B^^Good^NY^2^USA^M", "Good"),
        ("1 A^^Bad^NY^1^USA^BA", "Bad"),
        ("1 A^^Old^NY^1^USA^H^^^^^^20100101^20200101~2 B^^New^NY^2^USA^H", "New"),
        ("1 A^^Old^NY^1^USA^H^^^^^20100101&20200101~2 B^^New^NY^2^USA^C", "New"),
        ("1 A^^Soon^NY^1^USA^H^^^^^^20270101~2 B^^Now^NY^2^USA^H", "Now"),
        ("1 A^^Office^NY^1^USA^O~2 B^^Home^NY^2^USA^H", "Home"),
        ("1 A^^Old^NY^1^USA^H^^^^^^^20200101~2 B^^Bad^NY^2^USA^BA", "Bad"),
    ],
)
def test_the_address_that_is_valid_and_not_bad_comes_first(
    shipped: Mapping, build: Build, pid11: str, city: str
) -> None:
    assert read(shipped, build(f"PID|1||1^^^H^MR||A^B||||||{pid11}")).patient["address"].city == city


def test_an_attending_who_is_no_longer_one_comes_behind_who_is(shipped: Mapping, build: Build) -> None:
    former = "1^Former" + "^" * 17 + "20100101^20200101"
    mapped = read(shipped, build("PID|1||1^^^H^MR||A^B", f"PV1|1|I|||||{former}~2^Present"))
    assert mapped.encounter["attending"].family == "Present"


def test_a_phone_that_has_expired_comes_last(shipped: Mapping, build: Build) -> None:
    old = "2125550143^PRN^CP^^^^^^^^^^20100101^20200101"
    mapped = read(shipped, build(f"PID|1||1^^^H^MR||A^B||||||||{old}~2125550144^PRN^PH"))
    assert mapped.patient["phones"] == ("+12125550144", "+12125550143")


def test_without_a_day_of_receipt_nothing_is_too_old(shipped: Mapping, build: Build) -> None:
    mapped = shipped.apply(build("PID|1||1^^^H^MR||Old^A^^^^^L^^^^^^2019~New^A^^^^^L"))
    assert mapped.patient["name"].family == "Old"
