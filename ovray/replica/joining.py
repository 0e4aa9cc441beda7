"""Joins the tensors of several requests to those of one inference, and splits the outputs again.

May not enter: openvino, threads.  Which models allow it: batch_axis.py.  When it is done: waiting.py.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovray.replica.envelope import Request

#: Input bytes of one joined inference: beyond that, a bigger tensor saves no more time and only holds memory.
MAX_JOINED_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """Says where the rows lie in tensors that may be joined."""

    #: The dimension of each input, and of each output, that counts the rows.
    input_axes: tuple[int, ...]
    output_axes: tuple[int, ...]
    #: Rows that one joined inference may have.
    max_rows: int

    def rows_of(self, request: Request) -> int | None:
        """Counts the rows of a request; ``None`` where its inputs do not agree or have none."""
        rows = {
            array.shape[axis] if array.ndim > axis else 0
            for array, axis in zip(request.tensors, self.input_axes, strict=True)
        }
        return rows.pop() if len(rows) == 1 and 0 not in rows else None

    def key_of(self, request: Request) -> Hashable:
        """Returns what requests have in common that may share an inference: all but the number of rows."""
        return tuple(
            array.shape[:axis] + array.shape[axis + 1 :]
            for array, axis in zip(request.tensors, self.input_axes, strict=True)
        )


def joined_shape(arrays: Sequence[NDArray[Any]], axis: int) -> tuple[int, ...]:
    """Returns the shape of these arrays laid end to end."""
    first = arrays[0].shape
    return (*first[:axis], sum(array.shape[axis] for array in arrays), *first[axis + 1 :])


def lay_into(whole: NDArray[Any], arrays: Sequence[NDArray[Any]], axis: int) -> None:
    """Writes the arrays end to end into a whole that has their joined shape."""
    np.concatenate(arrays, axis=axis, out=whole)


def split_rows(whole: NDArray[Any], rows: Sequence[int], axis: int) -> list[NDArray[Any]]:
    """Copies the rows of each request out of an output."""
    before = (slice(None),) * axis
    parts = []
    at = 0
    for count in rows:
        parts.append(whole[(*before, slice(at, at + count))].copy())
        at += count
    return parts
