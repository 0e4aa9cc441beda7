"""What requests must reach, as ratios: against OpenVINO in one process, against what one writes with Ray alone,
against the plain sum of the devices, and against itself with fewer replicas.

``python -m tests.benchmarks.requests`` has every contender measure in turn, round by round, in twenty minutes;
``--quick`` takes about two and shows no more than that all of it works.  Every contender has all cores of this
process.  Nothing else should run meanwhile.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks.comparison import (
    TIMEOUT_S,
    By,
    Contest,
    Figure,
    InOneProcess,
    Measured,
    Verdict,
    Wanted,
    arguments,
    in_a_new_process,
    rounds_of,
    run_all,
)
from tests.benchmarks.metrics_cost import COUNTED, UNCOUNTED, rates_of_figures
from tests.benchmarks.request_sides import (
    IN_PROCESS,
    LOADS,
    MEDIAN,
    ONE,
    OVER_RAY,
    OVRAY,
    SATURATION,
    Question,
    figures_of_requests,
    figures_of_two,
    load_name,
)
from tests.benchmarks.request_works import a_text_work, an_image_work, an_mlp_work
from tests.benchmarks.simulated_devices import (
    DRIVER_CPU,
    DRIVER_CPU_ALONE,
    SLOW,
    UNEQUAL,
    figures_of_a_thousand,
    figures_of_growth,
    figures_of_unequal,
)

#: To start what is to be measured takes half a minute where nothing else runs, and a round of it no longer.
_TIMEOUT_S = 180.0
_ROUND_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Says how long each figure is measured, and how large the large cluster is."""

    #: By work: those whose requests are short need less, those that take 40 ms each more.
    seconds: float = 1.0
    resnet50_seconds: float = 2.0
    mlp_seconds: float = 0.6
    simulated_seconds: float = 4.0
    #: A reading is told meanwhile.
    counted_seconds: float = 1.0
    many_replicas: int = 200


QUICK = Sizes(
    seconds=0.4,
    resnet50_seconds=0.4,
    mlp_seconds=0.4,
    simulated_seconds=0.4,
    counted_seconds=0.4,
    many_replicas=16,
)


