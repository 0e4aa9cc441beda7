"""Decides which columns of a data set feed which inputs of a model, and which are carried over.

All of it happens at the start, from schema, options and the first rows; every doubt is a ConfigError that says
what there is and how to choose.  May not enter: files, the values of rows (tensors.py turns those into arrays).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import pyarrow as pa

from ovray.errors import ConfigError
from ovray.replica.signature import Port, Signature
from ovray.scoring.cells import Cells, Fit, cells_of, expected, fit, row_size, show_port

#: How many columns a message lists before it says "and N more".
_COLUMNS_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Says which columns become one input of the model, and how."""

    input_name: str
    #: The input's place among the model's inputs.
    index: int
    #: One column, or several of single values that make one vector.
    columns: tuple[str, ...]
    element_type: str
    #: Shape of one row; an array of n rows is ``[n, *row_shape]``.
    row_shape: tuple[int, ...]
    #: List lengths of a cell, outermost first; empty for single values.
    cell_shape: tuple[int, ...]
    #: False where a row fills the whole input: then one inference takes one row, without a batch dimension.
    has_batch: bool


def bind(signature: Signature, sample: pa.RecordBatch, options: Sequence[str] = ()) -> tuple[Binding, ...]:
    """Return a binding for each input of the model, in the model's order.

    Args:
        signature: What the model takes.
        sample: The first rows of the data set, with all of its columns.
        options: As typed after ``--input``: ``COL``, ``NAME=COL``, either with wildcards in ``COL``.

    Raises:
        ConfigError: An option names no input or no column; a column cannot become its input; or it is open which
            column is meant.
    """
    binder = _Binder(signature, sample)
    unnamed = []
    for option in options:
        port, pattern = binder.split(option)
        columns = find_columns(sample.schema, pattern, option)
        if port is None:
            unnamed.append((columns, option))
        else:
            binder.bind(port, columns, option)
    for columns, option in unnamed:
        binder.bind(binder.port_for(columns, option), columns, option)
    # Columns with the names of inputs go to those first, so that they are not in question for the others.
    for port in sorted(binder.unbound(), key=lambda port: not binder.named_columns(port)):
        binder.choose(port)
    return tuple(binder.bindings[port.name] for port in signature.inputs)


def find_columns(schema: pa.Schema, pattern: str, option: str) -> tuple[str, ...]:
    """Return the columns that a pattern finds, in the data set's order.

    Raises ConfigError where it finds none; ``option`` is what was typed after ``--input``.
    """
    if pattern in schema.names:
        return (pattern,)
    found = tuple(name for name in schema.names if fnmatchcase(name, pattern))
    if not found:
        raise ConfigError(f"--input {option!r}: {_no_such_column(pattern, schema)}")
    return found


