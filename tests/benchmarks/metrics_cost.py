"""What it costs requests that they are counted, and those told of them who watch a cluster.

Small requests at saturation, where each costs its driver least and counting is the largest part of that.  Two
models that are compiled one after the other differ by more than that: so there is one, and its driver counts and
tells for a second, and then does neither for a second, as with ``OVRAY_METRICS=off``.  At the beginning of each
second with figures a reading is due, so that at least as many are told as by a driver that always tells.
"""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import ovray
from ovray.driver.meter import Figures, request_meter
from ovray.driver.reading import Reading
from ovray.driver.session import ray_session
from tests.benchmarks.comparison import Measured
from tests.benchmarks.face_script import saturated_rate, throughput
from tests.benchmarks.request_works import RequestWork

COUNTED = "with figures"
UNCOUNTED = "without figures"

#: In each turn both ways are measured so often.
_PAIRS = 4


def rates_of_figures(work: RequestWork, seconds: float, turns: int) -> Sequence[Measured]:
    """Measures requests per second both ways; each number is the mean of some that were measured in turn."""
    found: list[Measured] = []
    with ray_session("local"), throughput(ovray, str(work.model), "CPU") as compiled:
        inputs = work.inputs()
        saturated_rate(ovray, compiled, inputs, 2 * seconds)  # it learns how fast its replica is
        for _ in range(turns):
            rates: dict[str, list[float]] = {COUNTED: [], UNCOUNTED: []}
            for number in range(_PAIRS):
                for name in (COUNTED, UNCOUNTED) if number % 2 == 0 else (UNCOUNTED, COUNTED):
                    rates[name].append(_rate(compiled, inputs, seconds, name))
            found.append({("saturation", name): statistics.mean(several) for name, several in rates.items()})
    return found


def _rate(compiled: Any, inputs: Sequence[Any], seconds: float, name: str) -> float:
    if name == COUNTED:
        return saturated_rate(ovray, compiled, inputs, seconds)
    with _without_figures(compiled):
        return saturated_rate(ovray, compiled, inputs, seconds)


@contextmanager
def _without_figures(compiled: Any) -> Iterator[None]:
    """Does to a driver at work what ``OVRAY_METRICS=off`` does to one that starts."""
    pool = compiled.serving.pool
    nothing = request_meter(Figures.OFF)
    with (
        patch.multiple(
            pool._loop.meter, sent=nothing.sent, ended=nothing.ended, ended_together=nothing.ended_together
        ),
        patch.object(pool.telling, "_reporter", _Nobody()),
    ):
        yield


class _Nobody:
    """Stands where a reporter does, because the driver's thread may be about to ask it."""

    is_due = False

    def tell(self, reading: Reading) -> None:
        """Is not asked to."""
