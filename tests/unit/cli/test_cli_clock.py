"""Times on the command line: one notation, the site's zone, and what they are shown in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from site_with_store import Site

from engine.cli.times import length, read_due, read_time

NEW_YORK = ZoneInfo("America/New_York")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 30, 3, 30, tzinfo=UTC)  # in New York it is still the 29th


@pytest.mark.parametrize(
    ("text", "zone", "meant"),
    [
        ("today", NEW_YORK, "2026-11-29T00:00-05:00"),
        ("today", BERLIN, "2026-11-30T00:00+01:00"),
        ("yesterday 14:00", NEW_YORK, "2026-11-28T14:00-05:00"),
        ("yesterday", UTC, "2026-11-29T00:00+00:00"),
        ("tomorrow 9:05", NEW_YORK, "2026-11-30T09:05-05:00"),
        ("14:00", NEW_YORK, "2026-11-29T14:00-05:00"),
        ("14:00:30", BERLIN, "2026-11-30T14:00:30+01:00"),
        ("2026-11-29T14:00", NEW_YORK, "2026-11-29T14:00-05:00"),
        ("2026-07-01 14:00", NEW_YORK, "2026-07-01T14:00-04:00"),
        ("2026-11-29", BERLIN, "2026-11-29T00:00+01:00"),
        ("2026-11-29T14:00+03:00", NEW_YORK, "2026-11-29T14:00+03:00"),
        ("2026-11-29T14:00Z", NEW_YORK, "2026-11-29T14:00+00:00"),
        ("2h", NEW_YORK, "2026-11-30T01:30+00:00"),
        ("-2h", NEW_YORK, "2026-11-30T01:30+00:00"),
        ("+2h", NEW_YORK, "2026-11-30T05:30+00:00"),
        ("now", NEW_YORK, "2026-11-30T03:30+00:00"),
        ("2026-11-01T01:30", NEW_YORK, "2026-11-01T01:30-04:00"),  # comes twice: the first
    ],
)
def test_a_time_is_read_in_the_sites_zone(text: str, zone: ZoneInfo, meant: str) -> None:
    assert read_time(text, NOW, zone) == datetime.fromisoformat(meant)


@pytest.mark.parametrize("text", ["", "noon", "25:00", "today 25:00", "2026-13-01", "7", "7y", "yesterday-2h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_time(text, NOW, NEW_YORK)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("overdue", None, "2026-11-30T03:30+00:00"),
        ("today", "2026-11-29T00:00-05:00", "2026-11-30T00:00-05:00"),
        ("tomorrow", "2026-11-30T00:00-05:00", "2026-12-01T00:00-05:00"),
        ("+2d", None, "2026-12-02T03:30+00:00"),
        ("2d", None, "2026-12-02T03:30+00:00"),
        ("-1d", None, "2026-11-29T03:30+00:00"),
    ],
)
def test_what_is_due_lies_ahead(text: str, since: str | None, until: str) -> None:
    found = read_due(text, NOW, NEW_YORK)
    assert found.since == (datetime.fromisoformat(since) if since else None)
    assert found.until == datetime.fromisoformat(until)


def test_a_day_is_a_day_also_when_the_clocks_change() -> None:
    found = read_due("today", datetime(2026, 11, 1, 12, tzinfo=UTC), NEW_YORK)
    assert found.since
    assert found.until
    assert found.until - found.since == timedelta(hours=25)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (12, "12 s"),
        (61, "1 min"),
        (3600, "1 h"),
        (11100, "3 h 5 min"),
        (90000, "1 d 1 h"),
        (10**6, "11 d"),
    ],
)
def test_a_span_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert length(seconds) == said


# --- shown -----------------------------------------------------------------------------------------------------------


def set_zone(site: Site, zone: str) -> None:
    text = site.config.read_text()
    site.config.write_text(re.sub(r"timezone: [A-Za-z_/]+", f"timezone: {zone}", text))


@pytest.mark.parametrize(("zone", "name"), [("Asia/Kolkata", "IST"), ("Asia/Dubai", "+04"), ("Etc/UTC", "UTC")])
def test_times_are_shown_in_the_sites_zone_which_the_header_names(stocked: Site, zone: str, name: str) -> None:
    set_zone(stocked, zone)
    received = datetime.fromisoformat(stocked.json("messages", "list", "--limit", "1")[0]["received_at"])
    shown = stocked.run("messages", "list").out
    assert f"RECEIVED ({name})" in shown
    assert received.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S") in shown
    assert f" {name}\n" in stocked.run("messages", "show", "1").out
    in_utc = stocked.run("messages", "list", "--utc").out
    assert "RECEIVED (UTC)" in in_utc
    assert received.strftime("%Y-%m-%d %H:%M:%S") in in_utc


def test_a_time_of_the_other_half_of_the_year_names_its_own_zone(stocked: Site) -> None:
    shown = stocked.run("patients", "show", "MRN:558181838").out
    now = datetime.now(NEW_YORK).tzname()
    assert f"DISCHARGED ({now})" in shown


def test_an_option_is_read_in_the_sites_zone(stocked: Site) -> None:
    set_zone(stocked, "Pacific/Kiritimati")  # 14 hours ahead of UTC
    local = datetime.now(ZoneInfo("Pacific/Kiritimati")).replace(tzinfo=None)
    after = (local + timedelta(minutes=5)).isoformat(timespec="minutes")
    before = (local - timedelta(minutes=5)).isoformat(timespec="minutes")
    assert stocked.json("messages", "list", "--since", after) == []
    assert len(stocked.json("messages", "list", "--since", before)) == 4
    assert stocked.json("messages", "list", "--since", before, "--utc") == [], "now it is a time to come"


@pytest.mark.parametrize("command", [("messages", "list"), ("replay",), ("audit", "list"), ("tasks", "list")])
def test_the_help_says_how_times_are_written_and_in_which_zone(bare: Site, command: tuple[str, ...]) -> None:
    text = " ".join(bare.run(*command, "--help").out.split())
    assert "in the site's zone (calendar.timezone of config.yaml)" in text
