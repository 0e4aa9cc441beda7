"""Passes the outputs of a chunk through a caller's function, whose arrays become the columns of results.

May not enter: inference; how a function is found and called (user_functions.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ovray.errors import ConfigError, DataError
from ovray.replica.signature import Port
from ovray.scoring.bad_rows import StageRows
from ovray.scoring.bisecting import bisected
from ovray.scoring.cells import show_port
from ovray.scoring.elements import ELEMENTS
from ovray.scoring.outputs import OutputColumn, to_columns
from ovray.scoring.user_functions import Arrays, Function, UserFunction

#: A function is tried on so many rows of zeros before anything starts, to see which columns it gives.
_TRIED_ROWS = 2

_ELEMENT_OF = {element.dtype: name for name, element in ELEMENTS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionFinish:
    """Says which function makes the results, and of which outputs."""

    function: UserFunction
    #: What it is given: outputs as they are gathered, and the shape of a row of each.
    takes: tuple[OutputColumn, ...]
    row_shapes: tuple[tuple[int, ...], ...]
    #: Rows that it is given at once.
    batch_rows: int

    def finish(
        self,
        function: Function,
        gathered: Sequence[NDArray[Any]],
        columns: Sequence[OutputColumn],
        finished: StageRows,
    ) -> list[pa.Array]:
        """Returns result columns of some rows.

        Args:
            function: loaded.
            gathered: ``[n, values]`` for each output that it takes.
            columns: which it must give.
            finished: the n rows; takes the blame for those at which the function fails, or of which it gives other
                columns than of zeros.

        Raises:
            DataError: it fails, and no row is to fail.
        """

        def attempt(start: int, stop: int) -> list[pa.Array]:
            some = [array[start:stop] for array in gathered]
            return self._finish_batch(function, some, columns, finished.name_rows(start, stop))

        rows = len(gathered[0])
        made = [
            batch
            for at in range(0, rows, self.batch_rows)
            for _, _, batch in bisected(
                at, min(at + self.batch_rows, rows), attempt, finished.blame, finished.bad.none_alone
            )
        ]
        return [
            pa.concat_arrays([pa.array([], column.field.type), *(batch[at] for batch in made)])
            for at, column in enumerate(columns)
        ]

    def _finish_batch(
        self, function: Function, gathered: Sequence[NDArray[Any]], columns: Sequence[OutputColumn], where: str
    ) -> list[pa.Array]:
        made = self.function.call(function, self._named(gathered), len(gathered[0]), where)
        if set(made) != {column.name for column in columns}:
            names = ", ".join(column.name for column in columns)
            raise self.function.refusal(where, f"gave {', '.join(made) or 'nothing'}; of zeros it gave {names}")
        for column in columns:
            if not np.can_cast(made[column.name].dtype, column.dtype, "same_kind"):
                raise self.function.refusal(
                    where,
                    f"gave {made[column.name].dtype} for {column.name!r}; of zeros it gave {column.dtype}",
                )
        try:
            return to_columns({name: _as(array, name, columns) for name, array in made.items()}, columns)
        except (DataError, pa.ArrowException, ValueError, TypeError) as error:
            raise self.function.refusal(where, f"gave what cannot be stored: {error}") from error

    def _named(self, gathered: Sequence[NDArray[Any]]) -> Arrays:
        return {
            column.name: array.reshape(len(array), *row_shape)
            for column, row_shape, array in zip(self.takes, self.row_shapes, gathered, strict=True)
        }


def plan_finish(
    function: UserFunction,
    ports: Sequence[Port],
    takes: Sequence[OutputColumn],
    *,
    has_batch: bool,
    batch_rows: int,
) -> tuple[FunctionFinish, tuple[Port, ...]]:
    """Returns how results are made by a function, and what it makes, described as outputs are.

    Args:
        function: the caller's.
        ports: the outputs that it gets.
        takes: the same, as they are gathered.
        has_batch: whether the first dimension of an output counts rows.
        batch_rows: rows that the function is given at once.

    Raises:
        ConfigError: an output has rows of no known shape; the function fails on zeros, or what it makes of them
            cannot be columns.
    """
    for port, column in zip(ports, takes, strict=True):
        if column.values_per_row is None:
            raise ConfigError(
                f"{function.option} {function.name}: output {port.name!r} ({show_port(port)}) has rows of no known"
                " shape; choose others with --outputs"
            )
    finish = FunctionFinish(
        function=function,
        takes=tuple(takes),
        row_shapes=tuple(_row_shape(port, has_batch=has_batch) for port in ports),
        batch_rows=batch_rows,
    )
    zeros = {
        column.name: np.zeros((_TRIED_ROWS, *row_shape), column.dtype)
        for column, row_shape in zip(takes, finish.row_shapes, strict=True)
    }
    try:
        made = function.call(function.load(), zeros, _TRIED_ROWS, f"{_TRIED_ROWS} rows of zeros")
    except DataError as error:
        raise ConfigError(f"{error}; nothing was started") from error
    if not made:
        raise ConfigError(f"{function.option} {function.name} gave no columns for {_TRIED_ROWS} rows of zeros")
    rows_first: tuple[int | None, ...] = (None,) if has_batch else ()
    return finish, tuple(_described(name, array, rows_first, function) for name, array in made.items())


def _row_shape(port: Port, *, has_batch: bool) -> tuple[int, ...]:
    dims = port.shape or ()
    return tuple(dim or 0 for dim in (dims[1:] if has_batch else dims))


def _described(name: str, array: NDArray[Any], rows_first: tuple[int | None, ...], function: UserFunction) -> Port:
    is_object = array.dtype.kind == "O"
    is_text = array.dtype.kind == "U" or (is_object and all(isinstance(one, str) for one in array.flat))
    element = "string" if is_text else _ELEMENT_OF.get(array.dtype)
    if element is None or (is_object and not is_text):
        raise ConfigError(
            f"{function.option} {function.name} gave {array.dtype} for {name!r}; give arrays of numbers, booleans"
            " or text with rows of one shape"
        )
    return Port(name=name, names=(name,), shape=(*rows_first, *array.shape[1:]), element_type=element)


def _as(array: NDArray[Any], name: str, columns: Sequence[OutputColumn]) -> NDArray[Any]:
    dtype = next(column.dtype for column in columns if column.name == name)
    with np.errstate(over="ignore"):  # beyond half precision is infinite
        return array.astype(dtype, copy=False)
