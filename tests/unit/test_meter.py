"""What a driver counts, and that it counts all of it."""

import random

import pytest

from ovray.core import commands, events
from ovray.core.ids import DispatchId, JobId, ReplicaId
from ovray.driver.calls import Ended
from ovray.driver.meter import TIME_BOUNDS_S, ChunkMeter, Figures, Histogram, Moments, RequestMeter, request_meter
from ovray.errors import ConfigError

A, B = ReplicaId("h/CPU.0#0"), ReplicaId("h/CPU.1#0")


def an_end(replica: ReplicaId | None = A, total_s: float = 0.01, error: Exception | None = None) -> Ended:
    return Ended(
        outputs=None if error else (),
        error=error,
        replica=replica,
        total_s=total_s,
        queued_s=total_s * 0.25,
        replica_queued_s=total_s * 0.25,
        infer_s=total_s * 0.375,
        batch_rows=4,
    )


def test_buckets_of_times_are_those_of_openvino_model_server() -> None:
    assert [round(bound * 1e6) for bound in TIME_BOUNDS_S[:6]] == [10, 18, 32, 58, 104, 188]
    assert len(TIME_BOUNDS_S) == 33


def test_a_value_at_a_bound_is_below_it() -> None:
    histogram = Histogram((1.0, 2.0))

    for value in (1.0, 1.5, 2.0, 2.5):
        histogram.add(value)

    assert histogram.counts == [1, 2, 1]


@pytest.mark.parametrize("spread", [1e-9, 1.0, 50.0])
def test_values_counted_together_are_those_counted_singly(spread: float) -> None:
    chance = random.Random(7)
    values = [0.001 + spread * chance.random() for _ in range(200)]
    singly, together = Histogram(TIME_BOUNDS_S), Histogram(TIME_BOUNDS_S)

    for value in values:
        singly.add(value)
    together.add_since(Moments([-value for value in values]), 0.0)

    assert together.counts == singly.counts
    assert together.sum == pytest.approx(singly.sum)


@pytest.mark.parametrize("requests", [1, 1023, 1024, 5000])
def test_requests_are_counted_in_their_buckets_however_many_there_are(requests: int) -> None:
    meter, wanted = RequestMeter(), Histogram(TIME_BOUNDS_S)
    chance = random.Random(requests)

    for _ in range(requests):
        total_s = 10 ** chance.uniform(-6, 4)
        meter.ended(an_end(total_s=total_s))
        wanted.add(total_s)

    counted = meter.copy()[A]
    assert counted.succeeded == requests
    assert counted.end_to_end_s.counts == wanted.counts
    assert counted.end_to_end_s.sum == pytest.approx(wanted.sum)
    assert sum(counted.transport_s.counts) == sum(counted.wait_s.counts) == requests
    assert counted.transport_s.sum == pytest.approx(wanted.sum / 8)
    assert counted.batch_rows.sum == 4 * requests


def test_failures_have_no_times_and_may_have_no_replica() -> None:
    meter = RequestMeter()

    meter.ended(an_end(replica=None, error=ValueError("late")))
    meter.ended(an_end(replica=B, error=ValueError("broken")))

    counted = meter.copy()
    assert (counted[None].failed, counted[B].failed, counted[B].succeeded) == (1, 1, 0)
    assert sum(counted[B].end_to_end_s.counts) == 0


def test_requests_of_a_bundle_each_have_their_own_wait() -> None:
    meter = RequestMeter()

    meter.ended_together(an_end(total_s=0.008), 100.0, [100.0, 99.999, 99.95])

    counted = meter.copy()[A]
    assert counted.succeeded == 3
    assert counted.end_to_end_s.sum == pytest.approx(0.008 * 3 + 0.051)
    assert counted.wait_s.sum == pytest.approx(0.004 * 3 + 0.051)
    assert counted.inference_s.sum == pytest.approx(0.009)
    assert counted.transport_s.sum == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [({}, Figures.ON), ({"OVRAY_METRICS": "on"}, Figures.ON), ({"OVRAY_METRICS": "off"}, Figures.OFF)],
)
def test_the_environment_says_whether_work_is_counted(environment: dict[str, str], wanted: Figures) -> None:
    assert Figures.parse(environment) is wanted


def test_any_other_word_is_refused_with_those_that_are_legal() -> None:
    with pytest.raises(ConfigError, match="OVRAY_METRICS is 'no'; set it to 'on' or 'off'"):
        Figures.parse({"OVRAY_METRICS": "no"})


def test_where_nobody_is_told_nothing_is_counted() -> None:
    counted = {}
    for figures in Figures:
        meter = request_meter(figures)
        meter.sent(A, 3)
        meter.ended(an_end())
        meter.ended_together(an_end(), 100.0, [100.0, 100.0])
        counted[figures] = {id: replica.succeeded for id, replica in meter.copy().items()}

    assert counted == {Figures.ON: {A: 3}, Figures.OFF: {}}


def a_sending(dispatch: int, replica: ReplicaId) -> commands.SendChunk:
    return commands.SendChunk(replica=replica, dispatch=DispatchId(dispatch), job=JobId(0), start=0, stop=8)


def a_commit(dispatch: int, replica: ReplicaId) -> commands.CommitChunk:
    return commands.CommitChunk(job=JobId(0), dispatch=DispatchId(dispatch), replica=replica, start=0, stop=8)


def test_a_chunk_that_is_lost_fails_and_its_copy_counts() -> None:
    meter = ChunkMeter()

    # 1. Sent to A, and as a copy to B.  2. A dies.  3. B answers after 2 s, of which it had the chunk for 1.5.
    meter.note(10.0, events.TimerFired(), [a_sending(1, A), a_sending(2, B)])
    meter.note(11.0, events.ReplicaLost(replica=A, reason="killed"), [])
    meter.note(12.0, events.Completed(replica=B, dispatch=DispatchId(2)), [a_commit(2, B)])
    meter.committed(B, 1.5, 1.0)

    counted = meter.copy()
    assert meter.sent == 2
    assert (counted[A].failed, counted[A].succeeded) == (1, 0)
    assert (counted[B].failed, counted[B].succeeded) == (0, 1)
    assert (counted[B].end_to_end_s.sum, counted[B].transport_s.sum, counted[B].inference_s.sum) == (2.0, 0.5, 1.0)
