"""What scoring a data set must reach, as ratios: against a script in one process, against Ray Data, against what
the devices could do at best, against itself with less data, and without the promise that each row is there once.

``python -m tests.benchmarks.scoring`` measures all sides of a case in turn and prints the medians of five rounds;
``--quick`` takes about two minutes and shows no more than that all of it works.  Clocks start when the first model
is compiled, on every side.  Nothing else should run meanwhile.
"""

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray

import ovray
from tests.benchmarks.comparison import Race, Verdict, Wanted, arguments, in_a_new_process, run_all
from tests.benchmarks.one_process import rate_of_script
from tests.benchmarks.plain_writing import seconds_with_the_promise, seconds_without
from tests.benchmarks.ray_data import rate_of_ray_data, settings
from tests.benchmarks.works import Work, a_squeezenet, an_mlp

#: What scores best of a few settings.
DEVICES = "CPU*2"

#: Of the simulated devices: rows in one inference, and rows per second.  Two are ten times faster than six, and
#: stand first: replicas come up one after the other where cores are few.
SIM_BATCH_ROWS = 20
SIM_RATES = {"SIM*2?ms=1": 2 * 1000.0, "SIM*6?ms=10": 6 * 100.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Says how much is to be done."""

    images: int = 4_096
    mlp_rows: int = 8_000_000
    #: So long that it does not count when a replica is ready some seconds after the first: 90 s.
    sim_rows: int = 234_000
    ray_data_settings: int = 3


QUICK = Sizes(images=512, mlp_rows=800_000, sim_rows=26_000, ray_data_settings=1)


class Bench:
    """Makes the races; each measurement writes into a folder of its own."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self._folder = folder
        self._sizes = sizes
        self._numbers = itertools.count()
        self.mlp = an_mlp(folder, sizes.mlp_rows)
        self.small_mlp = an_mlp(folder, sizes.mlp_rows // 8)
        self.squeezenet = a_squeezenet(folder, sizes.images)

    def races(self) -> list[Race]:
        """Returns every case of the table that is to be reached."""
        return [
            self._rates(self.squeezenet, script_at_least=1.05, ray_data_at_least=2.0),
            self._rates(self.mlp, script_at_least=1.4, ray_data_at_least=5.0),
            self._makespan(),
            self._driver_memory(),
            self._exactly_once(),
        ]

    def _side(self, measure: Callable[..., float], *arguments: object) -> Callable[[], float]:
        """Gives each measurement an output and a process of its own."""

        def measured() -> float:
            output = self._folder / f"output-{next(self._numbers)}"
            return in_a_new_process(measure, arguments[0], output, *arguments[1:])

        return measured

    def _rates(self, work: Work, *, script_at_least: float, ray_data_at_least: float) -> Race:
        tried = {
            str(setting): self._side(rate_of_ray_data, work, setting)
            for setting in settings(work)[: self._sizes.ray_data_settings]
        }
        sides = {
            "ovray": self._side(rate_of_ovray, work),
            "one process": self._side(rate_of_script, work),
            **tried,
        }
        script = Verdict(
            name=f"{work.name}, {work.rows:,} rows: ovray / one process",
            ours="ovray",
            others=("one process",),
            wanted=Wanted(at_least=script_at_least),
        )
        ray_data = Verdict(
            name=f"{work.name}, {work.rows:,} rows: ovray / Ray Data",
            ours="ovray",
            others=tuple(tried),
            wanted=Wanted(at_least=ray_data_at_least),
        )
        return Race(name=work.name, unit="rows/s", sides=sides, verdicts=(script, ray_data))

    def _makespan(self) -> Race:
        best_s = self._sizes.sim_rows / sum(SIM_RATES.values())
        return Race(
            name="simulated devices",
            unit="s",
            sides={
                "makespan": self._side(seconds_on_simulated_devices, self.mlp, self._sizes.sim_rows),
                "rows / sum of rates": lambda: best_s,
            },
            verdicts=(
                Verdict(
                    name=f"6 slow and 2 fast simulated devices, {self._sizes.sim_rows:,} rows: makespan / best",
                    ours="makespan",
                    others=("rows / sum of rates",),
                    wanted=Wanted(at_most=1.05),
                ),
            ),
        )

    def _driver_memory(self) -> Race:
        large, small = f"{self.mlp.rows:,} rows", f"{self.small_mlp.rows:,} rows"
        return Race(
            name="driver memory",
            unit="MiB",
            sides={
                large: self._side(peak_of_driver, self.mlp),
                small: self._side(peak_of_driver, self.small_mlp),
            },
            verdicts=(
                Verdict(
                    name=f"peak memory of the driver: {large} / {small}",
                    ours=large,
                    others=(small,),
                    wanted=Wanted(at_most=1.1),
                ),
            ),
        )

    def _exactly_once(self) -> Race:
        return Race(
            name="exactly once",
            unit="s",
            sides={
                "exactly once": self._side(seconds_with_the_promise, self.mlp, DEVICES),
                "only written": self._side(seconds_without, self.mlp, DEVICES),
            },
            verdicts=(
                Verdict(
                    name=f"mlp, {self.mlp.rows:,} rows: exactly once / only written",
                    ours="exactly once",
                    others=("only written",),
                    wanted=Wanted(at_most=1.03),
                ),
            ),
        )


def rate_of_ovray(work: Work, output: Path) -> float:
    """Returns rows per second from the first replica's readiness on."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    report = ovray.score(work.model, work.data, output=output, input="x", devices=DEVICES)
    ray.shutdown()
    return report.rows_per_s


def seconds_on_simulated_devices(work: Work, output: Path, rows: int) -> float:
    """Returns the seconds from the first replica's readiness to the last row."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    report = ovray.score(
        work.model,
        work.data,
        output=output,
        input="x",
        devices=",".join(SIM_RATES),
        batch_size=SIM_BATCH_ROWS,
        limit=rows,
    )
    ray.shutdown()
    return report.run_seconds


def peak_of_driver(work: Work, output: Path) -> float:
    """Returns what the driver's process held at its peak, in MiB."""
    rate_of_ovray(work, output)
    # Not ru_maxrss: that begins with what the process held from which this one came.
    (peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(peak.split()[1]) / 1024


def main() -> None:
    parser = arguments(__doc__)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ovray-bench-") as folder:
        run_all(Bench(Path(folder), QUICK if options.quick else Sizes()).races(), options)


if __name__ == "__main__":
    main()
