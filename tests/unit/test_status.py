"""What a driver says of itself to those who watch: rates and percentiles of a window, and no more than fits."""

import json

import pytest

from ovray.driver.meter import TIME_BOUNDS_S, Histogram, Moments, ReplicaMeter
from ovray.driver.reading import Reading, ReplicaReading
from ovray.driver.status import REPLICAS_NAMED, Status, StatusMaker, quantile


def a_meter(ended: int, seconds: float = 0.01, failed: int = 0) -> ReplicaMeter:
    meter = ReplicaMeter(succeeded=ended, failed=failed)
    meter.end_to_end_s.add(seconds, ended)
    return meter


def a_replica(id: str, meter: ReplicaMeter, rows_done: int = 0, state: str = "ready") -> ReplicaReading:
    return ReplicaReading(
        id=id,
        host=id.partition("/")[0],
        device="CPU.0",
        state=state,
        outstanding=1,
        rows_done=rows_done,
        rows_per_s=None,
        retries=0,
        evictions=0,
        meter=meter,
    )


def a_reading(now_s: float, *replicas: ReplicaReading) -> Reading:
    return Reading(
        now_s=now_s, replicas=replicas, elsewhere=ReplicaMeter(failed=2), accepted=0, rejected=1, waiting=7
    )


def test_rates_and_percentiles_are_those_of_the_window() -> None:
    maker = StatusMaker("digits", "requests", wall_clock=lambda: 1000.0)

    # 100 slow ones at first; 30 s later, within the window, 50 quick ones in 5 s.
    maker.make(a_reading(0.0, a_replica("a/CPU.0#0", a_meter(100, seconds=5.0))))
    quick = a_meter(100, seconds=5.0)
    maker.make(a_reading(30.0, a_replica("a/CPU.0#0", quick)))
    more = quick.copy()
    more.succeeded += 50
    more.end_to_end_s.add(0.01, 50)
    status = maker.make(a_reading(41.0, a_replica("a/CPU.0#0", more)))

    assert status.per_s == pytest.approx(50 / 11)
    assert status.p50_s == pytest.approx(0.01, rel=0.5)
    assert status.p99_s is not None
    assert status.p99_s < 0.02
    assert (status.done, status.failed, status.rejected, status.waiting) == (150, 2, 1, 7)


def test_a_job_counts_rows() -> None:
    maker = StatusMaker("digits", "chunks")

    maker.make(a_reading(0.0, a_replica("a/CPU.0#0", a_meter(1), rows_done=100)))
    status = maker.make(a_reading(2.0, a_replica("a/CPU.0#0", a_meter(2), rows_done=300)))

    assert status.per_s == pytest.approx(100.0)


def test_a_large_cluster_does_not_make_a_large_entry() -> None:
    replicas = [a_replica(f"node-{number}/CPU.0#0", a_meter(number)) for number in range(1000)]
    replicas.append(a_replica("bad/CPU.0#0", a_meter(1, failed=9), state="evicted"))

    status = StatusMaker("digits", "requests").make(a_reading(1.0, *replicas))

    assert len(status.replicas) == REPLICAS_NAMED
    assert status.replicas_left_out == 1001 - REPLICAS_NAMED
    assert "bad/CPU.0#0" in {replica.id for replica in status.replicas}
    assert status.states == {"ready": 1000, "evicted": 1}
    assert len(json.dumps(status.to_json())) < 64 << 10


def test_a_status_travels_as_json() -> None:
    status = StatusMaker("digits", "requests").make(a_reading(1.0, a_replica("a/CPU.0#0", a_meter(3))))

    assert Status.from_json(json.loads(json.dumps(status.to_json()))) == status


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(fraction: float) -> None:
    values = sorted(0.00001 * 1.01**number for number in range(1500))
    histogram = Histogram(TIME_BOUNDS_S)
    histogram.add_since(Moments([-value for value in values]), 0.0)

    exact = values[max(0, round(fraction * len(values)) - 1)]

    found = quantile(histogram.counts, fraction)
    assert found is not None
    assert exact / 1.81 < found < exact * 1.81


def test_nothing_has_no_quantile() -> None:
    assert quantile([0] * 34, 0.5) is None
