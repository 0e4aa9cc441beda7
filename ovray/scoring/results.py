"""Gathers what the inferences of one chunk give, in any order, into columns with the chunk's rows in order.

May not enter: inference, files, what a column looks like (outputs.py).
"""

import threading
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ovray.replica.engine import Tensors
from ovray.scoring.outputs import OutputColumn, to_columns
from ovray.scoring.reduction import reduce
from ovray.scoring.row_plan import RowPlan


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
        self._failure: Exception | None = None

    def expect(self) -> None:
        """Counts an inference that is about to start.

        Raises what an earlier inference failed with, so that the rest is not tried for nothing.
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._awaited += 1

    def arrive(self, first_row: int, rows: int, outputs: Tensors | None, failure: Exception | None) -> None:
        """Takes in what one inference gave; copies, because the outputs are views."""
        try:
            if outputs is not None:
                self._store(first_row, rows, outputs)
        except (ValueError, pa.ArrowException) as error:
            failure = error
        finally:
            with self._changed:
                self._awaited -= 1
                self._failure = self._failure or failure
                self._changed.notify_all()

    def wait(self) -> None:
        """Waits for every inference that was expected, failed ones too; each of them answers."""
        with self._changed:
            while self._awaited:
                self._changed.wait()

    def take_columns(self) -> list[pa.Array]:
        """Waits, then returns a column for each output, over memory that is not used again.

        Raises what the first failed inference failed with.
        """
        self.wait()
        if self._failure is not None:
            raise self._failure
        fixed = dict(zip(self._fixed, to_columns(self._fixed, self._fixed_columns()), strict=True))
        opened = {
            name: pa.concat_arrays([pieces[row] for row in sorted(pieces)]) for name, pieces in self._open.items()
        }
        return [{**fixed, **opened}[column.name] for column in self._plan.gathered]

    def take_arrays(self) -> list[NDArray[Any]]:
        """Waits, then returns ``[rows, values]`` for each output, over memory that is not used again.

        For outputs of fixed length.  Raises what the first failed inference failed with.
        """
        self.wait()
        if self._failure is not None:
            raise self._failure
        return [self._fixed[column.name] for column in self._plan.gathered]

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
