"""Counts and their Prometheus form: right sums, and labels from fixed vocabularies only."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from engine.domain.standing import ChannelWork, Overview, Standing
from engine.pipeline.trouble import Certificate, of_work
from engine.runtime import hints
from engine.runtime.metrics import ChannelCounts, Metrics, Spread, event_label
from engine.runtime.status import LastReload, Status
from engine.runtime.worker import Tally

GUIDES = Path(__file__).parents[3] / "docs/guides"
STATES = ("up", "down", "paused", "orphan")

NOW = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)
CRM = Standing(
    name="crm", type="salesforce", state="down", since=NOW, error="login-invalid-client", detail="x", pending=46,
    oldest_at=NOW - timedelta(minutes=18), next_attempt_at=None, held=1, dead=2,
    withheld={"no-consent": 5, "too-late": 1}, put_off=3,
)  # fmt: skip
ADT = ChannelWork(
    name="adt", waiting=7, oldest_waiting_at=NOW - timedelta(minutes=1), last_message_at=NOW - timedelta(seconds=12)
)
WORK = Overview(
    at=NOW, channels=(ADT,), destinations=(CRM,), dead=4, oldest_dead_at=NOW, holds={"death-stale": 3},
    quality={"adt": {"date-impossible": 1}}, due=7, due_since=NOW - timedelta(seconds=90),
    pages={"sent": 2}, gaps={"on-call/primary": NOW + timedelta(days=2)}, backup_at=NOW - timedelta(hours=3),
)  # fmt: skip


def samples(metrics: Metrics) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_trigger_event_that_the_standard_does_not_know_is_no_label() -> None:
    assert event_label("A08") == "A08"
    assert {event_label(event) for event in ("", "A99", "DOE^JANE", "a08")} == {"other"}


def test_a_deviation_that_is_no_code_is_no_label() -> None:
    counts = ChannelCounts()
    counts.deviate("end-without-cr")
    counts.deviate("DOE^JANE")
    assert dict(counts.deviations) == {"end-without-cr": 1, "other": 1}


def test_a_vocabulary_without_end_is_cut_off() -> None:
    counts = ChannelCounts()
    for number in range(1000):
        counts.deviate(f"code-{number}")
    assert len(counts.deviations) <= 101
    assert counts.deviations["other"] == 1000 - 100


def test_what_the_worker_reports_is_added_up_over_its_lives() -> None:
    metrics = Metrics("1.2.3")
    report = hints.Report(
        counts={
            "entries_processed": ((("adt", "processed"), 2),),
            "deliveries": ((("crm", "delivered"), 3),),
            "deviations": ((("adt", "pid-2-used"), 1),),
        },
        work=WORK,
    )
    metrics.hear(report)
    metrics.hear(report)
    found = samples(metrics)
    assert found["handoff_entries_processed_total{channel=adt,state=processed}"] == 4
    assert found["handoff_deliveries_total{destination=crm,state=delivered}"] == 6
    assert found["handoff_deviations_total{channel=adt,deviation=pid-2-used}"] == 2
    assert found["handoff_entries_pending{channel=adt}"] == 7
    assert found["handoff_outbox{destination=crm,state=held}"] == 1
    assert found["handoff_build_info{version=1.2.3}"] == 1


def test_what_several_workers_did_adds_up_and_what_waits_is_told_by_one_of_them() -> None:
    metrics = Metrics("1")
    metrics.hear(hints.Report(counts={"entries_processed": ((("adt", "processed"), 2),)}, work=WORK))
    for count in (3, 4):
        metrics.hear(hints.Report(counts={"entries_processed": ((("adt", "processed"), count),)}))
    found = samples(metrics)
    assert found["handoff_entries_processed_total{channel=adt,state=processed}"] == 9
    assert found["handoff_entries_pending{channel=adt}"] == 7
    assert found["handoff_outbox{destination=crm,state=held}"] == 1
    assert found["handoff_deliveries_withheld{code=no-consent,destination=crm}"] == 5
    assert found["handoff_deliveries_put_off{destination=crm}"] == 3


def test_what_waits_is_not_told_while_nobody_looks() -> None:
    metrics = Metrics("1")
    metrics.hear(hints.Report(work=WORK))
    metrics.queues_known = lambda: False
    assert not [name for name in samples(metrics) if name.startswith(("handoff_entries_pending", "handoff_outbox"))]


def test_each_destination_says_whether_this_node_delivers_there() -> None:
    metrics = Metrics("1")
    metrics.destinations = lambda: {"crm": True, "lab": False}
    found = samples(metrics)
    assert found["handoff_destination_owned{destination=crm}"] == 1
    assert found["handoff_destination_owned{destination=lab}"] == 0


def test_a_spread_counts_cumulatively_and_a_value_on_a_bound_belongs_to_it() -> None:
    spread = Spread((1, 2, 4))
    for value in (0.5, 1, 1.5, 4, 100):
        spread.add(value)
    assert spread.buckets() == [("1", 2), ("2", 3), ("4", 4), ("+Inf", 5)]
    assert spread.total == 107


def test_the_text_has_every_metric_with_its_help() -> None:
    metrics = Metrics("1")
    metrics.channel("adt").answers["AA"] += 1
    metrics.commit_seconds.add(0.001)
    text = metrics.text().decode()
    assert 'handoff_answers_sent_total{channel="adt",code="AA"} 1.0' in text
    assert "handoff_commit_seconds_count 1.0" in text
    for line in text.splitlines():
        if not line.startswith("#"):
            assert line.startswith("handoff_")


def test_what_waits_and_what_is_wrong_has_a_number() -> None:
    metrics = Metrics("1")
    metrics.hear(hints.Report(work=WORK))
    found = samples(metrics)
    assert found["handoff_entries_oldest_seconds{channel=adt}"] == 60
    assert found["handoff_last_message_timestamp_seconds{channel=adt}"] == NOW.timestamp() - 12
    assert found["handoff_delivery_oldest_seconds{destination=crm}"] == 18 * 60
    states = {state: found[f"handoff_destination_state{{destination=crm,state={state}}}"] for state in STATES}
    assert states == {"up": 0, "down": 1, "paused": 0, "orphan": 0}
    assert found["handoff_dead_letters_open"] == 4
    assert found["handoff_holds_open{code=death-stale}"] == 3


def test_how_the_daemon_stands_is_counted_too() -> None:
    metrics = Metrics("1")
    status = Status(
        node="main-1", state="running", pid=1, channels=(), console=None, ready=True, disk_free_bytes=1 << 30,
        certificates=(Certificate(use="channel west", expires_at=datetime.now(UTC) + timedelta(days=3, hours=1)),),
        last_reload=LastReload(number=1, ok=False), config_loaded_at=NOW,
    ).with_work(WORK).with_troubles(list(of_work(WORK, NOW)))  # fmt: skip
    metrics.status = lambda: status
    found = samples(metrics)
    assert found["handoff_ready"] == 1
    assert found["handoff_trouble{about=crm,code=destination-down}"] == 1
    assert found["handoff_trouble{about=,code=dead-letters}"] == 1
    assert found["handoff_last_reload_ok"] == 0
    assert found["handoff_configuration_loaded_timestamp_seconds"] == NOW.timestamp()
    assert found["handoff_certificate_days_left{use=channel west}"] == 3
    assert found["handoff_disk_free_bytes"] == 1 << 30


def test_every_metric_that_an_alert_or_the_guide_names_exists() -> None:
    metrics = Metrics("1")
    counts = metrics.channel("adt")
    for counter in (counts.received, counts.refused, counts.deviations, counts.connections_refused):
        counter["x"] += 1
    metrics.hear(hints.Report(work=WORK))
    metrics.status = lambda: Status(
        node="main-1", state="running", pid=1, channels=(), console=None, ready=True, disk_free_bytes=1, trouble=("x",),
        certificates=(Certificate(use="channel west", expires_at=NOW),),
    )  # fmt: skip
    known = {name.partition("{")[0] for name in samples(metrics)}
    for file in ("handoff-alerts.yaml", "monitoring.md"):
        named = set(re.findall(r"\bhandoff_[a-z_]+", (GUIDES / file).read_text()))
        assert len(named) > 12
        assert named <= known, sorted(named - known)


def test_every_alert_says_what_to_run() -> None:
    for rule in yaml.safe_load((GUIDES / "handoff-alerts.yaml").read_text())["groups"][0]["rules"]:
        assert rule["annotations"].keys() == {"summary", "run"}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_how_late_deadlines_rang_is_measured_and_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("engine.runtime.metrics.time.monotonic", lambda: now[0])
    metrics, tally = Metrics("0.1.0"), Tally()
    assert metrics.latest_seconds() is None
    tally.rang([0.2, 1.5, 4.0])
    metrics.hear(tally.take(None, failing=(), leased=hints.Leased()))
    tally.rang([0.1])
    metrics.hear(tally.take(WORK, failing=(), leased=hints.Leased()))
    metrics.hear(tally.take(None, failing=(), leased=hints.Leased()))
    assert metrics.latest_seconds() == 4.0
    found = samples(metrics)
    assert (found["handoff_deadline_late_seconds_count"], found["handoff_deadline_late_seconds_sum"]) == (4, 5.8)
    assert found["handoff_deadline_late_seconds_bucket{le=0.5}"] == 2
    assert found["handoff_deadline_late_seconds_bucket{le=5.0}"] == 4
    assert (found["handoff_deadlines_due"], found["handoff_deadline_oldest_seconds"]) == (7, 90)
    now[0] += 301
    assert metrics.latest_seconds() is None
