"""Brings rows to a model's inputs: straight from their columns, or through a caller's function.

May not enter: inference; how columns become inputs (tensors.py); how a function is found and called
(user_functions.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ovray.errors import ConfigError
from ovray.replica.signature import Port, Signature
from ovray.scoring.bad_rows import BadRowError
from ovray.scoring.bisecting import bisected
from ovray.scoring.cells import Cells, cells_of, fit, is_list, show_port
from ovray.scoring.columns import Binding, find_columns
from ovray.scoring.elements import ELEMENTS
from ovray.scoring.on_error import OnError
from ovray.scoring.records import Rows
from ovray.scoring.tensors import fill, put, values_of
from ovray.scoring.user_functions import Arrays, Function, UserFunction


class Feed(Protocol):
    """Holds some rows and writes them where a model reads them."""

    def fill(self, binding: Binding, start: int, out: NDArray[Any]) -> None:
        """Writes rows ``start`` and on of one input into ``out`` ``[n, *row_shape]``, n rows.

        Raises BadRowError where one of them cannot be fed; ``out`` then holds anything.
        """
        ...


class Feeder(Protocol):
    """Makes feeds of rows."""

    def feed(self, rows: Rows) -> Feed:
        """Prepares rows; raises BadRowError where they cannot be prepared."""
        ...


class ColumnFeeder:
    """Takes inputs as the columns have them."""

    def feed(self, rows: Rows) -> Feed:
        return _ColumnFeed(rows)


class FunctionFeeder:
    """Takes inputs from a caller's function; in a replica, on several threads."""

    def __init__(self, preparation: "FunctionPreparation", bindings: Sequence[Binding]) -> None:
        self._preparation = preparation
        self._bindings = bindings
        self._function = preparation.function.load()

    def feed(self, rows: Rows) -> Feed:
        where = f"{rows.file}, rows {rows.first_row} to {rows.first_row + rows.batch.num_rows} (the first is 0)"
        arrays = self._preparation.prepare(self._function, rows.batch, where)
        for binding in self._bindings:
            (name,) = binding.columns
            problem = _problem(arrays[name], binding) if name in arrays else "is not there any more"
            if problem:
                raise self._preparation.function.refusal(where, f"gave arrays that do not fit: {name!r} {problem}")
        return _ArrayFeed(arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPreparation:
    """Says which function makes the inputs, and of which columns."""

    function: UserFunction
    columns: tuple[str, ...]

    def prepare(self, function: Function, batch: pa.RecordBatch, where: str) -> Arrays:
        """Calls the function, loaded, on its columns of a batch."""
        arrays = {name: as_array(batch.column(name)) for name in self.columns}
        return self.function.call(function, arrays, batch.num_rows, where)


class _ColumnFeed:
    """Unpacks a column once for all inferences that its rows go to; with a bad row among them, piece by piece."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        #: By input; ``None`` where not all rows can be fed.
        self._values: dict[str, tuple[NDArray[Any], ...] | None] = {}

    def fill(self, binding: Binding, start: int, out: NDArray[Any]) -> None:
        values = self._values_for(binding)
        if values is None:
            fill(self._rows.slice(start, start + len(out)), binding, out)
        else:
            put(values, binding, start, out)

    def _values_for(self, binding: Binding) -> tuple[NDArray[Any], ...] | None:
        name = binding.input_name
        if name not in self._values:
            try:
                self._values[name] = values_of(self._rows, binding)
            except BadRowError:
                self._values[name] = None  # met again by those who fill with it
        return self._values[name]


@dataclass(frozen=True, slots=True)
class _ArrayFeed:
    arrays: Arrays

    def fill(self, binding: Binding, start: int, out: NDArray[Any]) -> None:
        (name,) = binding.columns
        made = self.arrays[name]
        with np.errstate(over="ignore"):  # as for columns
            np.copyto(out, made[start : start + len(out)].reshape(out.shape), casting="unsafe")


def columns_for_function(schema: pa.Schema, options: Sequence[str]) -> tuple[str, ...]:
    """Returns the columns that a function gets: those named after ``--input``, by default all."""
    if not options:
        return tuple(schema.names)
    found = [name for option in options for name in find_columns(schema, option, option)]
    return tuple(dict.fromkeys(found))


def try_preparation(preparation: FunctionPreparation, sample: pa.RecordBatch, on_error: OnError) -> Arrays:
    """Returns what a function makes of the first rows; of some of them, where bad ones may be among them.

    Raises:
        ConfigError: it fails, with all of them.
    """
    function = preparation.function.load()

    def attempt(start: int, stop: int) -> Arrays:
        rows = sample.slice(start, stop - start)
        return preparation.prepare(function, rows, f"the first {sample.num_rows} rows")

    failed: list[BadRowError] = []
    try:
        if on_error is OnError.RAISE:
            return attempt(0, sample.num_rows)
        made = list(bisected(0, sample.num_rows, attempt, lambda _, error: failed.append(error)))
        if not made:
            raise failed[0]
    except BadRowError as error:
        raise ConfigError(f"{error}; nothing was started") from error
    _, _, arrays = max(made, key=lambda run: run[1] - run[0])
    return arrays


def bind_arrays(signature: Signature, arrays: Arrays, function: UserFunction) -> tuple[Binding, ...]:
    """Returns how arrays become the inputs of a model, in the model's order.

    Raises:
        ConfigError: an input gets no array, an array has no input, or one does not fit.
    """
    names = [name for port in signature.inputs for name in {port.name, *port.names}]
    unknown = [name for name in arrays if name not in names]
    if unknown:
        inputs = ", ".join(f"{port.name!r} ({show_port(port)})" for port in signature.inputs)
        raise ConfigError(
            f"{function.option} {function.name} gave {unknown[0]!r}, no input of the model, which has {inputs}"
        )
    return tuple(_bind_array(port, index, arrays, function) for index, port in enumerate(signature.inputs))


def value_type(array: NDArray[Any]) -> pa.DataType:
    """Returns what an array holds, as Arrow calls it."""
    return pa.string() if array.dtype.kind in "OU" else pa.from_numpy_dtype(array.dtype)


def as_array(column: pa.Array) -> NDArray[Any]:
    """Returns a column as functions get it: ``[n, ...]`` where its lists are regular, else objects.

    Lifetime: a view of Arrow's memory where the layouts agree, and then not to be written to.
    """
    shape = cells_of(column).shape
    flat = column.storage if isinstance(column.type, pa.BaseExtensionType) else column
    if pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    whole = flat
    is_regular = None not in shape
    while is_regular and is_list(flat.type):
        is_regular = not flat.null_count
        flat = pc.list_flatten(flat)
    array: NDArray[Any] = (flat if is_regular else whole).to_numpy(zero_copy_only=False)
    return array.reshape(len(column), *(length or 0 for length in shape)) if is_regular else array


def _bind_array(port: Port, index: int, arrays: Arrays, function: UserFunction) -> Binding:
    names = [name for name in arrays if name == port.name or name in port.names]
    called = f"{function.option} {function.name}"
    if len(names) != 1:
        raise ConfigError(
            f"{called} gave {', '.join(map(repr, arrays)) or 'nothing'}: it must give one array for input"
            f" {port.name!r} ({show_port(port)})"
        )
    array = arrays[names[0]]
    if array.dtype.kind not in "fiubOU":
        raise ConfigError(f"{called}: {names[0]!r} holds {array.dtype}; give numbers, booleans or text")
    found = fit(port, Cells(type=value_type(array), shape=array.shape[1:]))
    if isinstance(found, str):
        raise ConfigError(f"{called}: {names[0]!r} cannot become input {port.name!r} ({show_port(port)}): {found}")
    binding = Binding(
        input_name=port.name,
        index=index,
        columns=(names[0],),
        element_type=port.element_type,
        row_shape=found.row_shape,
        cell_shape=array.shape[1:],
        has_batch=found.has_batch,
    )
    problem = _problem(array, binding)
    if problem:
        raise ConfigError(f"{called}: {names[0]!r} {problem}")
    return binding


def _problem(made: NDArray[Any], binding: Binding) -> str:
    """Says why an array cannot become the input it was bound to; empty if it can."""
    wanted = ELEMENTS[binding.element_type].dtype
    if made.shape[1:] != binding.cell_shape:
        return f"has rows of the shape {list(made.shape[1:])}, the first rows had {list(binding.cell_shape)}"
    if wanted.kind == "O":
        can_be = made.dtype.kind in "OU"
    else:
        # Whole numbers that an input cannot hold would wrap around unseen.
        can_be = made.dtype.kind in "fiub" if wanted.kind == "f" else np.can_cast(made.dtype, wanted, "safe")
    return "" if can_be else f"holds {made.dtype}, which may not fit into {binding.element_type}; convert it"
