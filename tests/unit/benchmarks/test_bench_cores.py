"""More cores in simulation: what can be worked out by hand comes out."""

from __future__ import annotations

import pytest

from benchmarks.cores import Costs, simulate

COSTS = Costs(generator=10.0, main=80.0, work=200.0, record=100.0, deliver=60.0, settle=20.0)
MESSAGES = 20_000


def rate(cores: int, workers: int, costs: Costs = COSTS) -> float:
    return simulate(costs, cores=cores, workers=workers, messages=MESSAGES).rate


def only(**costs: float) -> Costs:
    return Costs(**dict.fromkeys(("generator", "main", "work", "record", "deliver", "settle"), 0.001) | costs)


def test_one_core_does_what_all_the_work_leaves_time_for() -> None:
    found = simulate(COSTS, cores=1, workers=1, messages=MESSAGES)
    assert found.cores_share == pytest.approx(1.0)
    assert found.rate == pytest.approx(1e6 / 470, rel=0.02)


def test_one_worker_is_no_faster_with_more_cores_than_it_can_use() -> None:
    assert rate(3, 1) == pytest.approx(1e6 / 380, rel=0.03)
    assert rate(32, 1) == pytest.approx(rate(3, 1), rel=0.01)


def test_the_main_process_bounds_what_is_cheap_to_process() -> None:
    found = simulate(only(main=80.0), cores=32, workers=16, messages=MESSAGES)
    assert found.rate == pytest.approx(1e6 / 80, rel=0.02)
    assert found.main_share == pytest.approx(1.0, abs=0.02)


def test_the_charts_one_writer_bounds_what_many_workers_record() -> None:
    found = simulate(only(record=100.0), cores=32, workers=16, messages=MESSAGES)
    assert found.rate == pytest.approx(1e6 / 100, rel=0.03)
    assert found.charts_share == pytest.approx(1.0, abs=0.03)


def test_workers_share_what_needs_no_turn_as_evenly_as_their_partitions() -> None:
    assert rate(32, 4, only(work=400.0)) == pytest.approx(4e6 / 400, rel=0.1)


def test_cores_and_workers_never_slow_each_other_down() -> None:
    rates = [rate(cores, cores) for cores in (1, 2, 4, 8)]
    assert rates == sorted(rates)


def test_the_same_comes_out_each_time() -> None:
    assert simulate(COSTS, cores=4, workers=3, messages=999) == simulate(COSTS, cores=4, workers=3, messages=999)


def test_costs_are_what_the_threads_spent_shared_out_by_the_stages() -> None:
    spent = {"main_loop": 40.0, "main_writer": 40.0, "worker_loops": 20.0, "worker_threads": 380.0}
    run = {"to_the_end": {"cpu_us": spent, "generator_us": 9.0}}
    stages = {"frame": 1.0, "read": 10.0, "prepare": 60.0, "load": 10.0, "decide": 100.0, "record": 100.0,
              "courier": 80.0}  # fmt: skip
    found = Costs.measured(run, stages)
    assert (found.generator, found.main) == (9.0, 80.0)
    assert found.work + found.record + found.deliver + found.settle == pytest.approx(400.0)
    assert found.record == pytest.approx(100.0 * 400 / 360)
