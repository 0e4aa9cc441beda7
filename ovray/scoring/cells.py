"""Says what the cells of a column hold and whether they can become an input of a model.

A fit is decided from types, and from the first rows where a type leaves lengths open.
May not enter: options, names, which column is meant (columns.py decides that), the values themselves (tensors.py).
"""

from collections import Counter
from dataclasses import dataclass
from math import prod

import pyarrow as pa
import pyarrow.compute as pc

from ovray.replica.signature import Port
from ovray.scoring.elements import ELEMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Describes what each cell of a column holds."""

    #: Of a single value: of the column itself, or of the innermost lists.
    type: pa.DataType
    #: Lengths of the lists, outermost first; empty for single values.  ``None`` where rows differ.
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Says how cells become an input."""

    #: What one row is to the model: the input's shape without the batch dimension, if it has one.
    row_shape: tuple[int, ...]
    #: False where a row fills the whole input, so that one inference takes one row.
    has_batch: bool


def cells_of(column: pa.Array) -> Cells:
    """Return what the cells of a column hold, as its type and its first rows show."""
    # Arrow's tensors and those of Ray Data: flat lists whose type states the shape.
    if isinstance(column.type, pa.BaseExtensionType) and hasattr(column.type, "shape"):
        return Cells(type=column.type.value_type, shape=tuple(column.type.shape))
    shape: list[int | None] = []
    while is_list(column.type):
        if pa.types.is_fixed_size_list(column.type):
            shape.append(column.type.list_size)
        else:
            lengths = pc.min_max(pc.list_value_length(column)).as_py()
            shape.append(lengths["min"] if lengths["min"] == lengths["max"] else None)
        column = pc.list_flatten(column)
    value_type = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return Cells(type=value_type, shape=tuple(shape))


def is_list(of: pa.DataType) -> bool:
    """Return whether a type is a list of any kind."""
    kinds = pa.types
    return bool(
        kinds.is_list(of)
        or kinds.is_large_list(of)
        or kinds.is_fixed_size_list(of)
        or kinds.is_list_view(of)
        or kinds.is_large_list_view(of)
    )


def is_text(of: pa.DataType) -> bool:
    """Return whether a type is text of any kind."""
    kinds = pa.types
    return bool(kinds.is_string(of) or kinds.is_large_string(of) or kinds.is_string_view(of))


