"""What it costs requests that they are counted, and those told of them who watch a cluster.

Small requests at saturation, where each costs its driver least and counting is the largest part of that.  One
driver under one Ray compiles the model anew for each measurement, now with figures, now without, and asks for some
seconds: long enough for several readings to be told.
"""

import os
import statistics
from collections.abc import Sequence
from unittest.mock import patch

import ovray
from ovray.driver.session import ray_session
from tests.benchmarks.comparison import Measured
from tests.benchmarks.face_script import saturated_rate, throughput
from tests.benchmarks.request_works import RequestWork

COUNTED = "with figures"
UNCOUNTED = "without figures"

_VARIABLE = {COUNTED: "on", UNCOUNTED: "off"}


def rates_of_figures(work: RequestWork, seconds: float, turns: int) -> Sequence[Measured]:
    """Measures requests per second both ways, in each turn twice: with, without, without, with."""
    found: list[Measured] = []
    with ray_session("local"):
        _rate(work, COUNTED, seconds / 4)  # everything is loaded by this that later ones find loaded
        for _ in range(turns):
            rates: dict[str, list[float]] = {COUNTED: [], UNCOUNTED: []}
            for name in (COUNTED, UNCOUNTED, UNCOUNTED, COUNTED):
                rates[name].append(_rate(work, name, seconds))
            found.append({("saturation", name): statistics.mean(both) for name, both in rates.items()})
    return found


def _rate(work: RequestWork, name: str, seconds: float) -> float:
    with (
        patch.dict(os.environ, OVRAY_METRICS=_VARIABLE[name]),
        throughput(ovray, str(work.model), "CPU") as compiled,
    ):
        return saturated_rate(ovray, compiled, work.inputs(), seconds)
