"""Decides whether a replica joins requests, and opens the batch dimension of its model where that takes it.

May not enter: devices, ray, queues.  What shows independence: batch_axis.py.
"""

import sys
from typing import NamedTuple

import openvino as ov

from ovray.replica.batch_axis import examine
from ovray.replica.element_types import PACKED_TYPES
from ovray.replica.engine import BatchVerdict
from ovray.replica.joining import Joining
from ovray.replica.model import last_line
from ovray.replica.workload import Batching, Merging

#: Rows that ``auto`` joins at the most; what is worth it, it learns (benefit.py).
AUTO_MAX_ROWS = 256


class Opened(NamedTuple):
    """Is a model as it will be compiled."""

    model: ov.Model
    #: ``None``: requests are not joined.
    joining: Joining | None
    #: ``None``: nobody asked.
    verdict: BatchVerdict | None


def open_for_joining(model: ov.Model, batching: Batching) -> Opened:
    """Decides; returns a copy of the model if it had to be changed."""
    batch_size = batching.batch_size
    if batch_size == 1 or batching.merging is Merging.NEVER:
        return Opened(model, None, None)
    if packed := _packed_ports(model):
        return Opened(model, None, BatchVerdict(reason=f"rows may share bytes: {packed}"))
    verdict = _first_dimensions(model) if batching.merging is Merging.ALWAYS else examine(model)
    if verdict.input_axes is None or verdict.output_axes is None:
        return Opened(model, None, verdict)
    opened = model.clone()
    shapes = [_with_open(port, axis) for port, axis in zip(model.inputs, verdict.input_axes, strict=True)]
    try:
        opened.reshape(dict(enumerate(shapes)))
    except RuntimeError as error:
        refusal = f"the graph cannot be given an open batch dimension: {last_line(error)}"
        return Opened(model, None, BatchVerdict(reason=refusal))
    joining = Joining(
        input_axes=verdict.input_axes,
        output_axes=verdict.output_axes,
        max_rows=min(
            AUTO_MAX_ROWS if batch_size == "auto" else batch_size,
            *(_longest(shape[axis]) for shape, axis in zip(shapes, verdict.input_axes, strict=True)),
        ),
    )
    return Opened(opened, joining, verdict)


def _packed_ports(model: ov.Model) -> str:
    """Names the types of less than a byte, of which a row need not begin with a byte."""
    types = {port.get_element_type().get_type_name() for port in (*model.inputs, *model.outputs)}
    return ", ".join(f"elements of {name} take less than one" for name in sorted(types & PACKED_TYPES.keys()))


def _longest(dimension: ov.Dimension) -> int:
    """Returns the length that a dimension may have: a bound of the model's own is kept."""
    length = dimension.get_max_length()
    return length if length > 0 else sys.maxsize


def _with_open(port: ov.Output, axis: int) -> ov.PartialShape:
    shape = port.get_partial_shape()
    if shape[axis].is_static:
        shape[axis] = ov.Dimension(-1)
    return shape


def _first_dimensions(model: ov.Model) -> BatchVerdict:
    ranks = [port.get_partial_shape().rank for port in (*model.inputs, *model.outputs)]
    if any(rank.is_static and rank.get_length() == 0 for rank in ranks):
        return BatchVerdict(reason="an input or output is a scalar, which has no rows")
    return BatchVerdict(
        reason="the caller vouches for it",
        input_axes=(0,) * len(model.inputs),
        output_axes=(0,) * len(model.outputs),
    )
