"""Scores one chunk inside a replica: reads its rows, fills infer requests, gathers results, has them put away.

May not enter: ray, which chunk comes next.  Two chunks run side by side, so that one reads or writes while the
other infers; the engine's slots are shared between them.
"""

import os
import queue
import threading
from dataclasses import dataclass

import pyarrow as pa

from ovray.errors import ReplicaError
from ovray.replica.engine import Engine, Slot, Tensors
from ovray.scoring.feeding import ColumnFeeder, Feed, Feeder, FunctionFeeder
from ovray.scoring.reading import RowReader
from ovray.scoring.records import Slice
from ovray.scoring.results import ChunkResults
from ovray.scoring.row_plan import RowPlan
from ovray.scoring.sinks import Sink


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Names some rows of the data set and says where they are."""

    #: Counted from 0 over the whole data set.
    start: int
    stop: int
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReport:
    """Says what became of a chunk whose results are put away, all of them."""

    rows: int
    size_bytes: int
    #: Seconds in which the replica's engine has run at least one inference, since its start.
    engine_busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringWork:
    """Holds what every chunk of a job has in common; travels to each replica once."""

    rows: RowPlan
    sink: Sink

    def open(self, engine: Engine) -> "ChunkScorer":
        """Makes the runner, in a replica.

        Arrow gets as many threads as the replica has cores; its first array to NumPy imports pandas, which is
        better done now than in the first chunk.
        """
        import pandas  # noqa: F401

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
        self._feeder: Feeder = ColumnFeeder() if plan.prepare is None else FunctionFeeder(plan.prepare)
        self._finish = None if plan.finish is None else plan.finish.function.load()

    def run(self, chunk: Chunk, cancelled: threading.Event) -> ChunkReport | tuple[ChunkReport, pa.Table]:
        """Scores a chunk and hands its results to the sink, unless it is cancelled before.

        Returns the report, and with it the results where the sink gives them back.

        Raises:
            DataError: rows cannot be read or prepared, or results not be written; nothing of them is left.
            ReplicaError: an inference failed.
        """
        rows = chunk.stop - chunk.start
        results = ChunkResults(self._work.rows, rows)
        reader = self._take_reader()
        try:
            kept = self._infer(chunk, reader, results, cancelled)
        finally:
            # Slots that run write into `results`: the chunk is not over before they have answered.
            results.wait()
            self._readers.put(reader)
        columns = [*_columns(kept, self._work.rows.kept), *self._finished(chunk, results)]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._work.rows.result_schema)
        stored = self._work.sink.store(chunk.start, chunk.stop, batch)
        report = ChunkReport(rows=rows, size_bytes=stored.size_bytes, engine_busy_s=self._engine.busy_s())
        return report if stored.rows is None else (report, stored.rows)

    def _infer(
        self, chunk: Chunk, reader: RowReader, results: ChunkResults, cancelled: threading.Event
    ) -> list[pa.RecordBatch]:
        """Starts an inference for every ``batch_rows`` rows; returns the kept columns."""
        kept: list[pa.RecordBatch] = []
        with _Filling(self._work.rows, self._engine, results) as filling:
            for rows in reader.read(chunk.slices):
                if cancelled.is_set():
                    raise ReplicaError(f"rows {chunk.start} to {chunk.stop} were cancelled")
                kept.append(rows.batch.select(list(self._work.rows.kept)))
                filling.add(self._feeder.feed(rows), rows.batch.num_rows)
            filling.flush()
        return kept

    def _finished(self, chunk: Chunk, results: ChunkResults) -> list[pa.Array]:
        plan = self._work.rows
        if plan.finish is None or self._finish is None:
            return results.take_columns()
        first, *others = chunk.slices
        where = f"{first.ref.name}, rows {first.start} to {first.stop} (the first is 0)"
        if others:
            where = f"{where}, to {others[-1].ref.name}, row {others[-1].stop - 1}"
        return plan.finish.finish(self._finish, results.take_arrays(), plan.outputs, where)

    def _take_reader(self) -> RowReader:
        try:
            return self._readers.get_nowait()
        except queue.Empty:
            return RowReader(self._work.rows.read_schema, rows_per_batch=self._work.rows.rows_per_read)


class _Filling:
    """Fills one slot after the other with rows and starts each that is full.

    Rows that were read together need not be inferred together: a slot is filled across the edges of row groups
    and files.  Leaving its ``with`` block gives back a slot that was not started.
    """

    def __init__(self, plan: RowPlan, engine: Engine, results: ChunkResults) -> None:
        self._plan = plan
        self._engine = engine
        self._results = results
        self._slot: Slot | None = None
        self._rows_in_slot = 0
        self._rows_started = 0

    def __enter__(self) -> "_Filling":
        return self

    def __exit__(self, *_: object) -> None:
        if self._slot is not None:
            self._engine.give_back(self._slot)

    def add(self, feed: Feed, rows: int) -> None:
        """Puts rows into slots."""
        at = 0
        while at < rows:
            taken = min(self._plan.batch_rows - self._rows_in_slot, rows - at)
            self._put(feed, at, taken)
            at += taken

    def flush(self) -> None:
        """Starts what is left; the rows that it lacks repeat what the slot held before and are not kept."""
        if self._slot is None:
            return
        slot, rows, first_row = self._slot, self._rows_in_slot, self._rows_started
        self._results.expect()
        self._slot, self._rows_in_slot = None, 0
        self._rows_started += rows

        def answer(outputs: Tensors | None, failure: Exception | None) -> None:
            self._results.arrive(first_row, rows, outputs, failure)

        self._engine.start(slot, rows, answer)

    def _put(self, feed: Feed, start: int, rows: int) -> None:
        if self._slot is None:
            self._slot = self._engine.acquire()
        for binding in self._plan.bindings:
            tensor = self._slot.inputs[binding.input_name]
            filled = slice(self._rows_in_slot, self._rows_in_slot + rows)
            feed.fill(binding, start, tensor[filled] if binding.has_batch else tensor[None])
        self._rows_in_slot += rows
        if self._rows_in_slot == self._plan.batch_rows:
            self.flush()


def _columns(batches: list[pa.RecordBatch], names: tuple[str, ...]) -> list[pa.Array]:
    return [_joined([batch.column(name) for batch in batches]) for name in names]


def _joined(pieces: list[pa.Array]) -> pa.Array:
    return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
