"""What more replicas give a scoring job, and what they cost its driver: from 1 to 64 simulated devices.

``python -m tests.benchmarks.growth`` takes three minutes.  Each replica is a process that reads files and
writes parts; only the inference is a pause.  Rates and the CPU time of the driver are of the seconds in which all
replicas are at work.  Nothing else should run meanwhile.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ray
from rich.table import Table

from ovray.cli.printing import standard_output
from ovray.driver.job import Progress
from ovray.driver.placement import PlacementOptions
from ovray.scoring import score
from ovray.scoring.options import ScoreOptions
from ovray.scoring.row_plan import RowOptions
from ovray.scoring.running import News
from tests.benchmarks.comparison import in_a_new_process
from tests.benchmarks.works import Work, an_mlp

REPLICAS = (1, 4, 16, 64)

#: Of one replica.  A batch of 20 rows takes it 20 ms.
_ROWS_PER_S = 1000
_BATCH_ROWS = 20

#: Ten times as often as by default: the driver has ten times as much to do for each replica.
_COMMIT_EVERY_S = 1.0

_MEASURED_S = 12.0

#: What a replica may take to start where two cores start 64 of them one after the other.
_START_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Says what a number of replicas did."""

    replicas: int
    rows_per_s: float
    #: Over that of all devices together.
    of_sum: float
    chunks_per_s: float
    #: Of one core.
    driver_cpu_share: float

    @property
    def driver_cpu_ms_a_chunk(self) -> float:
        return 1000 * self.driver_cpu_share / self.chunks_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    #: As file systems tell the time.
    at_s: float
    cpu_s: float
    rows: int


def measure(work: Work, output: Path, replicas: int) -> Growth:
    """Scores with so many replicas, in a process that does nothing else."""
    looks: list[_Look] = []

    def watch(news: News) -> None:
        if isinstance(news, Progress) and _is_in_full_swing(news, replicas):
            used = os.times()
            looks.append(_Look(at_s=time.time(), cpu_s=used.user + used.system, rows=news.rows_done))

    options = ScoreOptions(
        rows=RowOptions(inputs=("x",), batch_size=_BATCH_ROWS),
        placement=PlacementOptions.parse(
            devices=f"SIM*{replicas}?ms={1000 / _ROWS_PER_S:g}",
            hint="THROUGHPUT",
            precision=None,
            share_cores=False,
            lease_timeout_s=30.0,
        ),
        limit=round(_ROWS_PER_S * replicas * (_MEASURED_S + _START_S * replicas / 2)),
        commit_every_s=_COMMIT_EVERY_S,
    )
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    score.run(work.model, [work.data], output, options, watch)
    ray.shutdown()
    first, last = looks[0], looks[-1]
    seconds = last.at_s - first.at_s
    written_s = [part.stat().st_mtime for part in output.glob("part-*")]
    rate = (last.rows - first.rows) / seconds
    return Growth(
        replicas=replicas,
        rows_per_s=rate,
        of_sum=rate / (_ROWS_PER_S * replicas),
        chunks_per_s=sum(first.at_s <= at_s < last.at_s for at_s in written_s) / seconds,
        driver_cpu_share=(last.cpu_s - first.cpu_s) / seconds,
    )


def _is_in_full_swing(news: Progress, replicas: int) -> bool:
    """Says whether every replica has been given chunks, and rows are left to cut."""
    at_work = [one for one in news.snapshot.replicas if one.chunks_outstanding and one.rows_done]
    return len(at_work) == replicas and any(job.rows_uncut for job in news.snapshot.jobs)


def print_table(growths: Sequence[Growth]) -> None:
    """Prints a line for each number of replicas."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("replicas", "rows/s", "of their sum", "chunks/s", "driver's CPU", "CPU ms a chunk"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in growths:
        table.add_row(
            f"{one.replicas}",
            f"{one.rows_per_s:,.0f}",
            f"{one.of_sum:.3f}",
            f"{one.chunks_per_s:.1f}",
            f"{one.driver_cpu_share:.1%}",
            f"{one.driver_cpu_ms_a_chunk:.2f}",
        )
    standard_output().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--replicas", type=int, nargs="*", default=REPLICAS, help="numbers of replicas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ovray-bench-") as name:
        folder = Path(name)
        work = an_mlp(folder, 3_000_000)
        growths = [in_a_new_process(measure, work, folder / f"{count}", count) for count in options.replicas]
    print_table(growths)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(one) for one in growths], indent=1) + "\n")


if __name__ == "__main__":
    main()
