"""Rules for operations that compute: by element, along dimensions, by matrix, by window.

May not enter: devices, operations that only move elements (batch_moving.py).

A rule returns where rows are in the outputs, or raises ``Mixes``.  The rules follow the operations' specifications
(docs.openvino.ai, "Operation Sets").
"""

import math
from collections.abc import Sequence

from ovray.replica.batch_alignment import Rule, aligned, along_input, everywhere, not_along
from ovray.replica.batch_operation import SIZED, Operation, Rows, State


def elementwise(operation: Operation) -> Sequence[State]:
    """Follows NumPy's broadcasting: what has no rows must be one element long where the others have theirs."""
    rank = len(operation.output_shapes[0])
    if "pdpd" in str(operation.attributes.get("auto_broadcast", "numpy")).lower():
        raise operation.mixes("broadcasts as PaddlePaddle does")
    return everywhere(operation, aligned(operation, range(len(operation.states)), rank))


def prelu(operation: Operation) -> Sequence[State]:
    """Takes a slope for each channel, which is dimension 1, or one that broadcasts."""
    rows = operation.only_rows(0)
    slope, rank = operation.shapes[1], len(operation.shapes[0])
    is_by_channel = len(slope) == 1 and rank > 1 and rows.axis != 1
    if is_by_channel or math.prod(slope) == 1:
        return [rows]
    return elementwise(operation)


def first_input(operation: Operation) -> Sequence[State]:
    """Works on each element of the first input by itself, with constants beside it."""
    return everywhere(operation, operation.only_rows(0))


def convert_like(operation: Operation) -> Sequence[State]:
    """Takes the type of the second input, and no value."""
    return [operation.states[0]]


def spatial(operation: Operation) -> Sequence[State]:
    """Works on each entry of dimension 0 by itself."""
    rows = operation.only_rows(0)
    if rows.axis != 0:
        raise operation.mixes("works along the batch, which is not the first dimension here")
    return everywhere(operation, rows)


def max_pool(operation: Operation) -> Sequence[State]:
    """Counts the positions of the greatest through the whole batch, where anybody asks for them."""
    if operation.node.get_output_size() > 1 and operation.node.output(1).get_target_inputs():
        raise operation.mixes("gives positions within the whole batch")
    return spatial(operation)


def deformable(operation: Operation) -> Sequence[State]:
    """Takes offsets, and maybe a mask, for each row."""
    with_rows = [index for index in range(len(operation.states)) if operation.states[index] is not None]
    rows = operation.only_rows(*with_rows)
    if rows.axis != 0 or 2 in with_rows or not {0, 1} <= set(with_rows):
        raise operation.mixes("takes rows at other inputs than data, offsets and mask")
    return [rows]


def batch_norm(operation: Operation) -> Sequence[State]:
    """Takes its data at input 0, or at input 2 in the first operation set; channels are dimension 1."""
    (index,) = [at for at, state in enumerate(operation.states) if state is not None][:1]
    rows = operation.only_rows(index)
    if rows.axis == 1 or len(operation.shapes[index]) < 2:
        raise operation.mixes("normalises along the batch")
    return [rows]


def mvn(operation: Operation) -> Sequence[State]:
    """Takes its axes at input 1; the first operation set's has attributes, and never normalises dimension 0."""
    return spatial(operation) if len(operation.states) == 1 else along_input(1)(operation)


def reduce(operation: Operation) -> Sequence[State]:
    """Drops the axes that it works along, unless it keeps them with the length 1."""
    rows = operation.only_rows(0)
    axes = {axis % len(operation.shapes[0]) for axis in operation.constant(1)}
    not_along(operation, rows, sorted(axes))
    if operation.attributes.get("keep_dims"):
        return [rows]
    return [rows._replace(axis=rows.axis - sum(axis < rows.axis for axis in axes))]


