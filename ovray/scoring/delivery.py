"""Takes results of chunks as they are done, and makes of them what the caller gets.

Results come as references: what stays in Ray's object store is never looked at here, what goes to the caller's
memory is copied out of the store, which replicas need for themselves.
May not enter: how chunks are scored, threads (iteration.py).
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from ovray.driver.job import Commit
from ovray.errors import ReplicaError
from ovray.scoring.flow import Flow
from ovray.scoring.held import Held
from ovray.scoring.held_rows import HeldRows
from ovray.scoring.ray_datasets import to_dataset
from ovray.scoring.records import Source, StoredTable
from ovray.scoring.row_plan import RowPlan
from ovray.scoring.stored_tables import fetch

if TYPE_CHECKING:
    import pandas as pd


def bring(start: int, stop: int, reference: Any) -> pa.Table:
    """Returns results of some rows in this process's own memory.

    Raises:
        ReplicaError: they are lost with the host that had them.
    """
    try:
        table = fetch(StoredTable(name="the result", reference=reference))
    except OSError as error:
        raise ReplicaError(f"rows {start} to {stop} were scored, but {error}; start again") from error
    memory = pa.default_cpu_memory_manager()
    return pa.Table.from_batches([batch.copy_to(memory) for batch in table.to_batches()], table.schema)


class InOrder:
    """Puts what is done in any order into the order of rows."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[int, Any]] = {}
        #: Everything before this row was handed on.
        self.row = 0

    def add(self, start: int, stop: int, what: Any) -> Iterator[tuple[int, int, Any]]:
        """Takes in what there is of rows ``start`` to ``stop``; yields what is next in order now."""
        self._waiting[start] = (stop, what)
        while self.row in self._waiting:
            start = self.row
            self.row, found = self._waiting.pop(start)
            yield start, self.row, found


class Collector(Protocol):
    """Makes of results what ``score`` returns."""

    #: What replicas are to make of rows.
    plan: RowPlan

    def deliver(self, commit: Commit, reference: Any) -> None:
        """Takes results of rows that were not delivered before; raises ReplicaError where they are lost."""
        ...

    def result(self) -> Any:
        """Returns all results, once; they are let go of here."""
        ...


class InOneFrame:
    """Makes one DataFrame, numbered from 0."""

    def __init__(self, plan: RowPlan) -> None:
        self.plan = plan
        self._tables: dict[int, pa.Table] = {}

    def deliver(self, commit: Commit, reference: Any) -> None:
        self._tables[commit.start] = bring(commit.start, commit.stop, reference)

    def result(self) -> "pd.DataFrame":
        frame: pd.DataFrame = _joined(self._tables).to_pandas(self_destruct=True)
        return frame


class InTheirShape:
    """Puts results beside the caller's own rows, in the shape of those."""

    def __init__(self, plan: RowPlan, held: Held) -> None:
        self.plan = plan.without_kept()
        self._kept = plan.kept
        self._held = held
        self._tables: dict[int, pa.Table] = {}

    def deliver(self, commit: Commit, reference: Any) -> None:
        self._tables[commit.start] = bring(commit.start, commit.stop, reference)

    def result(self) -> Any:
        return self._held.with_results(self._kept, _joined(self._tables), self.plan.outputs)