def with_numbers(sample: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with numbers in place of text, in columns where most text spells numbers.

    One cell that is no number makes text of a whole column of CSV: where such a cell may cost its row and no more,
    the others are numbers still.  Text that spells none is null.
    """
    columns = [_as_numbers(column) if is_text(column.type) else column for column in sample.columns]
    return pa.RecordBatch.from_arrays(columns, names=sample.schema.names)


def with_usual_lists(sample: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows in which lists that are null, or not of the usual lengths, are replaced by such as are."""
    columns = [_usual(column) if is_list(column.type) else column for column in sample.columns]
    return pa.RecordBatch.from_arrays(columns, names=sample.schema.names)


def _as_numbers(texts: pa.Array) -> pa.Array:
    found: list[int | float | None] = [_number(text) for text in texts.to_pylist()]
    spelt = [number for number in found if number is not None]
    if not spelt or 2 * len(spelt) <= len(texts) - texts.null_count:
        return texts
    is_whole = all(isinstance(number, int) for number in spelt)
    return pa.array(found, pa.int64() if is_whole else pa.float64())


def _number(text: str | None) -> int | float | None:
    for kind in (pa.int64(), pa.float64()):
        try:
            number: int | float | None = pa.scalar(text, pa.string()).cast(kind).as_py()
        except pa.ArrowInvalid:
            continue
        return number
    return None


def _usual(lists: pa.Array) -> pa.Array:
    shapes = [_lengths(one) for one in lists.to_pylist()]
    whole = [shape for shape in shapes if shape is not None]
    if not whole:
        return lists
    usual = Counter(whole).most_common(1)[0][0]
    first = shapes.index(usual)
    return lists.take(pa.array([at if shape == usual else first for at, shape in enumerate(shapes)]))


def _lengths(value: object) -> tuple[int, ...] | None:
    """Return the lengths of nested lists, outermost first; ``None`` where one is null or they are ragged."""
    if not isinstance(value, list):
        return None if value is None else ()
    within = {_lengths(one) for one in value} or {()}
    only = within.pop()
    return None if within or only is None else (len(value), *only)


def fit(port: Port, cells: Cells) -> Fit | str:
    """Return how cells become the input, or why they cannot."""
    problem = _type_problem(port.element_type, cells.type)
    if problem:
        return problem
    if None in cells.shape:
        return "the lists in its first rows are null or of different lengths; rows need to be of one shape"
    lengths = tuple(length for length in cells.shape if length is not None)
    for dims, has_batch in _layouts(port, lengths):
        row_shape = _match(dims, lengths)
        if row_shape is not None:
            return Fit(row_shape=row_shape, has_batch=has_batch)
    return f"a row of it holds {_amount(prod(lengths))} where {expected(port)}"


def expected(port: Port) -> str:
    """Say in words what a row of an input is."""
    shown = show_port(port)
    if port.shape is None:
        return f"the input is {shown}"
    dims = port.shape[1:]
    known = prod(dim for dim in dims if dim is not None)
    if None in dims:
        return (
            f"the input is {shown}: a multiple of {known} values a row" if known > 1 else f"the input is {shown}"
        )
    return f"the input is {shown}: {_amount(known)} a row"


def show_port(port: Port) -> str:
    """Show type and shape as in ``f32[?,3,224,224]``."""
    if port.shape is None:
        return f"{port.element_type}[...]"
    return f"{port.element_type}[{','.join('?' if dim is None else str(dim) for dim in port.shape)}]"


def row_size(port: Port) -> int | None:
    """Return how many values a row has; ``None`` where the model leaves it open."""
    if port.shape is None or None in port.shape[1:]:
        return None
    return prod(dim for dim in port.shape[1:] if dim is not None)


def _layouts(port: Port, lengths: tuple[int, ...]) -> list[tuple[tuple[int | None, ...], bool]]:
    """List the shapes that a row may have, the usual one first, each with whether a batch dimension leads."""
    if port.shape is None:
        return [(lengths, True)]
    if not port.shape:
        return [((), False)]
    layouts = [(port.shape[1:], True)]
    if None not in port.shape:
        layouts.append((port.shape, False))
    return layouts


def _match(dims: tuple[int | None, ...], lengths: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape that a row of these list lengths takes; ``None`` if it does not fit."""
    if len(dims) == len(lengths) and all(dim in (None, length) for dim, length in zip(dims, lengths, strict=True)):
        return lengths
    known = prod(dim for dim in dims if dim is not None)
    values = prod(lengths)
    open_dims = dims.count(None)
    if open_dims == 0 and values == known:
        return tuple(dim for dim in dims if dim is not None)
    # A single value is no row of open length unless the caller says so: every column of numbers would fit.
    if open_dims == 1 and lengths and known and values and values % known == 0:
        return tuple(values // known if dim is None else dim for dim in dims)
    return None


def _type_problem(element_type: str, of: pa.DataType) -> str | None:
    kinds = pa.types
    if element_type not in ELEMENTS:
        return f"the input's element type {element_type} is none that ovray feeds"
    is_number = kinds.is_integer(of) or kinds.is_floating(of) or kinds.is_decimal(of)
    if element_type == "string":
        return None if is_text(of) else f"it holds {of}, the input takes text"
    if element_type == "boolean":
        return None if kinds.is_boolean(of) else f"it holds {of}, the input takes booleans"
    if not (is_number or kinds.is_boolean(of)):
        return f"it holds {of}, the input takes numbers ({element_type})"
    if element_type[0] in "iu" and not (kinds.is_integer(of) or kinds.is_boolean(of)):
        return f"it holds {of}, the input takes whole numbers ({element_type})"
    return None


def _amount(values: int) -> str:
    return "1 value" if values == 1 else f"{values} values"
