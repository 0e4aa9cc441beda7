"""What requests must reach, as ratios: against OpenVINO in one process, against what one writes with Ray alone,
against the plain sum of the devices, and against itself with fewer replicas.

``python -m tests.benchmarks.requests`` has every contender measure in turn, round by round; ``--quick`` takes
about two minutes and shows no more than that all of it works.  Every contender has all cores of this process.
Nothing else should run meanwhile.
"""

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openvino as ov
import ray

import ovray
from tests.benchmarks import face_script
from tests.benchmarks.by_hand import figures_of_ray, figures_of_serve
from tests.benchmarks.comparison import (
    TIMEOUT_S,
    By,
    Contest,
    Figure,
    Measured,
    Verdict,
    Wanted,
    arguments,
    in_a_new_process,
    run_all,
)
from tests.benchmarks.request_works import RequestWork, a_text_work, an_image_work, an_mlp_work
from tests.benchmarks.simulated_devices import UNEQUAL, figures_of_growth, figures_of_unequal

IN_PROCESS = "in process"
OVRAY = "ovray"
FUTURES = "ovray, map"

#: Load of arrivals at random, in percent of what one process can do.
LOADS = (50, 80)

#: One process takes a minute where nothing else runs.
_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Says how long each figure is measured, and how large the large cluster is."""

    seconds: float = 1.5
    simulated_seconds: float = 5.0
    many_replicas: int = 200


QUICK = Sizes(seconds=0.4, simulated_seconds=1.0, many_replicas=16)


class Bench:
    """Makes the contests."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self._sizes = sizes
        self._squeezenet = an_image_work("squeezenet")
        self._resnet50 = an_image_work("resnet50")
        self._mlp = an_mlp_work(folder)
        self._text = a_text_work(folder)

    def contests(self) -> list[Contest]:
        """Returns every case of the table that is to be reached."""
        return [
            self._all_contenders(self._squeezenet, self._squeezenet_figures()),
            self._all_contenders(self._mlp, self._mlp_figures()),
            self._against_one_process(self._resnet50, at_least=0.98),
            self._against_one_process(self._text, at_least=0.95),
            self._two_replicas(),
            self._unequal(),
            self._growth(),
        ]

    # --- contests -------------------------------------------------------------------------------------------

    def _all_contenders(self, work: RequestWork, figures: tuple[Figure, ...]) -> Contest:
        processes = self._openvino_and_ovray(work)
        processes["Ray"] = self._process(figures_of_ray, work, self._sizes.seconds)
        if find_spec("fastapi") is None:
            print("Ray Serve is not installed (ray[serve]): it is left out")
        else:
            processes["Ray Serve"] = self._process(figures_of_serve, work, self._sizes.seconds)
        return Contest(name=work.name, processes=processes, figures=figures)

    def _against_one_process(self, work: RequestWork, *, at_least: float) -> Contest:
        wanted = Wanted(at_least=at_least)
        figures = (
            _figure("saturation", "requests/s", [_verdict(f"{work.name} at saturation", IN_PROCESS, wanted)]),
            *(_figure(name, "ms", []) for name in ("saturated median", "one at a time", *map(_load, LOADS))),
        )
        return Contest(name=work.name, processes=self._openvino_and_ovray(work), figures=figures)

    def _two_replicas(self) -> Contest:
        name = "two replicas with one core each / plain sum of each alone"
        verdict = Verdict(
            name=f"squeezenet, {name}", ours="together", others=("plain sum",), wanted=Wanted(at_least=0.97)
        )
        return Contest(
            name="two replicas",
            processes={"ovray": self._process(figures_of_two, self._squeezenet, self._sizes.seconds)},
            figures=(_figure("saturation", "requests/s", [verdict]),),
        )

    def _unequal(self) -> Contest:
        verdict = Verdict(
            name=f"{sum(UNEQUAL.values())} simulated devices, 1-20 ms / plain sum",
            ours="together",
            others=("plain sum",),
            wanted=Wanted(at_least=0.97),
        )
        return Contest(
            name="unequal devices",
            processes={"ovray": self._process(figures_of_unequal, self._mlp, self._sizes.simulated_seconds)},
            figures=(_figure("saturation", "requests/s", [verdict]),),
        )

    def _growth(self) -> Contest:
        few, many = 2, self._sizes.many_replicas
        verdict = Verdict(
            name=f"driver CPU a request, {many} simulated replicas / {few}",
            ours=f"{many} replicas",
            others=(f"{few} replicas",),
            wanted=Wanted(at_most=1.3),
        )
        seconds = self._sizes.simulated_seconds
        measure = self._process(figures_of_growth, self._mlp, few, many, seconds, timeout_s=TIMEOUT_S)
        return Contest(
            name="growth",
            processes={"ovray": measure},
            figures=(_figure("driver CPU", "us", [verdict]),),
            # So many processes take minutes to start where cores are few.
            most_rounds=1,
        )

    # --- figures --------------------------------------------------------------------------------------------

    def _squeezenet_figures(self) -> tuple[Figure, ...]:
        outstanding = self._squeezenet.outstanding
        return (
            self._saturation("squeezenet", at_least=0.95),
            _figure(
                "saturated median",
                "ms",
                [_verdict(f"squeezenet, median with {outstanding} in flight", IN_PROCESS, Wanted(at_most=1.3))],
            ),
            _figure(
                "one at a time",
                "ms",
                [_verdict("squeezenet, one at a time, median", IN_PROCESS, Wanted(at_most=1.1))],
            ),
            *_poisson("squeezenet"),
        )

    def _mlp_figures(self) -> tuple[Figure, ...]:
        less = Verdict(
            name="mlp, one at a time, median less in process",
            ours=OVRAY,
            others=(IN_PROCESS,),
            wanted=Wanted(at_most=0.3),
            by=By.DIFFERENCE,
        )
        return (
            self._saturation("mlp", at_least=5.0),
            _figure("saturated median", "ms", []),
            _figure("one at a time", "ms", [less]),
            *_poisson("mlp"),
        )

    def _saturation(self, name: str, *, at_least: float) -> Figure:
        verdicts = [
            _verdict(f"{name} at saturation", IN_PROCESS, Wanted(at_least=at_least)),
            _verdict(f"{name} at saturation", "actor call", Wanted(at_least=2.0)),
            _verdict(f"{name} at saturation", "ActorPool", Wanted(at_least=2.0)),
            _verdict(f"{name} at saturation", "Ray Serve", Wanted(at_least=3.0)),
        ]
        return _figure("saturation", "requests/s", verdicts)

    # --- processes ------------------------------------------------------------------------------------------

    def _openvino_and_ovray(self, work: RequestWork) -> dict[str, Callable[[], Measured]]:
        rate = _Rate(work, self._sizes.seconds)

        def side(module: str, name: str) -> Callable[[], Measured]:
            return lambda: in_a_new_process(figures_of_script, module, name, work, rate.per_s, self._sizes.seconds)

        return {IN_PROCESS: side("openvino", IN_PROCESS), OVRAY: side("ovray", OVRAY)}

    def _process(
        self, measure: Callable[..., Measured], *its: Any, timeout_s: float = _TIMEOUT_S
    ) -> Callable[[], Measured]:
        return lambda: in_a_new_process(measure, *its, timeout_s=timeout_s)


