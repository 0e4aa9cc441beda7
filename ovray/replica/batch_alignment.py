"""The questions that many rules ask: whether an operation works along the batch, and where broadcasting puts rows.

May not enter: devices, single operations (batch_computing.py, batch_moving.py).
"""

from collections.abc import Callable, Sequence

from ovray.replica.batch_operation import SIZED, Operation, Rows, State

Rule = Callable[[Operation], Sequence[State]]


def everywhere(operation: Operation, rows: Rows) -> Sequence[State]:
    return [rows] * len(operation.output_shapes)


def not_along(operation: Operation, rows: Rows, axes: Sequence[int]) -> Sequence[State]:
    rank = len(operation.shapes[0])
    if any(not -rank <= axis < rank for axis in axes):
        raise operation.mixes(f"has an axis that a tensor of {rank} dimensions does not have")
    if rows.axis in {axis % rank for axis in axes}:
        raise operation.mixes("works along the batch")
    return everywhere(operation, rows)


def along_attribute(name: str) -> Rule:
    """Makes the rule of an operation that works along the axis that an attribute names."""

    def rule(operation: Operation) -> Sequence[State]:
        rows = operation.only_rows(0)
        return not_along(operation, rows, [int(operation.attributes[name])])

    return rule


def along_input(index: int) -> Rule:
    """Makes the rule of an operation that works along the axes that an input names."""

    def rule(operation: Operation) -> Sequence[State]:
        rows = operation.only_rows(0)
        return not_along(operation, rows, operation.constant(index))

    return rule


def aligned(operation: Operation, indices: Sequence[int], rank: int) -> Rows:
    """Returns where rows lie in the result of broadcasting some inputs to a rank."""
    found = set()
    for index in indices:
        state = operation.states[index]
        if state is SIZED:
            raise operation.mixes("computes with the batch size")
        if isinstance(state, Rows):
            found.add(state._replace(axis=state.axis + rank - len(operation.shapes[index])))
    if len(found) != 1:
        raise operation.mixes("takes rows of two tensors that lie in different places")
    rows = found.pop()
    for index in indices:
        position = rows.axis - rank + len(operation.shapes[index])
        if operation.states[index] is None and position >= 0 and operation.shapes[index][position] != 1:
            raise operation.mixes("takes different values for different rows")
    return rows
