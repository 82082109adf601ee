"""Counts and their Prometheus form: right sums, and labels from fixed vocabularies only."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from engine.runtime import hints
from engine.runtime.metrics import ChannelCounts, Metrics, Spread, event_label


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
        processed={"adt": {"processed": 2}},
        deliveries={"crm": {"delivered": 3}},
        deviations={"adt": {"pid-2-used": 1}},
        pending={"adt": 7},
        outbox={"crm": {"held": 1}},
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
    metrics.hear(hints.Report(processed={"adt": {"processed": 2}}, pending={"adt": 7}, outbox={"crm": {"held": 1}}))
    for count in (3, 4):
        metrics.hear(hints.Report(processed={"adt": {"processed": count}}))
    found = samples(metrics)
    assert found["handoff_entries_processed_total{channel=adt,state=processed}"] == 9
    assert found["handoff_entries_pending{channel=adt}"] == 7
    assert found["handoff_outbox{destination=crm,state=held}"] == 1


def test_what_waits_is_not_told_while_nobody_looks() -> None:
    metrics = Metrics("1")
    metrics.hear(hints.Report(pending={"adt": 7}, outbox={"crm": {"held": 1}}))
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
