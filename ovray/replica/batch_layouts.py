"""Lays a graph out for two batch sizes, and notes what differs: shapes, and values that were computed from shapes.

May not enter: devices, judgement of what a difference means (batch_axis.py).

Two neighbouring sizes tell all there is to know.  Whatever is ``a * batch + b`` at both, and was computed by sums,
products with constants and divisions without remainder, is so at every size.  They are small, so that values stay
small; other dimensions that happen to have the same length differ in that they stay the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

#: Neighbours, so that only multiples of a divisor are divided by it at both; above 1, so that no row is broadcast.
BATCHES = (7, 8)

#: Values of shape computations that are worth knowing have this many elements at the most.
_SHAPE_VALUE_ELEMENTS = 1 << 18
#: The same of constants: axes, pads, orders.  Weights are longer, and of no interest here.
_CONSTANT_ELEMENTS = 1 << 10

#: Lengths for open dimensions other than the batch, by position, to try in turn: unlike each other, as tokens and
#: features are; large enough for a picture; a square picture.
_STAND_INS = ((11, 13, 17, 19, 23, 29), (229, 227, 239, 241, 251, 257), (224,) * 6)

Shape = tuple[int, ...]
#: One output of an operation: the operation's place in the order of the graph, and which output.  Names would not
#: do: at each reshape OpenVINO puts new operations in place of some old ones.
PortName = tuple[int, int]


class CannotLayOutError(Exception):
    """The graph does not take another batch size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Is one operation in its place in a graph."""

    node: ov.Node
    sources: tuple[PortName, ...]
    outputs: tuple[PortName, ...]

    @property
    def kind(self) -> str:
        """Names the type of operation."""
        return str(self.node.get_type_name())


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Is a graph at one batch size."""

    #: Each after those that it takes from.
    operations: Sequence[Placed]
    #: In the order of the model's ports.
    inputs: Sequence[PortName]
    results: Sequence[PortName]
    shapes: dict[PortName, Shape]
    #: Of constants, and of what was computed from constants and shapes alone; small ones only.
    values: dict[PortName, NDArray[Any]]


def lay_out(model: ov.Model, axes: Sequence[int]) -> tuple[Layout, Layout]:
    """Lays out for both of ``BATCHES``; the model is reshaped meanwhile, and left so.

    Args:
        model: a copy that nobody else needs.
        axes: the batch dimension of each input.

    Raises:
        CannotLayOutError: with the reason.
    """
    failure = "it takes no other batch size"
    for lengths in _STAND_INS:
        try:
            first, second = (_lay_out(model, axes, batch, lengths) for batch in BATCHES)
        except RuntimeError as error:
            failure = str(error).strip().splitlines()[-1]
            continue
        if [_gist(placed) for placed in first.operations] != [_gist(placed) for placed in second.operations]:
            raise CannotLayOutError("its operations change with the batch size")
        return first, second
    raise CannotLayOutError(f"the graph takes no other batch size: {failure}")


def _lay_out(model: ov.Model, axes: Sequence[int], batch: int, lengths: Shape) -> Layout:
    model.reshape(
        {
            index: ov.PartialShape(_stand_in(port.get_partial_shape(), axis, batch, lengths))
            for index, (port, axis) in enumerate(zip(model.inputs, axes, strict=True))
        }
    )
    operations = _placed(model)
    places = {placed.node.get_name(): placed for placed in operations}
    layout = Layout(
        operations=operations,
        inputs=[places[node.get_name()].outputs[0] for node in model.get_parameters()],
        results=[places[node.get_name()].sources[0] for node in model.get_results()],
        shapes={},
        values={},
    )
    from_shapes: set[PortName] = set()
    for placed in layout.operations:
        for name, port in zip(placed.outputs, placed.node.outputs(), strict=True):
            if port.get_partial_shape().is_dynamic:
                raise CannotLayOutError(
                    f"the shape that {placed.kind} {placed.node.get_friendly_name()!r} gives depends on values"
                )
            layout.shapes[name] = tuple(port.get_shape())
        _note_values(placed, layout, from_shapes)
    return layout


def _placed(model: ov.Model) -> list[Placed]:
    nodes = model.get_ordered_ops()
    places = {node.get_name(): place for place, node in enumerate(nodes)}
    return [
        Placed(
            node=node,
            sources=tuple((places[port.get_node().get_name()], port.get_index()) for port in node.input_values()),
            outputs=tuple((place, index) for index in range(node.get_output_size())),
        )
        for place, node in enumerate(nodes)
    ]


def _gist(placed: Placed) -> tuple[Any, ...]:
    return placed.kind, placed.sources, placed.outputs, placed.node.get_attributes()


def _stand_in(shape: ov.PartialShape, axis: int, batch: int, lengths: Shape) -> list[int]:
    fixed = []
    for position, dimension in enumerate(shape):
        if position == axis:
            fixed.append(batch)
        elif dimension.is_static:
            fixed.append(dimension.get_length())
        else:
            length = max(lengths[position % len(lengths)], dimension.get_min_length())
            fixed.append(length if dimension.get_max_length() < 0 else min(length, dimension.get_max_length()))
    return fixed


def _note_values(placed: Placed, layout: Layout, from_shapes: set[PortName]) -> None:
    """Computes what an operation gives, if that follows from constants and shapes."""
    node, sources, names = placed.node, placed.sources, placed.outputs
    if placed.kind == "Constant":
        if math.prod(layout.shapes[names[0]]) <= _CONSTANT_ELEMENTS and node.get_element_type() != ov.Type.string:
            layout.values[names[0]] = np.array(node.get_data())
        return
    if placed.kind == "ShapeOf":
        length_type = np.int32 if node.get_output_element_type(0) == ov.Type.i32 else np.int64
        layout.values[names[0]] = np.array(layout.shapes[sources[0]], dtype=length_type)
        from_shapes.add(names[0])
        return
    if placed.kind in ("Parameter", "Result") or not sources or any(name not in layout.values for name in sources):
        return
    is_from_shapes = not from_shapes.isdisjoint(sources)
    limit = _SHAPE_VALUE_ELEMENTS if is_from_shapes else _CONSTANT_ELEMENTS
    if any(math.prod(layout.shapes[name]) > limit for name in names):
        return
    computed = _compute(node, [layout.values[name] for name in sources])
    if computed is not None:
        layout.values.update(zip(names, computed, strict=True))
        if is_from_shapes:
            from_shapes.update(names)


def _compute(node: ov.Node, values: Sequence[NDArray[Any]]) -> list[NDArray[Any]] | None:
    """Runs OpenVINO's reference of an operation; ``None`` where it has none."""
    inputs = [_tensor(value, node.get_input_element_type(index)) for index, value in enumerate(values)]
    outputs = [ov.Tensor(port.get_element_type(), port.get_shape()) for port in node.outputs()]
    try:
        is_known = node.evaluate(outputs, inputs)
    except RuntimeError:
        return None
    return [np.array(output.data) for output in outputs] if is_known else None


def _tensor(value: NDArray[Any], kind: ov.Type) -> ov.Tensor:
    tensor = ov.Tensor(kind, ov.Shape(list(value.shape)))
    tensor.data[...] = value
    return tensor
