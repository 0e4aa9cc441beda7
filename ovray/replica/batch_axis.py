"""Finds out whether the rows of a model's batch are independent of each other, by a walk over its graph.

May not enter: devices, ray.  What an operation does to rows: batch_rules.py.  What is computed from the batch
size: batch_sizes.py.  How the batch is told from other lengths: batch_layouts.py.

The walk follows the batch dimension from the inputs to the outputs.  Each value on its way is one of three: it
holds rows, in a known dimension; it is the same for every batch; or it was computed from the batch size.  Every
operation that rows enter needs a rule that says where they come out; without one, or where the rule cannot say,
rows may mix, and requests must not be joined.  That is the safe side: a wrong "no" costs time, a wrong "yes" wrong
numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ovray.replica.batch_layouts import BATCHES, CannotLayOutError, Layout, Placed, PortName, lay_out
from ovray.replica.batch_operation import SIZED, Mixes, Operation, Rows, State
from ovray.replica.batch_rules import apply_rule
from ovray.replica.batch_sizes import state_of_computed
from ovray.replica.engine import BatchVerdict

#: Operations whose results do not follow from their inputs, or that hold graphs of their own.
_REFUSED = {
    "RandomUniform": "draws at random",
    "Multinomial": "draws at random",
    "ReadValue": "remembers earlier inferences",
    "Assign": "remembers earlier inferences",
    "If": "decides for the whole batch",
    "Loop": "loops over the whole batch",
    "TensorIterator": "loops over the whole batch",
}


def examine(model: ov.Model) -> BatchVerdict:
    """Says whether each row of the outputs depends on the same row of the inputs and on no other.

    Args:
        model: with any shapes; left as it is.

    Example:
        >>> import openvino.opset13 as ops
        >>> x = ops.parameter(ov.PartialShape([-1, 3]), ov.Type.f32)
        >>> examine(ov.Model([ops.relu(x)], [x], "by row")).is_independent
        True
        >>> examine(ov.Model([ops.softmax(x, axis=0)], [x], "mixed")).reason  # doctest: +ELLIPSIS
        "Softmax 'Softmax_...' works along the batch"
    """
    axes = _batch_axes(model)
    if isinstance(axes, str):
        return BatchVerdict(reason=axes)
    for node in model.get_ops():
        if node.get_type_name() in _REFUSED:
            found = f"{node.get_type_name()} {node.get_friendly_name()!r}"
            return BatchVerdict(reason=f"{found} {_REFUSED[node.get_type_name()]}")
    try:
        first, second = lay_out(model.clone(), axes)
        outputs = _Walk(first, second, axes).follow()
    except (Mixes, CannotLayOutError) as reason:
        return BatchVerdict(reason=str(reason))
    return BatchVerdict(
        reason=f"none of the graph's {len(first.operations)} operations mixes rows",
        input_axes=axes,
        output_axes=outputs,
    )


def _batch_axes(model: ov.Model) -> tuple[int, ...] | str:
    """Returns the dimension of each input that counts rows, or why there is none: ``N`` of its layout, else 0."""
    axes = []
    for number, port in enumerate(model.inputs):
        rank = port.get_partial_shape().rank
        if rank.is_dynamic or rank.get_length() == 0:
            return f"input {number} has no batch dimension"
        layout = port.get_node().layout
        axis = ov.layout_helpers.batch_idx(layout) if ov.layout_helpers.has_batch(layout) else 0
        axes.append(axis % rank.get_length())
    return tuple(axes) if axes else "the model has no inputs"


class _Walk:
    """Follows rows through a graph that is laid out twice."""

    def __init__(self, first: Layout, second: Layout, axes: tuple[int, ...]) -> None:
        self._layouts = (first, second)
        self._axes = axes
        self._states: dict[PortName, State] = {}

    def follow(self) -> tuple[int, ...]:
        """Returns the batch dimension of each output.

        Raises:
            Mixes: an operation may mix rows.
        """
        # The newer of the two: its operations are those that are in the graph.
        layout = self._layouts[1]
        for name, axis in zip(layout.inputs, self._axes, strict=True):
            self._states[name] = Rows(axis)
        for placed in layout.operations:
            if placed.kind not in ("Parameter", "Result"):
                self._pass_through(placed)
        return tuple(self._output_axis(number, name) for number, name in enumerate(layout.results))

    def _output_axis(self, number: int, name: PortName) -> int:
        rows = self._states[name]
        if not isinstance(rows, Rows) or (rows.before, rows.after) != (1, 1):
            raise Mixes(f"output {number} has no dimension that counts the rows")
        return rows.axis

    def _pass_through(self, placed: Placed) -> None:
        first, second = self._layouts
        operation = Operation(
            node=placed.node,
            states=[self._states[name] for name in placed.sources],
            shapes=[first.shapes[name] for name in placed.sources],
            output_shapes=[first.shapes[name] for name in placed.outputs],
            other_output_shapes=[second.shapes[name] for name in placed.outputs],
            values=[self._value(name) for name in placed.sources],
        )
        for name, state in zip(placed.outputs, self._states_after(placed, operation), strict=True):
            self._check_shape(operation, name, state)
            self._states[name] = state

    def _states_after(self, placed: Placed, operation: Operation) -> Sequence[State]:
        if placed.kind == "ShapeOf":
            pair = self._value(placed.outputs[0])
            assert pair is not None, "shapes are known"
            return [None if np.array_equal(*pair) else SIZED]
        if any(isinstance(state, Rows) for state in operation.states):
            return apply_rule(operation)
        return state_of_computed(operation, [self._value(name) for name in placed.outputs])

    def _value(self, name: PortName) -> tuple[NDArray[Any], NDArray[Any]] | None:
        first, second = (layout.values.get(name) for layout in self._layouts)
        return None if first is None or second is None else (first, second)

    def _check_shape(self, operation: Operation, name: PortName, state: State) -> None:
        """Holds the rule's word against the shapes: the batch is where the rule says, and nowhere else."""
        first, second = (layout.shapes[name] for layout in self._layouts)
        changing = [axis for axis, (one, other) in enumerate(zip(first, second, strict=True)) if one != other]
        if isinstance(state, Rows):
            per_batch = state.before * state.after
            is_right = changing == [state.axis] and [first[state.axis], second[state.axis]] == [
                per_batch * batch for batch in BATCHES
            ]
        else:
            is_right = not changing
        if not is_right:
            raise Mixes(f"{operation.title} gives shapes that do not follow the batch")
