"""What it costs that each row is there exactly once: the same job with that, and without.

Without: no record of the job, no look at what an earlier run has done, no lock and no fence; parts grow under
their own name and are not flushed to the disk; nothing is counted at the end.  All else is the same.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
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
from ovray.scoring.row_plan import RowOptions
from ovray.scoring.running import News, Stage
from ovray.scoring.sinks import FolderSink, Stored
from ovray.scoring.taking_up import TakenUp
from tests.benchmarks.works import Work


def seconds_with_the_promise(work: Work, output: Path, devices: str) -> float:
    """Returns the seconds of a job without the start of Ray and replicas."""
    return _seconds(work, output, devices)


def seconds_without(work: Work, output: Path, devices: str) -> float:
    """The same, of a job that only writes; for a process that does nothing else afterwards."""
    for name, stand_in in (
        ("open_folder", _open_folder),
        ("take_up", _take_up),
        ("settle_folder", lambda folder, ranges, rows: 0),
        ("FolderSink", _PlainSink),
    ):
        setattr(score, name, stand_in)
    return _seconds(work, output, devices)


def _seconds(work: Work, output: Path, devices: str) -> float:
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
    score.run(work.model, [work.data], output, options, watch)
    ended_s = time.perf_counter()
    ray.shutdown()
    return (moments["connecting to Ray"] - began_s) + (ended_s - moments["running"])


@contextmanager
def _open_folder(output: Path) -> Iterator[OutputFolder]:
    output.mkdir()
    yield OutputFolder(name=str(output), location=str(output))


@contextmanager
def _take_up(folder: OutputFolder, job: object, rows: int, earlier: object) -> Iterator[TakenUp]:
    yield TakenUp(folder=folder, done=(), missing=((0, rows),))


class _PlainSink(FolderSink):
    """Has a replica write plainly."""

    def store(self, bad: BadRows, kept: KeptColumns, results: pa.RecordBatch) -> Stored:
        parts._RenamedFile = _PlainFile  # type: ignore[misc,assignment]
        return super().store(bad, kept, results)


class _PlainFile:
    """Grows under its own name."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, name: str) -> None:
        self._path = f"{folder}/{name}"
        self._filesystem = filesystem
        self.sink: Any = filesystem.open_output_stream(self._path, compression=None)

    def commit(self, admission: AbstractContextManager[None]) -> int:
        self.sink.close()
        return 0

    def discard(self) -> None:
        self.sink.close()
