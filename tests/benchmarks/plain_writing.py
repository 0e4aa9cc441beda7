"""What it costs that each row is there exactly once: the same job with that, and without.

Without: no record of the job, no look at what an earlier run has done, no lock and no fence; parts grow under
their own name and are not flushed to the disk; nothing is counted at the end.  All else is the same.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import ray

from ovray.driver.job import Progress
from ovray.driver.placement import PlacementOptions
from ovray.scoring import parts, score
from ovray.scoring.bad_rows import BadRows
from ovray.scoring.kept import KeptColumns
from ovray.scoring.options import ScoreOptions
from ovray.scoring.parts import OutputFolder
from ovray.scoring.report import ScoreReport
from ovray.scoring.result_formats import ResultFormat
from ovray.scoring.row_plan import RowOptions
from ovray.scoring.running import News, Stage
from ovray.scoring.sinks import FolderSink, Stored
from ovray.scoring.taking_up import TakenUp
from tests.benchmarks.works import Work


def score_with_the_promise(work: Work, output: Path, devices: str) -> tuple[ScoreReport, float]:
    """Scores; returns the report, and the seconds that it took without the start of Ray and replicas."""
    return _score(work, output, devices)


def score_without(work: Work, output: Path, devices: str) -> tuple[ScoreReport, float]:
    """The same, of a job that only writes; for a process that does nothing else afterwards."""
    _replace(score, "open_folder", _open_folder)
    _replace(score, "take_up", _take_up)
    _replace(score, "settle_folder", lambda folder, ranges, rows: 0)
    _replace(score, "FolderSink", _PlainSink)
    return _score(work, output, devices)


def _replace(module: ModuleType, name: str, stand_in: object) -> None:
    """Puts something in the place of what a module uses; that has to be there, or nothing would be compared."""
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__} has no {name} any more: say here what writes without the promise")
    setattr(module, name, stand_in)


def _score(work: Work, output: Path, devices: str) -> tuple[ScoreReport, float]:
    moments: dict[str, float] = {}

    def watch(news: News) -> None:
        now_s = time.perf_counter()
        if isinstance(news, Stage):
            moments.setdefault(news.text, now_s)
        elif isinstance(news, Progress) and news.running_s:
            moments.setdefault("running", now_s - news.running_s)

    options = ScoreOptions(
        rows=RowOptions(inputs=("x",)),
        placement=PlacementOptions.parse(
            devices=devices, hint="THROUGHPUT", precision=None, share_cores=False, lease_timeout_s=30.0
        ),
    )
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    began_s = time.perf_counter()
    report = score.run(work.model, [work.data], output, options, watch)
    ended_s = time.perf_counter()
    ray.shutdown()
    return report, (moments["connecting to Ray"] - began_s) + (ended_s - moments["running"])


@contextmanager
def _open_folder(output: Path, result_format: ResultFormat) -> Iterator[OutputFolder]:
    output.mkdir()
    yield OutputFolder(name=str(output), location=str(output), format=result_format)


@contextmanager
def _take_up(folder: OutputFolder, job: object, rows: int, earlier: object) -> Iterator[TakenUp]:
    yield TakenUp(folder=folder, done=(), missing=((0, rows),))


class _PlainSink(FolderSink):
    """Has a replica write plainly."""

    def store(self, bad: BadRows, kept: KeptColumns, results: pa.RecordBatch) -> Stored:
        _replace(parts, "new_file", _PlainFile)
        return super().store(bad, kept, results)


class _PlainFile:
    """Grows under its own name."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, name: str) -> None:
        self.sink: Any = filesystem.open_output_stream(f"{folder}/{name}", compression=None)

    def finish(self) -> int:
        self.sink.close()
        return 0

    def is_taken(self) -> bool:
        return False

    def appear(self) -> None:
        """Does nothing: it is there."""

    def disappear(self) -> None:
        """Does nothing: only errors do."""

    def discard(self) -> None:
        self.sink.close()