class _Rate:
    """Measures once what one process can do, so that all sides and rounds see the same arrivals."""

    def __init__(self, work: RequestWork, seconds: float) -> None:
        self._work = work
        self._seconds = seconds

    @cached_property
    def per_s(self) -> float:
        return in_a_new_process(rate_in_process, self._work, self._seconds)


def rate_in_process(work: RequestWork, seconds: float) -> float:
    """Returns what OpenVINO does in one process, in requests per second."""
    compiled = face_script.throughput(ov, str(work.model), "CPU")
    return face_script.saturated_rate(ov, compiled, work.inputs(), seconds)


def figures_of_script(module: str, side: str, work: RequestWork, rate_per_s: float, seconds: float) -> Measured:
    """Runs the script on ``openvino`` or ``ovray``."""
    face = importlib.import_module(module)
    is_ours = face is ovray
    if is_ours:
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
    inputs = work.inputs()
    compiled = face_script.throughput(face, str(work.model), "CPU")
    found = {
        ("saturation", side): face_script.saturated_rate(face, compiled, inputs, seconds),
        ("saturated median", side): face_script.saturated_median_ms(
            face, compiled, inputs, work.outstanding, seconds
        ),
    }
    for load in LOADS:
        found[_load(load), side] = face_script.poisson_p99_ms(
            face, compiled, inputs, work.most_in_flight, rate_per_s * load / 100, 2 * seconds
        )
    if is_ours:
        found["saturation", FUTURES] = face_script.saturated_rate_of_futures(compiled, inputs, seconds)
        compiled.close()
    del compiled
    compiled = face_script.latency(face, str(work.model), "CPU")
    found["one at a time", side] = face_script.one_at_a_time_median_ms(compiled, inputs, seconds)
    if is_ours:
        compiled.close()
        ray.shutdown()
    return found


def figures_of_two(work: RequestWork, seconds: float) -> Measured:
    """Measures two replicas that share the cores, each alone and both together."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    inputs = work.inputs()
    with face_script.throughput(ovray, str(work.model), "CPU*2") as compiled:
        while any(replica.state == "starting" for replica in compiled.replicas):
            face_script.one_at_a_time_median_ms(compiled, inputs, 0.1)
        names = [replica.id for replica in compiled.replicas]
        alone = [face_script.saturated_rate(ovray, compiled, inputs, seconds, device=name) for name in names]
        together = face_script.saturated_rate(ovray, compiled, inputs, seconds)
    ray.shutdown()
    return {("saturation", "together"): together, ("saturation", "plain sum"): sum(alone)}


def _poisson(name: str) -> tuple[Figure, ...]:
    half, most = LOADS
    verdict = _verdict(f"{name}, arrivals at {most}%, p99", IN_PROCESS, Wanted(at_most=1.5))
    return _figure(_load(half), "ms", []), _figure(_load(most), "ms", [verdict])


def _load(percent: int) -> str:
    return f"p99 at {percent}%"


def _figure(name: str, unit: str, verdicts: list[Verdict]) -> Figure:
    return Figure(name=name, unit=unit, verdicts=tuple(verdicts))


def _verdict(name: str, other: str, wanted: Wanted) -> Verdict:
    return Verdict(name=name, ours=OVRAY, others=(other,), wanted=wanted)


def main() -> None:
    options = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="ovray-bench-") as folder:
        run_all(Bench(Path(folder), QUICK if options.quick else Sizes()).contests(), options)


if __name__ == "__main__":
    main()