class BatchByBatch:
    """Gives each batch of rows its results, in the shape of the batch, as soon as it has them all."""

    def __init__(self, plan: RowPlan, rows: HeldRows, empty: Sequence[Held], flow: Flow) -> None:
        """Begins.

        Args:
            plan: what becomes of a row.
            rows: the batches, as they come.
            empty: batches without rows that came before the first of ``rows``.
            flow: is told how many rows there are results of.
        """
        self.plan = plan.without_kept()
        self._kept = plan.kept
        self._rows = rows
        self._flow = flow
        self._in_order = InOrder()
        #: Results of batches that do not have all of theirs yet.
        self._results: pa.Table = self.plan.result_schema.empty_table()
        self._batches = [held.with_results(self._kept, self._results, self.plan.outputs) for held in empty]

    def deliver(self, commit: Commit, reference: Any) -> None:
        start, stop = commit.start, commit.stop
        self._flow.done(stop - start)
        for _, _, results in self._in_order.add(start, stop, bring(start, stop, reference)):
            self._results = pa.concat_tables([self._results, results])
            self._flow.taken(results.num_rows)
        self._hand_out()

    def result(self) -> list[Any]:
        self._hand_out()
        return self._batches

    def _hand_out(self) -> None:
        while (held := self._rows.take_batch(self._in_order.row)) is not None:
            rows = held.table.num_rows
            results, self._results = self._results.slice(0, rows), self._results.slice(rows)
            self._batches.append(held.with_results(self._kept, results, self.plan.outputs))


class InOneTable:
    """Makes one Arrow table of record batches that were read from a stream."""

    def __init__(self, batches: BatchByBatch) -> None:
        self.plan = batches.plan
        self.deliver = batches.deliver
        self._batches = batches

    def result(self) -> pa.Table:
        return pa.Table.from_batches(self._batches.result())


class AsDataset:
    """Makes a Ray Data set of blocks that stay where they are."""

    def __init__(self, plan: RowPlan) -> None:
        self.plan = plan
        self._references: dict[int, Any] = {}

    def deliver(self, commit: Commit, reference: Any) -> None:
        self._references[commit.start] = reference

    def result(self) -> Any:
        return to_dataset([self._references[start] for start in sorted(self._references)])


class PutAway:
    """Lets go of batches whose results are in a folder."""

    def __init__(self, source: Source, flow: Flow) -> None:
        self._source = source
        self._flow = flow
        self._in_order = InOrder()

    def deliver(self, commit: Commit, reference: Any) -> None:
        """Takes note that rows are done; there is nothing to fetch."""
        self._flow.done(commit.stop - commit.start)
        self._flow.taken(commit.stop - commit.start)
        for _, row, _ in self._in_order.add(commit.start, commit.stop, None):
            if isinstance(self._source, HeldRows):
                self._source.drop_until(row)


class Framer(Protocol):
    """Makes of results what ``iter_score`` yields."""

    #: What replicas are to make of rows.
    plan: RowPlan

    def frame(self, start: int, stop: int, results: pa.Table) -> "pd.DataFrame":
        """Returns results of some rows, and with them the columns that are carried over."""
        ...

    def forget(self, row: int) -> None:
        """Lets go of what there is of rows before this one."""
        ...


class NumberedFrames:
    """Makes DataFrames whose index is the number of the row."""

    def __init__(self, plan: RowPlan) -> None:
        self.plan = plan

    def frame(self, start: int, stop: int, results: pa.Table) -> "pd.DataFrame":
        import pandas as pd

        frame: pd.DataFrame = results.to_pandas()
        frame.index = pd.RangeIndex(start, stop)
        return frame

    def forget(self, row: int) -> None:
        """Does nothing: nothing is held."""


class FramesOfHeld:
    """Puts results beside the caller's own rows, as DataFrames."""

    def __init__(self, plan: RowPlan, rows: HeldRows) -> None:
        self.plan = plan.without_kept()
        self._kept = plan.kept
        self._rows = rows

    def frame(self, start: int, stop: int, results: pa.Table) -> "pd.DataFrame":
        frame = self._rows.frame(self._kept, start, stop)
        made = results.to_pandas()
        for output in self.plan.outputs:
            frame[output.name] = made[output.name].array
        return frame

    def forget(self, row: int) -> None:
        self._rows.drop_until(row)


def _joined(tables: dict[int, pa.Table]) -> pa.Table:
    """Returns results in the order of rows, and forgets them."""
    in_order = [tables[start] for start in sorted(tables)]
    tables.clear()
    return pa.concat_tables(in_order)