def kept_columns(
    schema: pa.Schema, fed: Iterable[str], outputs: Iterable[str], keep: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the columns that are carried over: those of ``keep``, by default all that are not ``fed``.

    Raises ConfigError where ``keep`` names no column, or a column has the name of an output of the model.
    """
    if keep is None:
        left_out = set(fed)
        kept = tuple(name for name in schema.names if name not in left_out)
    else:
        kept = tuple(dict.fromkeys(keep))
    for name in kept:
        if name not in schema.names:
            raise ConfigError(f"column {name!r} cannot be kept: {_no_such_column(name, schema)}")
    clashes = [name for name in kept if name in set(outputs)]
    if clashes:
        raise ConfigError(
            f"column {clashes[0]!r} has the name of an output of the model, so the result would have it twice;"
            " list the columns to carry over with --keep, without this one, or rename it"
        )
    return kept


class _Binder:
    """Holds what is bound so far."""

    def __init__(self, signature: Signature, sample: pa.RecordBatch) -> None:
        self._ports = signature.inputs
        self._sample = sample
        self._schema: pa.Schema = sample.schema
        self._cells: dict[str, Cells] = {}
        self.bindings: dict[str, Binding] = {}

    def unbound(self) -> list[Port]:
        return [port for port in self._ports if port.name not in self.bindings]

    def named_columns(self, port: Port) -> list[str]:
        """Return the columns that have one of the input's names."""
        return [name for name in self._schema.names if name in {port.name, *port.names}]

    def split(self, option: str) -> tuple[Port | None, str]:
        """Part ``NAME=COL``; a column that has the whole text as its name comes first."""
        name, equals, pattern = option.partition("=")
        if not equals or option in self._schema.names:
            return None, option
        for port in self._ports:
            if name in port.names or name == port.name:
                return port, pattern
        inputs = ", ".join(repr(port.name) for port in self._ports)
        raise ConfigError(f"--input {option!r}: the model has no input {name!r}; it has {inputs}")

    def port_for(self, columns: tuple[str, ...], option: str) -> Port:
        """Return the input that columns are for when the option does not say."""
        if len(self._ports) == 1:
            return self._ports[0]
        free = self.unbound()
        fitting = [port for port in free if columns[0] in port.names or columns[0] == port.name]
        fitting = fitting or [port for port in free if not isinstance(self._fit(port, columns), str)]
        if len(fitting) != 1:
            inputs = ", ".join(repr(port.name) for port in self._ports)
            raise ConfigError(
                f"--input {option!r}: the model has the inputs {inputs}; say which is meant,"
                f" as in --input {self._ports[0].name}={option}"
            )
        return fitting[0]

    def bind(self, port: Port, columns: tuple[str, ...], option: str) -> None:
        """Bind what the caller chose."""
        if port.name in self.bindings:
            taken = _quoted(self.bindings[port.name].columns)
            raise ConfigError(
                f"--input {option!r}: input {port.name!r} already takes {taken};"
                " several columns of numbers make one input through a wildcard, as in --input 'pixel_*'"
            )
        found = self._fit(port, columns)
        if isinstance(found, str):
            raise ConfigError(self._misfit(port, columns, found))
        self._bind(port, columns, found)

    def choose(self, port: Port) -> None:
        """Bind the column with the input's name, else the only one that fits."""
        taken = {column for binding in self.bindings.values() for column in binding.columns}
        free = [name for name in self._schema.names if name not in taken]
        named = [name for name in self.named_columns(port) if name in free]
        fits = {name: self._fit_alone(port, name) for name in named or free}
        fitting = {name: found for name, found in fits.items() if isinstance(found, Fit)}
        if len(fitting) == 1:
            name, found = fitting.popitem()
            self._bind(port, (name,), found)
        elif fitting:
            raise ConfigError(
                f"input {port.name!r} ({show_port(port)}) could be meant to take any of the columns"
                f" {_quoted(fitting)}; choose one with --input {port.name}=COLUMN"
            )
        elif named:
            raise ConfigError(self._misfit(port, (named[0],), str(fits[named[0]])))
        else:
            raise ConfigError(
                f"no column can become input {port.name!r}: {expected(port)}; {_list_columns(self._schema)};"
                f" {self._advice(port, free)}"
            )

    def _bind(self, port: Port, columns: tuple[str, ...], found: Fit) -> None:
        is_vector = len(columns) > 1
        cell_shape = () if is_vector else self._cells_of(columns[0]).shape
        self.bindings[port.name] = Binding(
            input_name=port.name,
            index=self._ports.index(port),
            columns=columns,
            element_type=port.element_type,
            row_shape=found.row_shape,
            cell_shape=tuple(length for length in cell_shape if length is not None),
            has_batch=found.has_batch,
        )

    def _cells_of(self, column: str) -> Cells:
        if column not in self._cells:
            self._cells[column] = cells_of(self._sample.column(column))
        return self._cells[column]

    def _fit_alone(self, port: Port, column: str) -> Fit | str:
        return fit(port, self._cells_of(column))

    def _fit(self, port: Port, columns: tuple[str, ...]) -> Fit | str:
        """Fit chosen columns: single values, one or several, make a vector."""
        cells = [self._cells_of(name) for name in columns]
        if len(columns) == 1 and cells[0].shape:
            return fit(port, cells[0])
        for name, cell in zip(columns, cells, strict=True):
            if cell.shape:
                return f"{name!r} holds lists; only columns of single values make one input together"
            one = fit(port, Cells(type=cell.type, shape=(len(columns),)))
            if isinstance(one, str):
                return one if len(columns) == 1 else f"{name!r} and the others do not fit: {one}"
        return one

    def _misfit(self, port: Port, columns: tuple[str, ...], reason: str) -> str:
        if len(columns) == 1:
            what = f"column {columns[0]!r} ({self._schema.field(columns[0]).type})"
        else:
            what = f"the {len(columns)} columns {columns[0]!r} to {columns[-1]!r}"
        return (
            f"{what} cannot become input {port.name!r} ({show_port(port)}): {reason};"
            f" choose another with --input {port.name}=COLUMN"
        )

    def _advice(self, port: Port, free: Sequence[str]) -> str:
        """Propose a wildcard where just so many columns of numbers share the start of their names."""
        groups: dict[str, list[str]] = {}
        for name in free:
            groups.setdefault(re.sub(r"\d+$", "", name), []).append(name)
        for start, names in groups.items():
            if start and len(names) > 1 and len(names) == row_size(port):
                matched = [name for name in free if fnmatchcase(name, start + "*")]
                if matched == names and isinstance(self._fit(port, tuple(names)), Fit):
                    return f"to feed {names[0]!r} to {names[-1]!r} as one input, pass --input '{start}*'"
        return "choose columns with --input COLUMN, or several columns of numbers with --input 'PREFIX*'"


def _no_such_column(name: str, schema: pa.Schema) -> str:
    close = get_close_matches(name, schema.names, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"there is no column {name!r}; {hint}{_list_columns(schema)}"


def _list_columns(schema: pa.Schema) -> str:
    shown = [f"{field.name} ({field.type})" for field in schema][:_COLUMNS_SHOWN]
    more = f" and {len(schema) - _COLUMNS_SHOWN} more" if len(schema) > _COLUMNS_SHOWN else ""
    return f"the columns are: {', '.join(shown)}{more}"


def _quoted(names: Iterable[str]) -> str:
    every = [repr(name) for name in names]
    more = f" and {len(every) - _COLUMNS_SHOWN} more" if len(every) > _COLUMNS_SHOWN else ""
    return ", ".join(every[:_COLUMNS_SHOWN]) + more
