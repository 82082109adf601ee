"""Whose zone the times of a message are in that have no offset of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from heart import Heart, adt

from engine.errors import SettingsError
from engine.settings import Channel
from engine.yamlfile import parse
from engine.yamlmodel import validate

CHANNEL = "name: main\nlisten: {host: 127.0.0.1, port: 0}\nmapping: adt\ntimezone: "


def admitted_at(
    timezone: Any, *, sent: str, at: str = "20260715113000", facility: str = "MAIN", application: str = "EPIC",
    place: str = "3B^301^1",
) -> tuple[str | None, bool]:  # fmt: skip
    """When the patient was admitted, and whether the offset of MSH-7 was noted."""
    heart = Heart(timezone=timezone)
    heart.now = datetime(2026, int(sent.replace("-", "")[4:6]), 15, 20, tzinfo=UTC)
    payload = adt("A01", at="20260715115500", pv1={3: place, 44: at}).decode()
    payload = payload.replace("|EPIC|MAIN|HANDOFF|H|20260715115500|", f"|{application}|{facility}|HANDOFF|H|{sent}|", 1)
    outcome = heart.send(payload.encode())
    (encounter,) = heart.chart().encounters
    return encounter.admitted_at.text, "offset-differs:MSH-7" in outcome.deviations


@pytest.mark.parametrize(
    ("timezone", "sent", "at", "iso", "noted"),
    [
        ("America/New_York", "20260715120000", "20260715113000", "-04:00", False),
        ("America/New_York", "20260715120000-0400", "20260715113000", "-04:00", False),
        ("America/New_York", "20260715120000-0700", "20260715113000", "-04:00", True),
        ("America/New_York", "20260115120000-0400", "20260115113000", "-05:00", True),
        ("America/New_York", "20260115120000-0500", "20251020113000", "-04:00", False),
        ("America/New_York", "2026-07-15T12:00:00Z", "20260715113000", "-04:00", True),
        ("America/New_York", "2026-07-15T12:00:00-04:00", "20260715113000", "-04:00", False),
        ("America/New_York", "20260715-0700", "20260715113000", "-04:00", False),
        ("America/New_York", "20260715120000-9900", "20260715113000", "-04:00", False),
        ("America/New_York", "20260715120000-0700", "20260715113000+0200", "+02:00", True),
        ({"default": "America/New_York", "from": "message"}, "20260715120000-0700", "20260715113000", "-07:00", False),
        ({"default": "America/New_York", "from": "message"}, "20260715120000Z", "20260715113000", "+00:00", False),
        ({"default": "America/New_York", "from": "message"}, "20260715120000", "20260715113000", "-04:00", False),
        ({"default": "America/New_York", "from": "message"}, "20260715120000+05:45", "20260715113000", "+05:45", False),
    ],
)
def test_the_zone_is_the_channel_s_or_that_of_the_message_where_it_is_asked_for(
    timezone: Any, sent: str, at: str, iso: str, noted: bool
) -> None:
    found, differs = admitted_at(timezone, sent=sent, at=at)
    assert found is not None
    assert found.endswith(iso)
    assert differs is noted


SENDERS = {
    "default": "America/New_York",
    "senders": {"DENVER": "America/Denver", "LAB": "UTC", "BERLIN": "Europe/Berlin"},
}


@pytest.mark.parametrize(
    ("sender", "iso"),
    [
        ({}, "-04:00"),
        ({"facility": "DENVER"}, "-06:00"),
        ({"facility": "DENVER^1.2.3^ISO"}, "-06:00"),
        ({"application": "LAB"}, "+00:00"),
        ({"place": "3B^301^1^BERLIN"}, "+02:00"),
        ({"place": "3B^301^1^BERLIN&1.2&ISO"}, "+02:00"),
        ({"facility": "DENVER", "application": "LAB", "place": "3B^301^1^BERLIN"}, "-06:00"),
        ({"facility": "denver"}, "-04:00"),
    ],
)
def test_a_sender_may_have_a_zone_of_its_own(sender: dict[str, str], iso: str) -> None:
    found, _ = admitted_at(SENDERS, sent="20260715120000", **sender)
    assert found == f"2026-07-15T11:30:00{iso}"


def test_the_offset_of_the_message_counts_before_the_zone_of_its_sender_where_both_are_asked_for() -> None:
    both = SENDERS | {"from": "message"}
    assert admitted_at(both, sent="20260715120000-0700", facility="DENVER")[0] == "2026-07-15T11:30:00-07:00"
    assert admitted_at(both, sent="20260715120000", facility="DENVER")[0] == "2026-07-15T11:30:00-06:00"


def test_a_sender_s_offset_is_compared_with_the_zone_of_the_sender() -> None:
    assert not admitted_at(SENDERS, sent="20260715120000-0600", facility="DENVER")[1]
    assert admitted_at(SENDERS, sent="20260715120000-0400", facility="DENVER")[1]


def test_an_ambiguous_local_time_is_settled_in_the_zone_of_its_sender() -> None:
    heart = Heart(timezone=SENDERS)
    heart.now = datetime(2026, 11, 1, 20, tzinfo=UTC)
    payload = adt("A08", at="202611010130", pv1={}).replace(b"|EPIC|MAIN|", b"|EPIC|DENVER|")
    assert "ambiguous-local-time:EVN-2" in heart.send(payload).deviations


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Mars/Olympus", "timezone"),
        ("{default: Mars/Olympus}", "timezone.default"),
        ("{default: UTC, senders: {LAB: Mars}}", "timezone.senders.LAB"),
        ("{default: UTC, from: sender}", "timezone.from"),
        ("{from: message}", "timezone.default"),
        ("{default: UTC, zone: UTC}", "timezone.zone"),
    ],
)
def test_a_wrong_zone_is_refused_where_it_stands(text: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        validate(parse(CHANNEL + text, "main.yaml"), Channel)
    assert [problem.key for problem in caught.value.problems] == [key]
