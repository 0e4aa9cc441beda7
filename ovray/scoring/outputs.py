"""Shapes results: from a model's outputs to columns of Arrow, under the outputs' names, and back.

A row's output that is one number is a scalar column; else a fixed-size list, flat, with the shape in the field's
metadata; a list of its own length where the model leaves the length open.  Types stay as they are.
May not enter: inference, files.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from ovray.errors import ConfigError, DataError
from ovray.replica.signature import Port
from ovray.scoring.columns import Binding
from ovray.scoring.elements import ELEMENTS, to_arrow

#: Field metadata: the shape of a row's output as a JSON list, where that has more than one dimension.
SHAPE_KEY = b"ovray.shape"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumn:
    """Describes the column that one output of the model becomes."""

    name: str
    field: pa.Field
    #: Of the output's values in memory.
    dtype: "np.dtype[np.generic]"
    #: ``None`` where the model leaves it open.
    values_per_row: int | None
    #: Of the output's values for one row, as the model has it; ``None`` as above.
    row_shape: tuple[int, ...] | None


def output_columns(outputs: Sequence[Port], bindings: Iterable[Binding]) -> tuple[OutputColumn, ...]:
    """Return a column for each output, in the model's order.

    Args:
        outputs: With the shapes that follow from the shapes of the inputs.
        bindings: They say whether the first dimension of an output counts rows.

    Raises ConfigError for an output that has no dimension for rows, or a type that Arrow lacks.
    """
    has_batch = any(binding.has_batch for binding in bindings)
    names = [port.name for port in outputs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the model has more than one output named {name!r}; rename one in the model")
    return tuple(_column(port, has_batch=has_batch) for port in outputs)


def output_schema(kept: pa.Schema, columns: Iterable[OutputColumn]) -> pa.Schema:
    """Return the schema of the result: the kept columns as they are, then the model's outputs."""
    return pa.schema([*kept, *(column.field for column in columns)])


def to_columns(results: Mapping[str, "np.ndarray[Any, Any]"], columns: Iterable[OutputColumn]) -> list[pa.Array]:
    """Return Arrow arrays for the results of some rows.

    Args:
        results: For each output by its name ``[n, ...]``, n rows; of the output's type, C order for no copy.
        columns: What ``output_columns`` decided.

    Lifetime:
        Numbers are not copied: the arrays look into the memory of ``results``, which must stay as it is until they
        are written.

    Raises DataError where an array has not the values that its column needs.
    """
    return [_array(results[column.name], column) for column in columns]


def to_array(column: pa.ChunkedArray, output: OutputColumn) -> "np.ndarray[Any, Any]":
    """Return results as the model gave them: ``[n, *row_shape]``; the way back from ``to_columns``.

    The array is new and the caller's own.  Where the model leaves the length open, it holds an array for each row.
    """
    rows = len(column)
    if output.row_shape is None:
        array: np.ndarray[Any, Any] = np.empty(rows, dtype=object)
        for at, cell in enumerate(column):
            array[at] = np.array(cell.values.to_numpy(zero_copy_only=False), dtype=output.dtype)
        return array
    array = np.empty((rows, *output.row_shape), dtype=output.dtype)
    at = 0
    for chunk in column.chunks:
        flat = chunk.flatten() if pa.types.is_fixed_size_list(chunk.type) else chunk
        values = flat.to_numpy(zero_copy_only=False)
        array[at : at + len(chunk)] = values.reshape(len(chunk), *output.row_shape)
        at += len(chunk)
    return array


def _column(port: Port, *, has_batch: bool) -> OutputColumn:
    field = _field(port, has_batch=has_batch)
    values_per_row: int | None = 1
    if pa.types.is_fixed_size_list(field.type):
        values_per_row = field.type.list_size
    elif pa.types.is_list(field.type):
        values_per_row = None
    dims = (port.shape or ())[1:] if has_batch else port.shape or ()
    return OutputColumn(
        name=port.name,
        field=field,
        dtype=ELEMENTS[port.element_type].dtype,
        values_per_row=values_per_row,
        row_shape=None if values_per_row is None else tuple(dim or 0 for dim in dims),
    )


def _field(port: Port, *, has_batch: bool) -> pa.Field:
    if port.element_type not in ELEMENTS:
        raise ConfigError(f"output {port.name!r} is of type {port.element_type}, which no column can hold")
    value_type = ELEMENTS[port.element_type].arrow
    if port.shape is None:
        return pa.field(port.name, pa.list_(value_type))
    if has_batch and not port.shape:
        raise ConfigError(
            f"output {port.name!r} is a single value, not one for each row; ovray scores models whose outputs"
            " have the rows as their first dimension"
        )
    dims = port.shape[1:] if has_batch else port.shape
    shape = [dim for dim in dims if dim is not None]
    if len(shape) < len(dims):
        return pa.field(port.name, pa.list_(value_type))
    if prod(shape) == 1:
        return pa.field(port.name, value_type)
    metadata = {SHAPE_KEY: json.dumps(shape).encode()} if len(shape) > 1 else None
    return pa.field(port.name, pa.list_(value_type, prod(shape)), metadata=metadata)


def _array(result: "np.ndarray[Any, Any]", column: OutputColumn) -> pa.Array:
    rows = len(result)
    kind = column.field.type
    flat = result.reshape(-1)
    if pa.types.is_fixed_size_list(kind):
        _check_size(flat.size, rows * kind.list_size, column, rows)
        return pa.FixedSizeListArray.from_arrays(to_arrow(flat, kind.value_type), type=kind)
    if pa.types.is_list(kind):
        length = flat.size // rows if rows else 0
        offsets = np.arange(rows + 1, dtype=np.int64) * length
        if offsets[-1] > np.iinfo(np.int32).max:
            raise DataError(f"output {column.name!r} holds {flat.size} values in {rows} rows; use a smaller batch")
        return pa.ListArray.from_arrays(
            to_arrow(offsets.astype(np.int32), pa.int32()), to_arrow(flat, kind.value_type), type=kind
        )
    _check_size(flat.size, rows, column, rows)
    return to_arrow(flat, kind)


def _check_size(found: int, wanted: int, column: OutputColumn, rows: int) -> None:
    if found != wanted:
        raise DataError(
            f"output {column.name!r} holds {found} values for {rows} rows where its column needs {wanted};"
            " ovray scores models whose outputs have the rows as their first dimension"
        )
