"""Gathers what the inferences of one chunk give, in any order, into columns with the chunk's rows in order.

May not enter: inference, files, what a column looks like (outputs.py).
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ovray.errors import DataError
from ovray.replica.engine import Tensors
from ovray.scoring.outputs import OutputColumn, to_columns
from ovray.scoring.reduction import reduce
from ovray.scoring.row_plan import RowPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedBatch:
    """Is an inference that gave no results, and what it was given."""

    #: Counted over the rows of the chunk that were inferred.
    first_row: int
    rows: int
    failure: Exception
    #: By input, the rows from its start on.
    inputs: Tensors


class ChunkResults:
    """Holds the outputs of a chunk and knows when the last inference has answered.

    ``arrive`` is called on the engine's threads, the rest on one other thread.
    """

    def __init__(self, plan: RowPlan, rows: int) -> None:
        """Makes room for ``rows`` rows of each result; those of open length are kept as they come."""
        self._plan = plan
        columns = plan.gathered
        self._fixed: dict[str, NDArray[Any]] = {
            column.name: np.empty((rows, column.values_per_row), dtype=column.dtype)
            for column in columns
            if column.values_per_row is not None
        }
        #: Arrow arrays of the other outputs by the first row of their inference.
        self._open: dict[str, dict[int, pa.Array]] = {
            column.name: {} for column in columns if column.values_per_row is None
        }
        self._changed = threading.Condition()
        self._awaited = 0
        self._failed: list[FailedBatch] = []

    def expect(self) -> None:
        """Counts an inference that is about to start."""
        with self._changed:
            self._awaited += 1

    def arrive(
        self, first_row: int, rows: int, outputs: Tensors | None, failure: Exception | None, inputs: Tensors
    ) -> None:
        """Takes in what one inference gave; copies, because outputs and inputs are views.

        Args:
            first_row: counted over the rows that were inferred.
            rows: how many they are.
            outputs: what it gave; ``None`` where it failed.
            failure: why.
            inputs: what it was given; kept where it failed, so that its rows can be tried again.
        """
        failed: FailedBatch | None = None
        try:
            if outputs is not None:
                failure = self.store(first_row, rows, outputs)
            if failure is not None:
                copies = {name: array.copy() for name, array in inputs.items()}
                failed = FailedBatch(first_row=first_row, rows=rows, failure=failure, inputs=copies)
        finally:
            with self._changed:
                self._awaited -= 1
                if failed is not None:
                    self._failed.append(failed)
                self._changed.notify_all()

    def take_failed(self) -> list["FailedBatch"]:
        """Returns the inferences that have failed since this was last asked."""
        with self._changed:
            failed, self._failed = self._failed, []
        return failed

    def store(self, first_row: int, rows: int, outputs: Tensors) -> Exception | None:
        """Takes in outputs of some rows; returns why they cannot be results, ``None`` if they can."""
        try:
            self._store(first_row, rows, outputs)
        except (ValueError, DataError, pa.ArrowException) as error:
            return error
        return None

    def wait(self) -> None:
        """Waits for every inference that was expected, failed ones too; each of them answers."""
        with self._changed:
            while self._awaited:
                self._changed.wait()

    def take_columns(self, good: "NDArray[np.bool_] | None") -> list[pa.Array]:
        """Waits, then returns a column for each output, over memory that is not used again.

        Args:
            good: which rows that were inferred have results; ``None`` for all.
        """
        taken = self._take(good)
        fixed = dict(zip(taken, to_columns(taken, self._fixed_columns()), strict=True))
        opened = {
            column.name: _joined(self._open[column.name], column)
            for column in self._plan.gathered
            if column.name in self._open
        }
        return [{**fixed, **opened}[column.name] for column in self._plan.gathered]

    def take_arrays(self, good: "NDArray[np.bool_] | None") -> list[NDArray[Any]]:
        """Waits, then returns ``[rows, values]`` for each output, over memory that is not used again.

        For outputs of fixed length; ``good`` as for ``take_columns``.
        """
        taken = self._take(good)
        return [taken[column.name] for column in self._plan.gathered]

    def _take(self, good: "NDArray[np.bool_] | None") -> dict[str, NDArray[Any]]:
        self.wait()
        if good is None:
            return self._fixed
        # Memory was taken for every row of the chunk, those that were not inferred, too.
        return {name: array[: len(good)][good] for name, array in self._fixed.items()}

    def _fixed_columns(self) -> list[OutputColumn]:
        return [column for column in self._plan.gathered if column.name in self._fixed]

    def _store(self, first_row: int, rows: int, outputs: Tensors) -> None:
        batch_rows = self._plan.batch_rows
        results = reduce(outputs, self._plan.reductions, batch_rows)
        for column in self._plan.gathered:
            # One inference of one row may lack the batch dimension; the others have it first.
            result = results[column.name][:rows] if batch_rows > 1 else results[column.name]
            if column.name in self._fixed:
                target = self._fixed[column.name][first_row : first_row + rows]
                with np.errstate(over="ignore"):  # beyond half precision is infinite
                    np.copyto(target, result.reshape(target.shape))
            else:
                by_row = {column.name: np.array(result, dtype=column.dtype).reshape(rows, -1)}
                self._open[column.name][first_row] = to_columns(by_row, [column])[0]


def _joined(pieces: dict[int, pa.Array], column: OutputColumn) -> pa.Array:
    if not pieces:
        return pa.array([], column.field.type)
    return pa.concat_arrays([pieces[row] for row in sorted(pieces)])
