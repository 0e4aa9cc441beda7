"""Requests to devices that one does not have: many of unequal speed, and what more of them cost the driver.

So many processes take long to start where cores are few: each set starts once, and is measured several times.
"""

import itertools
import os
import statistics
import time
from collections.abc import Mapping

import ovray
from ovray.driver.session import ray_session
from tests.benchmarks.comparison import ROUNDS, Measured
from tests.benchmarks.face_script import saturated_rate, throughput
from tests.benchmarks.request_works import RequestWork
from tests.benchmarks.settling import let_it_settle
from tests.waiting import wait_until

#: 50 devices of 1 to 20 ms a request: count by milliseconds.  The slow half gives a sixth of the whole.
UNEQUAL: Mapping[int, int] = {1: 1, 5: 9, 10: 20, 20: 20}

#: 50 devices of 50 different speeds, in milliseconds a request, and slow enough for a small machine to play them:
#: 321 requests per second together.  The best plan of all reaches 0.975 of that with 1,000 requests, since half a
#: request a device is under way, on average, when the last one ends.
SLOW = tuple(round(50 * 20 ** (number / 49)) for number in range(50))

_REQUESTS = 1000

#: Requests per second of all devices together where the driver's CPU is measured: few enough for a small machine.
_EQUAL_RATE_PER_S = 1000

#: With as many requests in flight as the queue likes: few devices get several of them in one message.
DRIVER_CPU = "driver CPU a request"

#: With one at each device and one that waits for it, so that each is a message of its own, also with few devices.
DRIVER_CPU_ALONE = "driver CPU a request, each a message of its own"
_EACH = 2

_READY_TIMEOUT_S = 600.0


def figures_of_unequal(work: RequestWork, seconds: float) -> Measured:
    """Measures devices of unequal speed together, beside the plain sum of what they are."""
    devices = ",".join(f"SIM*{count}?ms={ms}" for ms, count in UNEQUAL.items())
    with ray_session("local"), _compiled(work, devices, sum(UNEQUAL.values())) as compiled:
        rate = statistics.median(saturated_rate(ovray, compiled, work.inputs(), seconds) for _ in range(ROUNDS))
    return {
        ("saturation", "together"): rate,
        ("saturation", "plain sum"): sum(count * 1000 / ms for ms, count in UNEQUAL.items()),
    }


def figures_of_a_thousand(work: RequestWork) -> Measured:
    """Measures 1,000 requests to slow devices, from the first to the last answer, beside the plain sum."""
    devices = ",".join(f"SIM?ms={ms}" for ms in SLOW)
    with ray_session("local"), _compiled(work, devices, len(SLOW)) as compiled:
        inputs = work.inputs()
        queue = ovray.AsyncInferQueue(compiled)
        for number in range(len(SLOW)):
            queue.start_async(inputs[number % len(inputs)])
        queue.wait_all()
        began_s = time.perf_counter()
        for number in range(_REQUESTS):
            queue.start_async(inputs[number % len(inputs)])
        queue.wait_all()
        took_s = time.perf_counter() - began_s
    return {
        ("to the last answer", "together"): _REQUESTS / took_s,
        ("to the last answer", "plain sum"): sum(1000 / ms for ms in SLOW),
    }


def figures_of_growth(work: RequestWork, few: int, many: int, seconds: float) -> Measured:
    """Measures the driver's CPU time a request over few devices and over many; both give the same rate."""
    found = {}
    with ray_session("local"):
        for count in (few, many):
            devices = f"SIM*{count}?ms={count * 1000 // _EQUAL_RATE_PER_S}"
            with _compiled(work, devices, count) as compiled:
                for figure, in_flight in ((DRIVER_CPU, 0), (DRIVER_CPU_ALONE, _EACH * count)):
                    found[figure, f"{count} replicas"] = statistics.median(
                        _cpu_us_a_request(compiled, work, in_flight, seconds) for _ in range(ROUNDS)
                    )
    return found


def _compiled(work: RequestWork, devices: str, replicas: int) -> ovray.CompiledModel:
    """Compiles, and waits until every replica is ready and the machine is quiet."""
    compiled = throughput(ovray, str(work.model), devices)
    if not wait_until(
        lambda: sum(replica.state == "ready" for replica in compiled.replicas) >= replicas,
        _READY_TIMEOUT_S,
        poll_s=0.2,
    ):
        raise TimeoutError(f"of {replicas} replicas, some were not ready after {_READY_TIMEOUT_S:g} s")
    let_it_settle(replicas)
    return compiled  # type: ignore[no-any-return]


def _cpu_us_a_request(compiled: ovray.CompiledModel, work: RequestWork, in_flight: int, seconds: float) -> float:
    queue, inputs = ovray.AsyncInferQueue(compiled, in_flight), itertools.cycle(work.inputs())

    def load(for_s: float) -> int:
        count, end_s = 0, time.perf_counter() + for_s
        while time.perf_counter() < end_s:
            queue.start_async(next(inputs))
            count += 1
        queue.wait_all()
        return count

    load(seconds / 4)
    began = os.times()
    count = load(seconds)
    ended = os.times()
    return 1e6 * (ended.user + ended.system - began.user - began.system) / count
