"""Decides how many rows one inference takes, and so with which static shapes a model is compiled.

May not enter: devices, data.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Literal

import openvino as ov

from ovray.errors import ConfigError
from ovray.replica.model import describe, reshape
from ovray.replica.signature import Port, Signature
from ovray.scoring.columns import Binding
from ovray.scoring.elements import ELEMENTS

#: ``auto`` fills about so much of a core's level-2 cache with the rows of one inference: large rows are best
#: inferred one by one, side by side.
AUTO_BATCH_BYTES = 128 * 1024
AUTO_BATCH_MAX_ROWS = 1024

#: ``auto`` leaves at least so many inferences to spread over the replicas.
AUTO_MIN_INFERENCES = 64

#: Small rows of large data sets come in larger batches: the fixed cost of one, about 0.1 ms of Python, is what
#: counts there.  2 M rows x 32 floats through a 32-64-64-1 MLP, read, inferred, written on one core, took 0.82 s
#: of CPU time with 4,096 or 8,192 at once and 0.95 s with 1,024 (the best of three rounds, in turn).
AUTO_SMALL_ROW_BYTES = 1024
AUTO_SMALL_ROWS_BYTES = 512 * 1024
AUTO_SMALL_ROWS_MAX = 4096
AUTO_SMALL_ROWS_MIN_INFERENCES = 512

BatchSize = int | Literal["auto"]


def fix_shapes(
    model: ov.Model, bindings: Sequence[Binding], wanted: BatchSize, rows: int, rows_together: int | None = None
) -> tuple[int, tuple[Port, ...]]:
    """Gives a model static shapes; returns the rows that one inference takes, and the outputs that follow.

    A model with a static batch keeps it, unless a number is wanted; one without a batch dimension takes one row.

    Args:
        model: is reshaped in place.
        bindings: what the columns made of its inputs.
        wanted: rows in one inference.
        rows: of the data set.
        rows_together: the most that come without a break; ``auto`` takes no more.

    Raises:
        ConfigError: the model cannot take that many rows at once, or mixes rows up.
    """
    before = describe(model)
    batch_rows = _choose(before, bindings, wanted) or _auto(bindings, rows, rows_together)
    shapes = {
        binding.input_name: (*((batch_rows,) if binding.has_batch else ()), *binding.row_shape)
        for binding in bindings
    }
    if any(shapes[port.name] != port.shape for port in before.inputs):
        reshape(model, shapes)
    has_batch = any(binding.has_batch for binding in bindings)
    outputs = describe(model).outputs
    if not has_batch:
        return batch_rows, outputs
    return batch_rows, tuple(_with_rows_first(port, batch_rows) for port in outputs)


def _choose(signature: Signature, bindings: Sequence[Binding], wanted: BatchSize) -> int | None:
    """Returns the rows that are wanted, or that the model declares; ``None`` where neither says."""
    if not all(binding.has_batch for binding in bindings):
        if wanted not in ("auto", 1):
            raise ConfigError(
                f"--batch-size {wanted}: a row fills the model's input, which leaves no dimension for more rows;"
                " leave --batch-size out"
            )
        return 1
    if wanted != "auto":
        return wanted
    declared = {port.shape[0] for port in signature.inputs if port.shape}
    fixed = {size for size in declared if size is not None}
    if len(fixed) > 1:
        raise ConfigError(
            f"the inputs of the model have different batch sizes, {sorted(fixed)}; give one with --batch-size"
        )
    return fixed.pop() if fixed else None


def _auto(bindings: Sequence[Binding], rows: int, rows_together: int | None) -> int:
    row_bytes = sum(
        prod(binding.row_shape) * ELEMENTS[binding.element_type].dtype.itemsize for binding in bindings
    )
    row_bytes = max(row_bytes, 1)
    most = min(AUTO_BATCH_BYTES // row_bytes, AUTO_BATCH_MAX_ROWS, rows // AUTO_MIN_INFERENCES)
    if row_bytes <= AUTO_SMALL_ROW_BYTES:
        of_small = (
            AUTO_SMALL_ROWS_BYTES // row_bytes,
            AUTO_SMALL_ROWS_MAX,
            rows // AUTO_SMALL_ROWS_MIN_INFERENCES,
        )
        most = max(most, min(of_small))
    most = min(most, rows_together or most)
    return 1 << (max(most, 1).bit_length() - 1)


def _with_rows_first(port: Port, batch_rows: int) -> Port:
    shape = port.shape
    if shape is None or (shape and shape[0] in (batch_rows, None)):
        return port
    if batch_rows == 1:
        return replace(port, shape=(1, *shape))
    raise ConfigError(
        f"output {port.name!r} has the shape {list(shape)} for {batch_rows} rows: its first dimension does not"
        " count the rows; score them one by one with --batch-size 1"
    )
