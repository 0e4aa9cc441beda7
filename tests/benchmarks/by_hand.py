"""What one would write with Ray alone: one call of an actor a request, an ActorPool, a Serve handle.

Everything in here needs a Ray that was initialised, and leaves it.  Ray Data has no requests: see scoring.py.
"""

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import openvino as ov
import ray
from ray.util import ActorPool

from tests.benchmarks.comparison import Measured
from tests.benchmarks.face_script import one_at_a_time_median_ms
from tests.benchmarks.request_works import RequestWork

#: Calls that are on their way to each actor while it works.
_CALLS_EACH = 8

_WARM_UP_SHARE = 0.25


class _Model:
    """Is one core's model.  Not pinned by OpenVINO, which would put all of them on the first core."""

    def __init__(self, work: RequestWork) -> None:
        properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
        self._compiled = ov.compile_model(str(work.model), "CPU", properties)

    def infer(self, values: Any) -> Any:
        return self._compiled(values, share_inputs=False)[0]


def figures_of_ray(work: RequestWork, seconds: float, turns: int) -> Sequence[Measured]:
    """Measures one actor call a request, and an ActorPool, in turn."""
    inputs = work.inputs()
    kind = ray.remote(num_cpus=1)(_Model)
    actors = [kind.remote(work) for _ in os.sched_getaffinity(0)]
    in_turn = itertools.cycle(actors)
    ray.get([actor.infer.remote(inputs[0]) for actor in actors])

    def call_one(values: Any) -> Any:
        return next(in_turn).infer.remote(values)

    found = [
        {
            ("saturation", "actor call"): _rate(call_one, ray.get, len(actors) * _CALLS_EACH, inputs, seconds),
            ("saturation", "ActorPool"): _rate_of_pool(ActorPool(actors), inputs, seconds),
            ("one at a time", "actor call"): one_at_a_time_median_ms(
                lambda values: ray.get(actors[0].infer.remote(values)), inputs, seconds
            ),
        }
        for _ in range(turns)
    ]
    for actor in actors:
        ray.kill(actor)
    return found


def figures_of_serve(work: RequestWork, seconds: float, turns: int) -> Sequence[Measured]:
    """Measures the handle of a Ray Serve deployment, so often."""
    from ray import serve

    inputs = work.inputs()
    cores = len(os.sched_getaffinity(0))
    serve.start(proxy_location="Disabled")
    options = {"num_replicas": cores, "ray_actor_options": {"num_cpus": 1}, "max_ongoing_requests": _CALLS_EACH}
    handle = serve.run(serve.deployment(**options)(_Model).bind(work), route_prefix=None)
    handle.infer.remote(inputs[0]).result()
    found = [
        {
            ("saturation", "Ray Serve"): _rate(
                handle.infer.remote, lambda response: response.result(), cores * _CALLS_EACH, inputs, seconds
            ),
            ("one at a time", "Ray Serve"): one_at_a_time_median_ms(
                lambda values: handle.infer.remote(values).result(), inputs, seconds
            ),
        }
        for _ in range(turns)
    ]
    serve.shutdown()
    return found


def _rate(
    send: Callable[[Any], Any],
    receive: Callable[[Any], Any],
    outstanding: int,
    inputs: Sequence[Any],
    seconds: float,
) -> float:
    in_turn = itertools.cycle(inputs)

    def load(for_s: float) -> float:
        waiting: deque[Any] = deque()
        count, started_s = 0, time.perf_counter()
        while time.perf_counter() - started_s < for_s:
            waiting.append(send(next(in_turn)))
            count += 1
            if len(waiting) >= outstanding:
                receive(waiting.popleft())
        for one in waiting:
            receive(one)
        return count / (time.perf_counter() - started_s)

    load(seconds * _WARM_UP_SHARE)
    return load(seconds)


def _rate_of_pool(pool: Any, inputs: Sequence[Any], seconds: float) -> float:
    in_turn = itertools.cycle(inputs)

    def load(for_s: float) -> float:
        count, started_s = 0, time.perf_counter()
        while time.perf_counter() - started_s < for_s:
            while pool.has_free():
                pool.submit(lambda actor, values: actor.infer.remote(values), next(in_turn))
            pool.get_next_unordered()
            count += 1
        while pool.has_next():
            pool.get_next_unordered()
            count += 1
        return count / (time.perf_counter() - started_s)

    load(seconds * _WARM_UP_SHARE)
    return load(seconds)
