"""Of many replicas the histograms are handed over in turn, and all of them at the end."""

from collections import Counter

import pytest
from ray.util import metrics

from ovray.driver.meter import ReplicaMeter
from ovray.driver.metrics_export import HISTOGRAMS_AT_A_TIME, MetricsExport
from ovray.driver.reading import Reading, ReplicaReading

COUNT = "ovray_end_to_end_seconds_count"
SUCCEEDED = "ovray_requests_succeeded"


def a_reading(replicas: int, requests: int) -> Reading:
    return Reading(
        now_s=1.0,
        replicas=tuple(a_replica(number, requests) for number in range(replicas)),
        elsewhere=ReplicaMeter(),
        accepted=replicas * requests,
        rejected=0,
        waiting=0,
    )


def a_replica(number: int, requests: int) -> ReplicaReading:
    meter = ReplicaMeter(succeeded=requests)
    meter.end_to_end_s.add(0.01, times=requests)
    return ReplicaReading(
        id=f"h/SIM.0#{number}",
        host="h",
        device="SIM.0",
        state="ready",
        outstanding=0,
        rows_done=requests,
        rows_per_s=None,
        retries=0,
        evictions=0,
        meter=meter,
    )


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Counts what Ray is told, by metric and replica."""
    seen: Counter[tuple[str, str]] = Counter()

    def inc(counter: metrics.Counter, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        seen[counter.info["name"], (tags or {}).get("replica", "")] += int(value)

    monkeypatch.setattr(metrics.Counter, "inc", inc)
    return seen


def with_(told: Counter[tuple[str, str]], name: str) -> int:
    """Counts the replicas of which Ray was told this."""
    return sum(metric == name and replica != "" for metric, replica in told)


def test_few_replicas_are_told_of_each_time(told: Counter[tuple[str, str]]) -> None:
    export = MetricsExport("mlp", "requests")

    export.hand_over(a_reading(HISTOGRAMS_AT_A_TIME, 3))
    export.hand_over(a_reading(HISTOGRAMS_AT_A_TIME, 5))

    assert with_(told, COUNT) == HISTOGRAMS_AT_A_TIME
    assert told[COUNT, "h/SIM.0#0"] == told[COUNT, f"h/SIM.0#{HISTOGRAMS_AT_A_TIME - 1}"] == 5


def test_of_many_replicas_each_has_its_turn(told: Counter[tuple[str, str]]) -> None:
    replicas = 2 * HISTOGRAMS_AT_A_TIME + 7
    export = MetricsExport("mlp", "requests")

    seen = []
    for requests in (1, 2, 3, 4):
        export.hand_over(a_reading(replicas, requests))
        assert with_(told, SUCCEEDED) == replicas
        seen.append(with_(told, COUNT))

    assert seen == [HISTOGRAMS_AT_A_TIME, 2 * HISTOGRAMS_AT_A_TIME, replicas, replicas]
    assert [told[COUNT, f"h/SIM.0#{at}"] for at in (0, HISTOGRAMS_AT_A_TIME, replicas - 1)] == [4, 2, 3]


def test_nothing_is_left_at_the_end(told: Counter[tuple[str, str]]) -> None:
    replicas = 3 * HISTOGRAMS_AT_A_TIME
    export = MetricsExport("mlp", "requests")

    export.hand_over(a_reading(replicas, 4))
    export.finish()

    assert [told[COUNT, f"h/SIM.0#{at}"] for at in range(replicas)] == [4] * replicas
