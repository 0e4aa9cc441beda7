"""Judges values that no row enters: constants, and what a graph computes from the batch size, such as shapes.

May not enter: devices, rows of data (batch_rules.py).

What is computed from the batch size stays ``a * batch + b`` as long as it is only moved, added, multiplied by
constants, or divided without remainder; then two batch sizes stand for all of them.  Anything else, such as a
minimum or a remainder, could behave in another way at a size that nobody looked at, and is refused.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovray.replica.batch_layouts import BATCHES
from ovray.replica.batch_operation import SIZED, Operation, Rows, State

Pair = tuple[NDArray[Any], NDArray[Any]]

_CANNOT_FOLLOW = "computes with the batch size what cannot be followed"

#: Move elements of their first input and change none; the other inputs say where, and must be constant.
_MOVES = {
    "Gather",
    "Slice",
    "StridedSlice",
    "Squeeze",
    "Unsqueeze",
    "Split",
    "VariadicSplit",
    "Transpose",
    "Convert",
}
_MOVES |= {"Reshape"}
#: Move elements of all of their inputs.
_JOINS = {"Concat"}
#: Repeat elements; how often may follow the batch.
_REPEATS = {"Broadcast", "Tile", "ConstantOfShape", "Range"}
_SUMS = {"Add", "Subtract"}
_ROUNDS = {"Floor", "Ceiling", "Round"}
_COMPARES = {"Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"}


def state_of_computed(operation: Operation, outputs: Sequence[Pair | None]) -> list[State]:
    """Returns the states of an operation's outputs.

    Args:
        operation: one that no row enters.
        outputs: what each output is at both batch sizes; ``None`` where that is not known.

    Raises:
        Mixes: what it gives may depend on the batch size in a way that two sizes do not show.
    """
    if SIZED not in operation.states:
        return [None] * len(operation.output_shapes)
    known = [pair for pair in outputs if pair is not None]
    if len(known) < len(outputs) or any(value is None for value in operation.values):
        raise operation.mixes(_CANNOT_FOLLOW)
    _check_affine(operation, known)
    return [_state_of_pair(operation, pair) for pair in known]


def _state_of_pair(operation: Operation, pair: Pair) -> State:
    first, second = pair
    if first.shape == second.shape:
        return None if np.array_equal(first, second) else SIZED
    changing = [
        axis for axis, (one, other) in enumerate(zip(first.shape, second.shape, strict=True)) if one != other
    ]
    if len(changing) == 1 and first.size and second.size:
        axis = changing[0]
        row = first.take([0], axis=axis)
        # Rows that are all alike: it does not matter which of them meets which request.
        if (first == row).all() and (second == row).all() and first.shape[axis] % BATCHES[0] == 0:
            return Rows(axis, after=first.shape[axis] // BATCHES[0])
    raise operation.mixes("tells rows apart by their place in the batch")


def _check_affine(operation: Operation, outputs: Sequence[Pair]) -> None:
    kind = operation.kind
    follows = [_follows_batch(pair) for pair in operation.values if pair is not None]
    if kind in _MOVES and not any(state is SIZED for state in operation.states[1:]):
        return
    if kind in _JOINS or kind in _REPEATS:
        return
    if kind == "Select" and operation.states[0] is not SIZED:
        return
    if kind in _SUMS | {"Multiply", "Divide"} | _ROUNDS | _COMPARES | {"ReduceProd", "ReduceSum"}:
        _check_arithmetic(operation, outputs[0], follows)
        return
    raise operation.mixes(_CANNOT_FOLLOW)


def _check_arithmetic(operation: Operation, output: Pair, follows: list[NDArray[np.bool_]]) -> None:
    kind = operation.kind
    inputs = [pair for pair in operation.values if pair is not None]
    if kind in _SUMS:
        return
    if kind in _ROUNDS:
        is_affine = all(np.array_equal(one, other) for one, other in zip(inputs[0], output, strict=True))
    elif kind == "Multiply":
        is_affine = not np.logical_and(*follows).any()
    elif kind == "Divide":
        is_affine = _divides(inputs[0], inputs[1], follows)
    elif kind in _COMPARES:
        bounds = [np.where(follows[1 - side], inputs[side][0], 0) for side in (0, 1)]
        is_affine = not np.logical_and(*follows).any() and all((bound <= 0).all() for bound in bounds)
        is_affine = is_affine and all(
            (pair[0][mask] >= 1).all() for pair, mask in zip(inputs, follows, strict=True)
        )
    elif kind == "ReduceProd":
        is_affine = int(follows[0].sum()) <= 1
    else:
        is_affine = kind == "ReduceSum"
    if not is_affine:
        raise operation.mixes(_CANNOT_FOLLOW)


def _compares_with_none(left: Pair, right: Pair, follows: list[NDArray[np.bool_]]) -> bool:
    """Tells whether multiples of the batch size are compared with 0 or less: all sizes give the same answer."""
    grows_left, grows_right = np.broadcast_arrays(*follows)
    pairs = [np.broadcast_arrays(left[at], right[at]) for at in (0, 1)]
    is_multiple = [
        [pairs[0][side] * BATCHES[1] == pairs[1][side] * BATCHES[0], pairs[0][side] > 0] for side in (0, 1)
    ]
    ok_left = ~grows_left | (is_multiple[0][0] & is_multiple[0][1] & ~grows_right & (pairs[0][1] <= 0))
    ok_right = ~grows_right | (is_multiple[1][0] & is_multiple[1][1] & ~grows_left & (pairs[0][0] <= 0))
    return bool((ok_left & ok_right).all())


def _divides(above: Pair, below: Pair, follows: list[NDArray[np.bool_]]) -> bool:
    """Tells whether a quotient is affine: constant because both sides grow alike, or without remainder."""
    grows_above, grows_below = np.broadcast_arrays(*follows)
    one_above, one_below = np.broadcast_arrays(above[0], below[0])
    other_above, other_below = np.broadcast_arrays(above[1], below[1])
    if (one_below == 0).any() or (other_below == 0).any():
        return False
    is_constant = one_above * other_below == other_above * one_below
    is_whole = (one_above % one_below == 0) & (other_above % other_below == 0)
    return bool(np.where(grows_below, is_constant & is_whole, ~grows_above | is_whole).all())


def _follows_batch(pair: Pair) -> NDArray[np.bool_]:
    """Marks the elements that change with the batch size."""
    first, second = pair
    if first.shape != second.shape:
        return np.ones(np.shape(first), dtype=np.bool_)
    marked: NDArray[np.bool_] = np.asarray(first != second)
    return marked
