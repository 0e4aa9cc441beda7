"""Scores a data set in this process, chunk by chunk as one replica does, without a Ray."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openvino as ov
import pyarrow as pa
import pyarrow.parquet as pq

from ovray.replica.openvino_engine import OpenVINOEngine
from ovray.scoring.chunk import Chunk, ChunkReport, ChunkScorer, ScoringWork
from ovray.scoring.dataset import DataSet
from ovray.scoring.folder_lock import open_folder
from ovray.scoring.job_record import JobRecord
from ovray.scoring.on_error import ErrorOptions
from ovray.scoring.reading import read_sample
from ovray.scoring.row_plan import RowOptions, RowPlan, plan_rows
from ovray.scoring.settling import settle_folder
from ovray.scoring.sinks import FolderSink
from ovray.scoring.taking_up import Earlier, TakenUp, take_up
from tests.data_builders import a_data_set

ANY_JOB = JobRecord(model="ab12", inputs=(), bindings={}, results={}, options={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Is a job under way: a folder that is taken up, and a scorer."""

    data: DataSet
    plan: RowPlan
    taken: TakenUp
    scorer: ChunkScorer

    def run(self, start: int, stop: int) -> ChunkReport:
        """Score one chunk."""
        chunk = Chunk(start=start, stop=stop, slices=self.data.slices(start, stop))
        return self.scorer.run(chunk, threading.Event())


@contextmanager
def scoring(
    model: ov.Model, inputs: Sequence[Path], output: Path, options: RowOptions, errors: ErrorOptions
) -> Iterator[Scoring]:
    """Take up a folder and compile a model for it."""
    data = a_data_set(*inputs, on_error=errors.on_error)
    plan = plan_rows(model, data, read_sample(data, errors), options, errors.on_error)
    properties = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
    engine = OpenVINOEngine(model, "CPU", properties, plan.batch_rows)
    try:
        with open_folder(output) as folder, take_up(folder, ANY_JOB, data.rows, Earlier.KEEP) as taken:
            work = ScoringWork(rows=plan, sink=FolderSink(folder=taken.folder), errors=errors)
            yield Scoring(data=data, plan=plan, taken=taken, scorer=ChunkScorer(work, engine))
    finally:
        engine.close()


def score_here(
    model: ov.Model,
    inputs: Sequence[Path],
    output: Path,
    options: RowOptions,
    errors: ErrorOptions,
    *,
    chunk_rows: int = 1 << 40,
) -> list[ChunkReport]:
    """Score all rows that the folder lacks, and settle it."""
    with scoring(model, inputs, output, options, errors) as job:
        ranges = [
            (at, min(at + chunk_rows, stop))
            for start, stop in job.taken.missing
            for at in range(start, stop, chunk_rows)
        ]
        reports = [job.run(*one) for one in ranges]
        settled = settle_folder(job.taken.folder, [*job.taken.done, *ranges], job.data.rows)
        assert settled == job.taken.errors + sum(report.errors for report in reports)
    return reports


def errors_in(output: Path) -> pa.Table:
    """Return all rows of ``_errors``, in order; none where there is no such folder."""
    paths = sorted((output / "_errors").glob("*.parquet"))
    assert len(paths) == len(list((output / "_errors").glob("*"))), "nothing else is in it"
    return pa.concat_tables([pq.read_table(path) for path in paths]) if paths else pa.table({"row": []})