class Bench:
    """Makes the contests."""

    def __init__(self, folder: Path, sizes: Sizes, rounds: int) -> None:
        self._sizes = sizes
        self._rounds = rounds
        self._squeezenet = Question(work=an_image_work("squeezenet"), seconds=sizes.seconds)
        self._mlp = Question(work=an_mlp_work(folder), seconds=sizes.mlp_seconds)
        self._others = [
            Question(work=an_image_work("resnet50"), seconds=sizes.resnet50_seconds, is_short=True),
            Question(work=a_text_work(folder), seconds=sizes.seconds, is_short=True),
        ]

    def contests(self) -> list[Contest]:
        """Returns every case of the table that is to be reached."""
        return [
            self._all_contenders(self._squeezenet, self._squeezenet_figures()),
            self._all_contenders(self._mlp, self._mlp_figures()),
            self._resnet50_and_text(),
            self._two_replicas(),
            self._unequal(),
            self._a_thousand(),
            self._growth(),
            self._figures(),
        ]

    # --- contests -------------------------------------------------------------------------------------------

    def _all_contenders(self, question: Question, figures: tuple[Figure, ...]) -> Contest:
        if find_spec("fastapi") is None:
            print("Ray Serve is not installed (ray[serve]): it is left out")
        processes = self._in_turn(figures_of_requests, [question])
        return Contest(name=question.work.name, processes=processes, figures=figures)

    def _resnet50_and_text(self) -> Contest:
        resnet50, text = (question.work.name for question in self._others)
        return Contest(
            name=f"{resnet50} and {text}",
            processes=self._in_turn(figures_of_requests, self._others),
            figures=tuple(
                _figure(
                    f"{name}, {SATURATION}",
                    "requests/s",
                    [_verdict(f"{name} at saturation", IN_PROCESS, Wanted(at_least=at_least))],
                )
                for name, at_least in ((resnet50, 0.98), (text, 0.95))
            ),
        )

    def _two_replicas(self) -> Contest:
        name = "two replicas with one core each / plain sum of each alone"
        verdict = Verdict(
            name=f"squeezenet, {name}", ours="together", others=("plain sum",), wanted=Wanted(at_least=0.97)
        )
        return Contest(
            name="two replicas",
            processes=self._in_turn(figures_of_two, self._squeezenet),
            figures=(_figure(SATURATION, "requests/s", [verdict]),),
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
            processes={
                "ovray": self._process(
                    figures_of_unequal, self._mlp.work, self._sizes.simulated_seconds, timeout_s=TIMEOUT_S
                )
            },
            figures=(_figure(SATURATION, "requests/s", [verdict]),),
            most_rounds=1,
        )

    def _a_thousand(self) -> Contest:
        verdict = Verdict(
            name=f"1,000 requests to {len(SLOW)} simulated devices, {min(SLOW)}-{max(SLOW)} ms / plain sum",
            ours="together",
            others=("plain sum",),
            wanted=Wanted(at_least=0.95),
        )
        return Contest(
            name="a thousand",
            processes={"ovray": self._process(figures_of_a_thousand, self._mlp.work, timeout_s=TIMEOUT_S)},
            figures=(_figure("to the last answer", "requests/s", [verdict]),),
            most_rounds=1,
        )

    def _growth(self) -> Contest:
        few, many = 2, self._sizes.many_replicas
        figures = [
            _figure(
                name,
                "us",
                [
                    Verdict(
                        name=f"{name}, {many} simulated replicas / {few}",
                        ours=f"{many} replicas",
                        others=(f"{few} replicas",),
                        wanted=Wanted(at_most=1.3),
                    )
                ],
            )
            for name in (DRIVER_CPU, DRIVER_CPU_ALONE)
        ]
        seconds = self._sizes.simulated_seconds
        measure = self._process(figures_of_growth, self._mlp.work, few, many, seconds, timeout_s=TIMEOUT_S)
        return Contest(
            name="growth",
            processes={"ovray": measure},
            figures=tuple(figures),
            most_rounds=1,
        )

    def _figures(self) -> Contest:
        verdict = Verdict(
            name="mlp at saturation, with figures / without",
            ours=COUNTED,
            others=(UNCOUNTED,),
            wanted=Wanted(at_least=0.99),
        )
        return Contest(
            name="metrics",
            processes=self._in_turn(rates_of_figures, self._mlp.work, self._sizes.counted_seconds),
            figures=(_figure(SATURATION, "requests/s", [verdict]),),
        )

    # --- figures --------------------------------------------------------------------------------------------

    def _squeezenet_figures(self) -> tuple[Figure, ...]:
        outstanding = self._squeezenet.work.outstanding
        return (
            self._saturation("squeezenet", at_least=0.95),
            _figure(
                MEDIAN,
                "ms",
                [_verdict(f"squeezenet, median with {outstanding} in flight", IN_PROCESS, Wanted(at_most=1.3))],
            ),
            _figure(
                ONE,
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
            _figure(MEDIAN, "ms", []),
            _figure(ONE, "ms", [less]),
            *_poisson("mlp"),
        )

    def _saturation(self, name: str, *, at_least: float) -> Figure:
        verdicts = [
            _verdict(f"{name} at saturation", IN_PROCESS, Wanted(at_least=at_least)),
            _verdict(f"{name} at saturation", "actor call", Wanted(at_least=2.0)),
            _verdict(f"{name} at saturation", "ActorPool", Wanted(at_least=2.0)),
            _verdict(f"{name} at saturation", "Ray Serve", Wanted(at_least=3.0)),
            _verdict(f"{name} at saturation, sockets against", OVER_RAY, Wanted()),
        ]
        return _figure(SATURATION, "requests/s", verdicts)

    # --- processes ------------------------------------------------------------------------------------------

    def _in_turn(self, measure: Callable[..., Sequence[Measured]], *its: Any) -> Mapping[str, InOneProcess]:
        def rounds(turns: int) -> Sequence[Measured]:
            return in_a_new_process(measure, *its, turns, timeout_s=_TIMEOUT_S + turns * _ROUND_TIMEOUT_S)

        return {"in turn": InOneProcess(rounds, self._rounds)}

    def _process(
        self, measure: Callable[..., Measured], *its: Any, timeout_s: float = _TIMEOUT_S
    ) -> Callable[[], Measured]:
        return lambda: in_a_new_process(measure, *its, timeout_s=timeout_s)


def _poisson(name: str) -> tuple[Figure, ...]:
    half, most = LOADS
    verdict = _verdict(f"{name}, arrivals at {most}%, p99", IN_PROCESS, Wanted(at_most=1.5))
    return _figure(load_name(half), "ms", []), _figure(load_name(most), "ms", [verdict])


def _figure(name: str, unit: str, verdicts: list[Verdict]) -> Figure:
    return Figure(name=name, unit=unit, verdicts=tuple(verdicts))


def _verdict(name: str, other: str, wanted: Wanted) -> Verdict:
    return Verdict(name=name, ours=OVRAY, others=(other,), wanted=wanted)


def main() -> None:
    options = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="ovray-bench-") as folder:
        run_all(Bench(Path(folder), QUICK if options.quick else Sizes(), rounds_of(options)).contests(), options)


if __name__ == "__main__":
    main()
