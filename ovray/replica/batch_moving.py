"""Rules for operations that move elements and change none: reshape, transpose, slice, gather.

May not enter: devices, operations that compute (batch_computing.py).

A rule returns where rows are in the outputs, or raises ``Mixes``.  The rules follow the operations' specifications
(docs.openvino.ai, "Operation Sets").
"""

import math
from collections.abc import Sequence

from ovray.replica.batch_alignment import along_input, not_along
from ovray.replica.batch_layouts import BATCHES
from ovray.replica.batch_operation import Operation, Rows, State


def reshape(operation: Operation) -> Sequence[State]:
    """Keeps the order of elements, so that counting those before and behind the batch finds it again."""
    rows = operation.rows(0)
    shape, new = operation.shapes[0], operation.output_shapes[0]
    changing = [
        at
        for at, (one, other) in enumerate(zip(new, operation.other_output_shapes[0], strict=True))
        if one != other
    ]
    if len(changing) != 1 or 0 in shape or 0 in new:
        raise operation.mixes("gives a shape in which the batch cannot be told")
    axis = changing[0]
    before, before_rest = divmod(math.prod(shape[: rows.axis]) * rows.before, math.prod(new[:axis]))
    after, after_rest = divmod(rows.after * math.prod(shape[rows.axis + 1 :]), math.prod(new[axis + 1 :]))
    if before_rest or after_rest or before * BATCHES[0] * after != new[axis]:
        raise operation.mixes("lays rows across each other")
    return [Rows(axis, before, after)]


def squeeze(operation: Operation) -> Sequence[State]:
    """Drops dimensions of one element; without axes it would drop a batch of one row, too."""
    if len(operation.states) < 2:
        raise operation.mixes("drops every dimension of one element, and so the batch where it has one row")
    rank = len(operation.shapes[0])
    if operation.rows(0).axis in {axis % rank for axis in operation.constant(1)}:
        raise operation.mixes("drops the batch")
    return reshape(operation)


def unsqueeze(operation: Operation) -> Sequence[State]:
    operation.constant(1)
    return reshape(operation)


def transpose(operation: Operation) -> Sequence[State]:
    rows = operation.only_rows(0)
    order = operation.constant(1) or list(reversed(range(len(operation.shapes[0]))))
    return [rows._replace(axis=order.index(rows.axis))]


def concat(operation: Operation) -> Sequence[State]:
    rows = operation.only_rows(*range(len(operation.states)))
    return not_along(operation, rows, [int(operation.attributes["axis"])])


def split(operation: Operation) -> Sequence[State]:
    return along_input(1)(operation)


def slice(operation: Operation) -> Sequence[State]:
    """Takes starts, stops and steps of some axes; of the batch, only all rows in their order."""
    rows = operation.rows(0)
    rank = len(operation.shapes[0])
    starts, steps = operation.constant(1), operation.constant(3)
    axes = [axis % rank for axis in (operation.constant(4) if len(operation.states) > 4 else range(len(starts)))]
    if rows.axis in axes:
        at = axes.index(rows.axis)
        _whole_batch(operation, starts[at], steps[at])
    operation.constant_but_at(2, axes.index(rows.axis) if rows.axis in axes else None)
    return [rows]


def strided_slice(operation: Operation) -> Sequence[State]:
    """Takes begins and ends of the leading axes, which masks may switch off, and may add and drop dimensions."""
    rows = operation.rows(0)
    attributes = operation.attributes
    if any(attributes.get("new_axis_mask", [])) or any(attributes.get("ellipsis_mask", [])):
        raise operation.mixes("slices with new axes or an ellipsis")
    shrinks = list(attributes.get("shrink_axis_mask", []))
    begins = operation.constant(1)
    steps = operation.constant(3) if len(operation.states) > 3 else [1] * len(begins)
    if rows.axis < len(begins):
        # Whatever the mask says of the begin: 0 is where it begins in any case.
        _whole_batch(operation, begins[rows.axis], steps[rows.axis])
        if _is_set(shrinks, rows.axis):
            raise operation.mixes("takes one row out of the batch")
    operation.constant_but_at(2, rows.axis)
    dropped = sum(_is_set(shrinks, axis) for axis in range(rows.axis))
    return [rows._replace(axis=rows.axis - dropped)]


def _is_set(mask: Sequence[int], position: int) -> bool:
    return position < len(mask) and bool(mask[position])


def _whole_batch(operation: Operation, start: int, step: int) -> None:
    """Refuses a slice that takes other than all rows in their order; that it ends with them, shapes show."""
    if start != 0 or step != 1:
        raise operation.mixes("takes some rows out of the batch")


def gather(operation: Operation) -> Sequence[State]:
    """Looks rows up in a table, takes entries of each row, or, with batch_dims, both row by row."""
    data_rank = len(operation.shapes[0])
    (axis,) = operation.constant(2)
    axis %= data_rank
    batch_dims = int(operation.attributes.get("batch_dims", 0)) % max(1, len(operation.shapes[1]))
    data, indices = operation.states[0], operation.states[1]
    if isinstance(data, Rows) and indices is None and batch_dims == 0 and data.axis != axis:
        shift = len(operation.shapes[1]) - 1 if axis < data.axis else 0
        return [data._replace(axis=data.axis + shift)]
    if data is None and isinstance(indices, Rows) and batch_dims == 0:
        return [indices._replace(axis=axis + indices.axis)]
    if isinstance(data, Rows) and data == indices and data.axis < batch_dims:
        return [data]
    raise operation.mixes("gathers rows by what is in other rows")


def gather_elements(operation: Operation) -> Sequence[State]:
    return not_along(operation, operation.only_rows(0, 1), [int(operation.attributes["axis"])])


def one_hot(operation: Operation) -> Sequence[State]:
    rows = operation.only_rows(0)
    axis = int(operation.attributes["axis"]) % len(operation.output_shapes[0])
    return [rows._replace(axis=rows.axis + (axis <= rows.axis))]


def pad(operation: Operation) -> Sequence[State]:
    rows = operation.only_rows(0)
    if operation.constant(1)[rows.axis] or operation.constant(2)[rows.axis]:
        raise operation.mixes("adds rows to the batch")
    return [rows]


def tile(operation: Operation) -> Sequence[State]:
    rows = operation.only_rows(0)
    repeats = operation.constant(1)
    missing = len(operation.output_shapes[0]) - len(repeats)
    position = rows.axis + len(operation.output_shapes[0]) - len(operation.shapes[0])
    if ([1] * missing + repeats)[position] != 1:
        raise operation.mixes("repeats the batch")
    return [rows._replace(axis=position)]


def broadcast(operation: Operation) -> Sequence[State]:
    """Repeats rows along other dimensions than the batch; that its length stays, shapes show."""
    rows = operation.rows(0)
    if len(operation.states) > 2 or "explicit" in str(operation.attributes.get("mode", "")).lower():
        raise operation.mixes("broadcasts along dimensions that cannot be followed")
    return [rows._replace(axis=rows.axis + len(operation.output_shapes[0]) - len(operation.shapes[0]))]


def reverse_sequence(operation: Operation) -> Sequence[State]:
    rows = operation.rows(0)
    rank = len(operation.shapes[0])
    if int(operation.attributes["batch_axis"]) % rank != rows.axis or operation.states[1] not in (None, Rows(0)):
        raise operation.mixes("reverses the batch")
    return [rows]
