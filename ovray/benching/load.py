"""Keeps a number of requests in flight until limits are reached, and collects what became of them.

May not enter: starting replicas, summing up.
"""

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ovray.benching.latencies import Samples
from ovray.benching.options import Limits
from ovray.core.ids import ReplicaId
from ovray.driver.calls import Ended
from ovray.replica.envelope import TensorShape
from ovray.runtime.serving import Serving, Terms

#: How often one who waits looks whether the pool still lives, and whether more should be in flight.
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sendable:
    """Is the input of one request, in the order of the model's ports."""

    arrays: Sequence[NDArray[Any]]
    #: In elements, where a type takes less than a byte.
    shapes: tuple[TensorShape, ...] | None
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Says what came of a load."""

    samples: dict[ReplicaId, Samples]
    iterations: int
    frames: int
    total_s: float
    #: The most that were in flight.
    nireq: int

    @property
    def fps(self) -> float:
        """Frames per second: batch times iterations, by the time."""
        return self.frames / self.total_s


class _Flight:
    """Counts what is in flight and takes what has ended; the driver thread writes, one other reads and waits."""

    def __init__(self) -> None:
        self.samples: dict[ReplicaId, Samples] = defaultdict(Samples)
        self.error: Exception | None = None
        self.count = 0
        self._changed = threading.Condition()

    def depart(self) -> None:
        with self._changed:
            self.count += 1

    def land(self, how: Ended, frames: int) -> None:
        if how.error is not None:
            self.error = self.error or how.error
        elif how.replica is not None:
            self.samples[how.replica].add(how, frames)
        with self._changed:
            self.count -= 1
            self._changed.notify()

    def wait_below(self, count: int, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count < count, timeout_s)


def run_load(
    serving: Serving,
    inputs: Sequence[Sendable],
    limits: Limits,
    wanted_in_flight: Callable[[], int],
    device: str | None = None,
) -> Measured:
    """Sends inputs in turn, each as soon as there is room in flight, and waits for the last.

    Args:
        serving: takes the requests.
        inputs: at least one.
        limits: iterations are rounded up to whole rounds of what is in flight, or of the inputs where these are
            more, as in ``benchmark_app``.
        wanted_in_flight: is asked twice a second.
        device: of a replica, the id: the others get nothing; ``None`` is any.

    Raises:
        OvrayError: what the first request that failed ended with; those in flight were waited for.
    """
    flight = _Flight()
    terms = Terms(device=device)
    nireq = wanted_in_flight()
    limits = Limits(
        iterations=_in_whole_rounds(limits.iterations, max(nireq, len(inputs))), duration_s=limits.duration_s
    )
    landings = [lambda how, frames=one.frames: flight.land(how, frames) for one in inputs]
    in_turn = itertools.cycle(zip(inputs, landings, strict=True))
    iterations = frames = 0
    started_s = time.perf_counter()
    look_s = started_s + _LOOK_S
    while limits.are_open(iterations, (now_s := time.perf_counter()) - started_s) and flight.error is None:
        if now_s >= look_s:
            nireq, look_s = max(nireq, wanted_in_flight()), now_s + _LOOK_S
        if not flight.wait_below(nireq, _LOOK_S):
            serving.pool.check_open()
            continue
        one, land = next(in_turn)
        flight.depart()
        serving.submit(one.arrays, terms, land, one.shapes)
        iterations, frames = iterations + 1, frames + one.frames
    while not flight.wait_below(1, _LOOK_S):
        serving.pool.check_open()
    total_s = time.perf_counter() - started_s
    if flight.error is not None:
        raise flight.error
    return Measured(
        samples=dict(flight.samples), iterations=iterations, frames=frames, total_s=total_s, nireq=nireq
    )


def _in_whole_rounds(iterations: int | None, per_round: int) -> int | None:
    return None if iterations is None else -(-iterations // per_round) * per_round
