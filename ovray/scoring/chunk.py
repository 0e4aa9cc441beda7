"""Scores one chunk inside a replica: reads its rows, fills infer requests, gathers results, has them put away.

All rows are taken to be good; only where some fail together is it looked for the ones that fail alone.
May not enter: ray, which chunk comes next.  Two chunks run side by side, so that one reads or writes while the
other infers; the engine's slots are shared between them.
"""

import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from ovray.errors import ReplicaError
from ovray.replica.engine import Engine
from ovray.scoring.bad_rows import BadRows, FirstError, Stage, StageRows
from ovray.scoring.bisecting import bisected
from ovray.scoring.feeding import ColumnFeeder, Feed, Feeder, FunctionFeeder
from ovray.scoring.filling import Filling
from ovray.scoring.inferring_again import infer_again
from ovray.scoring.kept import KeptColumns
from ovray.scoring.on_error import ErrorOptions
from ovray.scoring.reading import RowReader
from ovray.scoring.records import Rows, Slice, Unreadable
from ovray.scoring.results import ChunkResults
from ovray.scoring.row_plan import RowPlan
from ovray.scoring.sinks import Sink
from ovray.scoring.user_functions import Function

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Names some rows of the data set and says where they are."""

    #: Counted from 0 over the whole data set.
    start: int
    stop: int
    slices: tuple[Slice, ...]
    #: Why its rows are not to be run but to be put on record: processes died of them.
    verdict: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSeconds:
    """Says where the time of a chunk went, from its arrival at the replica to its end there."""

    #: Reading; preparing and filling infer requests, without waiting for one; waiting for inferences.  The three
    #: alternate.
    read: float
    prepare: float
    infer: float
    #: Making columns of results.
    finish: float
    #: Putting them away.
    write: float

    @property
    def total(self) -> float:
        """Adds up."""
        return self.read + self.prepare + self.infer + self.finish + self.write


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReport:
    """Says what became of a chunk whose results are put away, all of them."""

    #: That have results.
    rows: int
    size_bytes: int
    #: Seconds in which the replica's engine has run at least one inference, since its start.
    engine_busy_s: float
    seconds: ChunkSeconds
    #: Rows that were put into ``_errors`` instead.
    errors: int = 0
    first_error: FirstError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringWork:
    """Holds what every chunk of a job has in common; travels to each replica once."""

    rows: RowPlan
    sink: Sink
    #: What becomes of rows that cannot be scored.
    errors: ErrorOptions = field(default_factory=ErrorOptions)

    def open(self, engine: Engine) -> "ChunkScorer":
        """Makes the runner, in a replica; Arrow gets as many threads as that has cores."""
        pa.set_cpu_count(len(os.sched_getaffinity(0)))
        return ChunkScorer(self, engine)


class ChunkScorer:
    """Scores chunks of one job, from several threads at once."""

    def __init__(self, work: ScoringWork, engine: Engine) -> None:
        self._work = work
        self._engine = engine
        #: Idle readers; each remembers the file and place where it stopped.
        self._readers: queue.SimpleQueue[RowReader] = queue.SimpleQueue()
        plan = work.rows
        self._feeder: Feeder = (
            ColumnFeeder() if plan.prepare is None else FunctionFeeder(plan.prepare, plan.bindings)
        )
        self._finish = None if plan.finish is None else plan.finish.function.load()

    def run(self, chunk: Chunk, cancelled: threading.Event) -> ChunkReport | tuple[ChunkReport, pa.Table]:
        """Scores a chunk and hands its results to the sink, unless it is cancelled before.

        Returns the report, and with it the results where the sink gives them back.

        Raises:
            DataError: rows cannot be read, prepared, inferred or finished and are not to be recorded, or results
                cannot be written; nothing of them is left.
            ReplicaError: the device failed.
        """
        began_s = time.monotonic()
        scoring = _ChunkInWork(self._work, self._engine, self._feeder, chunk, cancelled)
        reader = self._take_reader()
        try:
            scoring.infer(reader)
        finally:
            # Slots that run write into the results: the chunk is not over before they have answered.
            scoring.results.wait()
            self._readers.put(reader)
        inferred_s = time.monotonic()
        table = scoring.finish(self._finish)
        finished_s = time.monotonic()
        stored = self._work.sink.store(scoring.bad, scoring.kept, table)
        read_s, waited_s = scoring.read_s, scoring.waited_s
        report = ChunkReport(
            rows=stored.rows,
            size_bytes=stored.size_bytes,
            engine_busy_s=self._engine.busy_s(),
            seconds=ChunkSeconds(
                read=read_s,
                prepare=max(0.0, inferred_s - began_s - read_s - waited_s),
                infer=waited_s,
                finish=finished_s - inferred_s,
                write=time.monotonic() - finished_s,
            ),
            errors=scoring.bad.count,
            first_error=scoring.bad.first,
        )
        return report if stored.results is None else (report, stored.results)

    def _take_reader(self) -> RowReader:
        try:
            return self._readers.get_nowait()
        except queue.Empty:
            return RowReader(self._work.rows.read_schema, rows_per_batch=self._work.rows.rows_per_read)


class _ChunkInWork:
    """Is one chunk on its way from its files to its table of results."""

    def __init__(
        self, work: ScoringWork, engine: Engine, feeder: Feeder, chunk: Chunk, cancelled: threading.Event
    ) -> None:
        self._plan = work.rows
        self._engine = engine
        self._feeder = feeder
        self._chunk = chunk
        self._cancelled = cancelled
        self._rows = chunk.stop - chunk.start
        self.bad = BadRows((chunk.start, chunk.stop), chunk.slices, work.errors)
        self.results = ChunkResults(work.rows, self._rows)
        self.kept = KeptColumns(work.rows.kept_schema)
        #: Spent on reading, and on waiting for inferences.
        self.read_s = 0.0
        self.waited_s = 0.0

    def infer(self, reader: RowReader) -> None:
        """Reads all rows and infers those that can be prepared."""
        if self._chunk.verdict is not None:
            self.bad.add(0, self._rows, Stage.READ, self._chunk.verdict)
            return
        at = 0
        with Filling(self._plan, self._engine, self.results) as filling:
            for rows in self._timed(reader.read(self._chunk.slices)):
                self._check_wanted()
                if isinstance(rows, Unreadable):
                    self.bad.add(at, at + rows.rows, Stage.READ, rows.problem)
                    at += rows.rows
                else:
                    self.kept.add(rows.batch)
                    self._feed(filling, rows, at)
                    at += rows.batch.num_rows
                self._infer_failed_again()
            filling.flush()
        began_s = time.monotonic()
        self.results.wait()
        self._infer_failed_again()
        self.waited_s += filling.waited_s + time.monotonic() - began_s

    def _timed(self, read: Iterable[_Item]) -> Iterator[_Item]:
        """Adds up how long reading takes."""
        began_s = time.monotonic()
        for item in read:
            self.read_s += time.monotonic() - began_s
            yield item
            began_s = time.monotonic()
        self.read_s += time.monotonic() - began_s

    def finish(self, function: Function | None) -> pa.RecordBatch:
        """Returns the results of all good rows, with their kept columns."""
        plan = self._plan
        good = self.bad.stages() if self.bad.count else None
        inferred = None if good is None else good[(good != Stage.READ) & (good != Stage.PREPARE)] == 0
        if plan.finish is None or function is None:
            columns = self.results.take_columns(inferred)
        else:
            good_rows = self.bad.good_rows
            finished = StageRows(self.bad, Stage.FINISH, lambda row: int(good_rows[row]))
            gathered = self.results.take_arrays(inferred)
            columns = plan.finish.finish(function, gathered, plan.outputs, finished)
        return pa.RecordBatch.from_arrays([*self.kept.of_good(self.bad), *columns], schema=plan.result_schema)

    def _feed(self, filling: Filling, rows: Rows, at: int) -> None:
        """Prepares rows, of which the first is row ``at`` of the chunk, and puts them into slots."""
        prepared = StageRows(self.bad, Stage.PREPARE, lambda row: at + row)

        def attempt(start: int, stop: int) -> Feed:
            self._check_wanted()
            return self._feeder.feed(rows.slice(start, stop))

        made = bisected(0, rows.batch.num_rows, attempt, prepared.blame, self.bad.none_alone)
        for start, stop, feed in made:
            filling.add(feed, stop - start, prepared.shifted(start))

    def _infer_failed_again(self) -> None:
        inferred = StageRows(self.bad, Stage.INFER, self.bad.of_inferred)
        for failed in self.results.take_failed():
            infer_again(self._engine, self._plan, self.results, failed, inferred, self._check_wanted)

    def _check_wanted(self) -> None:
        if self._cancelled.is_set():
            raise ReplicaError(f"rows {self._chunk.start} to {self._chunk.stop} were cancelled")
