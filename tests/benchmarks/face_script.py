"""The script that one would write against OpenVINO's API; it runs on ``openvino`` and on ``ovray`` as it stands.

May not enter: anything that only one of the two has, except where replicas are to be named, or futures made.
"""

import itertools
import statistics
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovray.benching.latencies import percentile

#: Runs before a figure counts, as part of its time.
_WARM_UP_SHARE = 0.25

#: Queues stay until the process ends: OpenVINO 2026.4.1 may wait for ever when one goes whose last callback has
#: not quite returned, because it keeps the interpreter's lock meanwhile.
_queues: list[Any] = []

#: So many at once are in flight where futures are used.
_FUTURES = 512


def throughput(ov: Any, model: Any, device: str) -> Any:
    """Compiles for many requests."""
    return ov.compile_model(model, device, {"PERFORMANCE_HINT": "THROUGHPUT"})


def latency(ov: Any, model: Any, device: str) -> Any:
    """Compiles for one request at a time."""
    return ov.compile_model(model, device, {"PERFORMANCE_HINT": "LATENCY"})


def saturated_rate(ov: Any, compiled: Any, inputs: Sequence[Any], seconds: float, **pinned: str) -> float:
    """Returns requests per second when as many are in flight as the queue likes."""
    queue = _a_queue(ov, compiled)
    queue.set_callback(_take_results)
    in_turn = itertools.cycle(inputs)

    def load(for_s: float) -> float:
        count, started_s = 0, time.perf_counter()
        while time.perf_counter() - started_s < for_s:
            queue.start_async(next(in_turn), **pinned)
            count += 1
        queue.wait_all()
        return count / (time.perf_counter() - started_s)

    load(seconds * _WARM_UP_SHARE)
    return load(seconds)


def saturated_rate_of_futures(compiled: Any, inputs: Sequence[Any], seconds: float) -> float:
    """Returns requests per second of ``map``, which OpenVINO does not have."""
    in_turn = itertools.cycle(inputs)

    def load(for_s: float) -> float:
        end_s = time.perf_counter() + for_s
        started_s = time.perf_counter()
        wanted = itertools.takewhile(lambda _: time.perf_counter() < end_s, in_turn)
        count = sum(1 for _ in compiled.map(wanted, ordered=False, look_ahead=_FUTURES))
        return count / (time.perf_counter() - started_s)

    load(seconds * _WARM_UP_SHARE)
    return load(seconds)


def saturated_median_ms(ov: Any, compiled: Any, inputs: Sequence[Any], outstanding: int, seconds: float) -> float:
    """Returns the median latency when always so many are in flight, from start to callback."""
    queue = _a_queue(ov, compiled, outstanding)
    took_s, take = _stop_watch()
    queue.set_callback(take)
    in_turn = itertools.cycle(inputs)
    started_s = time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        queue.get_idle_request_id()
        queue.start_async(next(in_turn), time.perf_counter())
    queue.wait_all()
    return 1000 * statistics.median(took_s[int(len(took_s) * _WARM_UP_SHARE) :])


def one_at_a_time_median_ms(infer: Callable[[Any], Any], inputs: Sequence[Any], seconds: float) -> float:
    """Returns the median time of an inference when the next one waits for it."""
    took_s = array("d")
    in_turn = itertools.cycle(inputs)
    started_s = time.perf_counter()
    while (begun_s := time.perf_counter()) - started_s < seconds:
        infer(next(in_turn))
        took_s.append(time.perf_counter() - begun_s)
    return 1000 * statistics.median(took_s[int(len(took_s) * _WARM_UP_SHARE) :])


def poisson_p99_ms(
    ov: Any, compiled: Any, inputs: Sequence[Any], most_in_flight: int, rate_per_s: float, seconds: float
) -> float:
    """Returns the 99th percentile of the time from a request's arrival, at random, to its callback.

    What is late for want of a free slot is late: time counts from when a request was to arrive.
    """
    queue = _a_queue(ov, compiled, most_in_flight)
    took_s, take = _stop_watch()
    queue.set_callback(take)
    gaps_s = np.random.default_rng(1).exponential(1 / rate_per_s, max(1, int(rate_per_s * seconds)))
    in_turn = itertools.cycle(inputs)
    started_s = time.perf_counter()
    for arrival_s in np.cumsum(gaps_s) + started_s:
        early_s = arrival_s - time.perf_counter()
        if early_s > 0:
            time.sleep(early_s)
        queue.start_async(next(in_turn), arrival_s)
    queue.wait_all()
    return 1000 * percentile(sorted(took_s), 99)


def _a_queue(ov: Any, compiled: Any, jobs: int = 0) -> Any:
    _queues.append(ov.AsyncInferQueue(compiled, jobs))
    return _queues[-1]


def _take_results(request: Any, userdata: Any) -> None:
    request.results  # noqa: B018 (whoever asks wants them)


def _stop_watch() -> tuple["array[float]", Callable[[Any, float], None]]:
    """Makes a callback that keeps how long ago the moment was that it is given."""
    took_s = array("d")

    def take(request: Any, since_s: float) -> None:
        request.results  # noqa: B018 (whoever asks wants them)
        took_s.append(time.perf_counter() - since_s)

    return took_s, take
