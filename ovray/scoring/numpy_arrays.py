"""Reads rows of one array in NumPy's format, wherever its bytes are; turns rows of arrays into columns.

The first dimension counts the rows; the others become lists of fixed length.  Only the rows asked for are read,
also where their values lie apart because the array is stored column by column.
May not enter: which file or archive the array is in (numpy_files.py), pickled objects.
"""

import tokenize
from dataclasses import dataclass
from math import prod
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa

_Values = np.ndarray[Any, np.dtype[Any]]

#: Later versions of the format differ only for arrays of records.
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Content(Protocol):
    """Gives the bytes of an array's values."""

    def read(self, offset: int, size_bytes: int) -> Any:
        """Return up to ``size_bytes`` bytes from ``offset`` on, as anything that NumPy takes for a buffer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Says what an array is."""

    dtype: np.dtype[Any]
    #: At least one dimension, none but the first of length 0.
    shape: tuple[int, ...]
    #: Whether it is stored column by column (in Fortran's order).
    is_fortran: bool

    @property
    def size_bytes(self) -> int:
        """Bytes of all values."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def type(self) -> pa.DataType:
        """The Arrow type of a row.  Raises ArrowNotImplementedError where there is none."""
        kind = pa.from_numpy_dtype(self.dtype.newbyteorder("="))
        for length in reversed(self.shape[1:]):
            kind = pa.list_(kind, length)
        return kind


def read_header(stream: IO[bytes] | pa.NativeFile) -> Header:
    """Read a header, up to the first value.  Raises ArrowInvalid where it is none, or no array that has rows."""
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADER_READERS:
            raise pa.ArrowInvalid("it is an array of records; save its fields one by one with numpy.savez")
        shape, is_fortran, dtype = _HEADER_READERS[version](stream)
    except ValueError as error:
        raise pa.ArrowInvalid(str(error)) from error
    except (TypeError, SyntaxError, tokenize.TokenError) as error:  # NumPy expects such headers of Python 2 alone
        raise pa.ArrowInvalid("its header is damaged") from error
    if dtype.hasobject:
        raise pa.ArrowInvalid("it holds Python objects, which ovray does not unpickle; save numbers or text")
    if not shape or min(shape) < 0:
        raise pa.ArrowInvalid(f"its shape is {list(shape)}, so it has no rows")
    if not dtype.itemsize or not all(shape[1:]):
        raise pa.ArrowInvalid(f"its rows hold no values: it is {dtype}{list(shape)}")
    header = Header(dtype=dtype, shape=shape, is_fortran=is_fortran and prod(shape[1:]) > 1)
    try:
        header.type  # noqa: B018 (asked for its error)
    except pa.ArrowNotImplementedError as error:
        raise pa.ArrowInvalid(f"it holds {dtype}, which has no Arrow type; convert it first") from error
    return header


@dataclass(frozen=True, slots=True, kw_only=True)
class NumpyArray:
    """Gives the rows of one array."""

    name: str
    header: Header
    content: Content

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.header.shape[0]

    def read(self, start: int, stop: int) -> pa.Array:
        """Return rows ``start`` up to, not including, ``stop``."""
        values = self._gather_rows(start, stop) if self.header.is_fortran else self._read_rows(start, stop)
        return to_column(values, self.header.shape[1:])

    def _read_rows(self, start: int, stop: int) -> _Values:
        values_per_row = prod(self.header.shape[1:])
        return self._values(start * values_per_row, (stop - start) * values_per_row)

    def _gather_rows(self, start: int, stop: int) -> _Values:
        """Return rows of an array in Fortran's order: there the values of one column stand together."""
        row_shape = self.header.shape[1:]
        columns = [self._values(column * self.rows + start, stop - start) for column in range(prod(row_shape))]
        # The first of a row's dimensions moves fastest, as Fortran has it.
        return np.stack(columns).reshape(*reversed(row_shape), stop - start).transpose().reshape(-1)

    def _values(self, first: int, count: int) -> _Values:
        value_bytes = self.header.dtype.itemsize
        content = self.content.read(first * value_bytes, count * value_bytes)
        if len(content) < count * value_bytes:
            raise pa.ArrowInvalid("ends before the rows that it held")
        return np.frombuffer(content, dtype=self.header.dtype)


def to_column(values: _Values, row_shape: tuple[int, ...]) -> pa.Array:
    """Return rows as a column: single values, or lists of fixed length within each other.

    Args:
        values: Of all rows, flat, in C order.  Numbers are not copied.
        row_shape: Of one row.

    Raises ArrowInvalid or ArrowNotImplementedError where Arrow has no such values.
    """
    column = _as_arrow(values.astype(values.dtype.newbyteorder("="), copy=False))
    for length in reversed(row_shape):
        column = pa.FixedSizeListArray.from_arrays(column, length)
    return column


def _as_arrow(values: _Values) -> pa.Array:
    if values.dtype.kind not in "SU":
        return pa.array(values)
    try:
        # pyarrow would end text and bytes at the first zero; NumPy only fills them up with zeros.
        return pa.array(values.tolist(), pa.from_numpy_dtype(values.dtype))
    except ValueError as error:
        raise pa.ArrowInvalid("holds text that is no Unicode") from error