def matmul(operation: Operation) -> Sequence[State]:
    """Keeps rows apart unless it sums over them, or multiplies each with each."""
    left, right = operation.states
    ranks = [len(shape) for shape in operation.shapes]
    rank = len(operation.output_shapes[0])
    if min(ranks) < 2:
        return _vector_product(operation)
    if left is SIZED or right is SIZED:
        raise operation.mixes("computes with the batch size")
    is_stack = [
        isinstance(state, Rows) and state.axis < own_rank - 2
        for state, own_rank in zip(operation.states, ranks, strict=True)
    ]
    if isinstance(left, Rows) and isinstance(right, Rows):
        if not all(is_stack):
            raise operation.mixes("multiplies rows with each other")
        return [aligned(operation, (0, 1), rank)]
    if any(is_stack):
        return [aligned(operation, (0, 1), rank)]
    if isinstance(left, Rows):
        position = _matrix_position(left, ranks[0], is_transposed=bool(operation.attributes["transpose_a"]))
        is_kept = position == 0
    else:
        assert isinstance(right, Rows), "rows enter, so one side has them"
        position = _matrix_position(right, ranks[1], is_transposed=bool(operation.attributes["transpose_b"]))
        is_kept = position == 1
    if not is_kept:
        raise operation.mixes("sums over the batch")
    rows = left if isinstance(left, Rows) else right
    assert isinstance(rows, Rows), "as above"
    return [rows._replace(axis=rank - 2 + position)]


def _matrix_position(rows: Rows, rank: int, *, is_transposed: bool) -> int:
    """Says whether rows are the lines (0) or the columns (1) of a matrix, once it is transposed."""
    position = rows.axis - (rank - 2)
    return 1 - position if is_transposed else position


def _vector_product(operation: Operation) -> Sequence[State]:
    """Multiplies rows, in all but the last dimension, with a constant vector."""
    rows = operation.only_rows(0)
    rank = len(operation.shapes[0])
    if len(operation.shapes[1]) != 1 or operation.attributes["transpose_a"] or rows.axis == rank - 1:
        raise operation.mixes("sums over the batch, or multiplies in a way that cannot be followed")
    return [rows]


def recurrent(states: int) -> Rule:
    """Makes the rule of a recurrent network: input, initial states, maybe lengths, then weights."""

    def rule(operation: Operation) -> Sequence[State]:
        given = states + 1 + operation.kind.endswith("Sequence")
        rows = operation.only_rows(*range(given))
        if rows != Rows(0):
            raise operation.mixes("takes its batch in another dimension than the first")
        return everywhere(operation, rows)

    return rule


def interpolate(operation: Operation) -> Sequence[State]:
    """Resizes other dimensions than the batch; the batch too, if it keeps its length and each row its place."""
    rows = operation.rows(0)
    rank = len(operation.shapes[0])
    attributes = operation.attributes
    version = str(operation.node.get_type_info().version_id)
    at_input = {"opset4": 3, "opset11": 2}.get(version, len(operation.states))
    if version == "opset1":
        axes = [int(axis) % rank for axis in attributes["axes"]]
    else:
        has_axes = len(operation.states) > at_input
        axes = [axis % rank for axis in operation.constant(at_input)] if has_axes else [*range(rank)]
    position = axes.index(rows.axis) if rows.axis in axes else None
    for index in range(1, min(at_input, len(operation.states))):
        operation.constant_but_at(index, position)
    if position is None:
        return [rows]
    pads = [*attributes.get("pads_begin", []), *attributes.get("pads_end", [])]
    coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
    if version == "opset1" or any(pads) or attributes.get("antialias") or coordinates == "tf_half_pixel_for_nn":
        raise operation.mixes("resizes along the batch")
    if operation.output_shapes[0][rows.axis] != operation.shapes[0][rows.axis]:
        raise operation.mixes("resizes the batch")
    return [rows]


def attention(operation: Operation) -> Sequence[State]:
    """Attends within each entry of the leading dimensions."""
    rank = len(operation.output_shapes[0])
    taking = range(min(4, len(operation.states)))
    rows = aligned(operation, taking, rank)
    if rows.axis >= rank - 2 or not all(isinstance(operation.states[index], Rows) for index in range(3)):
        raise operation.mixes("attends along the batch")
    return [rows]
