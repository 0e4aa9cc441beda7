"""Turns rows into the arrays that a model takes, with one copy from Arrow's memory into the caller's.

May not enter: which column is meant (columns.py), OpenVINO's tensors, loops over rows.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ovray.scoring.bad_rows import BadRowError
from ovray.scoring.cells import is_list, is_text
from ovray.scoring.columns import Binding
from ovray.scoring.elements import ELEMENTS, to_numpy
from ovray.scoring.records import Rows

#: Characters of a text that a message shows.
_TEXT_SHOWN = 40

# Element types are known only at run time.
Array = np.ndarray[Any, np.dtype[Any]]


def to_arrays(rows: Rows, bindings: Iterable[Binding]) -> dict[str, Array]:
    """Return a new array ``[n, *row_shape]`` for each input; see ``fill``."""
    arrays = {}
    for binding in bindings:
        shape = (rows.batch.num_rows, *binding.row_shape)
        arrays[binding.input_name] = np.empty(shape, dtype=ELEMENTS[binding.element_type].dtype)
        fill(rows, binding, arrays[binding.input_name])
    return arrays


def fill(rows: Rows, binding: Binding, out: Array) -> None:
    """Write one input's values of some rows into ``out``.

    Args:
        rows: n rows with at least the binding's columns.
        binding: What ``bind`` decided.
        out: ``[n, *row_shape]``, C order, of the input's element type; ``object`` for text.

    Raises:
        BadRowError: A value is null or text that is no number, a list has another length than those of the first
            rows, or a whole number is beyond the input's type; the message names file, row and column.
    """
    put(values_of(rows, binding), binding, 0, out)


def values_of(rows: Rows, binding: Binding) -> tuple[Array, ...]:
    """Return all values that rows have for one input, flat, an array for each of its columns.

    Lifetime: views of Arrow's memory wherever the layouts agree.  Raises BadRowError as ``fill``.
    """
    return tuple(_values(rows, binding, column) for column in binding.columns)


def put(values: Sequence[Array], binding: Binding, start: int, out: Array) -> None:
    """Write rows ``start`` and on of what ``values_of`` gave into ``out``, see ``fill``."""
    rows, values_per_row = len(out), prod(binding.row_shape)
    table = out.reshape(rows, values_per_row)
    with np.errstate(over="ignore"):  # a float beyond a narrower type is infinite, as in OpenVINO
        if len(values) == 1:
            flat = values[0][start * values_per_row : (start + rows) * values_per_row]
            np.copyto(table, flat.reshape(table.shape), casting="unsafe")
            return
        for at, column in enumerate(values):
            np.copyto(table[:, at], column[start : start + rows], casting="unsafe")


def _values(rows: Rows, binding: Binding, column: str) -> Array:
    """Return all values of a column, flat; a view of Arrow's memory wherever the layouts agree."""
    array: pa.Array = rows.batch.column(column)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    values_per_row = 1
    for length in _list_lengths(array.type, binding.cell_shape):
        _refuse_nulls(array, rows, column, values_per_row)
        _refuse_other_lengths(array, rows, column, (length, values_per_row))
        array = pc.list_flatten(array)
        values_per_row *= length
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    _refuse_nulls(array, rows, column, values_per_row)
    if is_text(array.type) and ELEMENTS[binding.element_type].dtype.kind != "O":
        array = _parsed(array, rows, binding, (column, values_per_row))
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    _refuse_overflow(array, rows, binding, (column, values_per_row))
    return to_numpy(array)


def _list_lengths(of: pa.DataType, cell_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lengths, level by level; a tensor column is stored as one level, whatever its rank."""
    levels = 0
    while is_list(of):
        levels += 1
        of = of.value_type
    return cell_shape if levels == len(cell_shape) else (prod(cell_shape),)


def _refuse_nulls(array: pa.Array, rows: Rows, column: str, values_per_row: int) -> None:
    if array.null_count:
        at = pc.index(array.is_null(), True).as_py() // values_per_row
        raise _refusal(rows, at, f"column {column!r} is null; fill or drop such rows first")


def _refuse_other_lengths(array: pa.Array, rows: Rows, column: str, level: tuple[int, int]) -> None:
    length, values_per_row = level
    if pa.types.is_fixed_size_list(array.type):
        return
    lengths = to_numpy(pc.list_value_length(array))
    others = np.flatnonzero(lengths != length)
    if len(others):
        at = int(others[0])
        raise _refusal(
            rows,
            at // values_per_row,
            f"column {column!r} holds a list of {lengths[at]} where the first rows hold {length}; rows need to be"
            " of one shape",
        )


def _refuse_overflow(array: pa.Array, rows: Rows, binding: Binding, where: tuple[str, int]) -> None:
    """Refuse whole numbers that the input's type cannot hold; NumPy would wrap them around."""
    dtype = ELEMENTS[binding.element_type].dtype
    if dtype.kind not in "iu" or not pa.types.is_integer(array.type) or not len(array):
        return
    if np.can_cast(array.type.to_pandas_dtype(), dtype, casting="safe"):
        return
    limits: np.iinfo[Any] = np.iinfo(dtype.str)
    found = pc.min_max(array).as_py()
    if limits.min <= found["min"] and found["max"] <= limits.max:
        return
    column, values_per_row = where
    worst = found["min"] if found["min"] < limits.min else found["max"]
    at = pc.index(array, worst).as_py() // values_per_row
    raise _refusal(
        rows,
        at,
        f"column {column!r} holds {worst}, input {binding.input_name!r} ({binding.element_type}) takes"
        f" {limits.min} to {limits.max}",
    )


def _parsed(array: pa.Array, rows: Rows, binding: Binding, where: tuple[str, int]) -> pa.Array:
    """Return text as the numbers that it spells; see ``cells.with_numbers``."""
    kind = pa.int64() if ELEMENTS[binding.element_type].dtype.kind in "iu" else pa.float64()
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        column, values_per_row = where
        at = next(at for at, text in enumerate(array) if not _spells(text, kind))
        raise _refusal(
            rows, at // values_per_row, f"column {column!r} holds {_shown(array[at])}, which is no number"
        ) from None


def _spells(text: pa.Scalar, kind: pa.DataType) -> bool:
    try:
        text.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _shown(text: pa.Scalar) -> str:
    whole = text.as_py()
    return repr(whole if len(whole) <= _TEXT_SHOWN else whole[:_TEXT_SHOWN] + "...")


def _refusal(rows: Rows, index: int, problem: str) -> BadRowError:
    return BadRowError(f"{rows.name_row(index)}: {problem}", problem, index)
