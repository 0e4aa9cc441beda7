"""How many rows one inference takes where the caller leaves it open."""

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from ovray.replica.model import describe
from ovray.scoring.batching import fix_shapes
from ovray.scoring.columns import Binding


def a_model(values_per_row: int) -> ov.Model:
    data = ops.parameter([-1, values_per_row], np.float32, name="x")
    data.output(0).set_names({"x"})
    result = ops.relu(data)
    result.output(0).set_names({"y"})
    return ov.Model([result], [data], "relu")


@pytest.mark.parametrize(
    ("values_per_row", "rows", "batch_rows"),
    [
        (32, 8_000_000, 4096),  # small rows, many of them
        (32, 1_000_000, 1024),  # enough inferences are left to spread
        (32, 2_000, 16),
        (32, 10, 1),
        (256, 8_000_000, 512),
        (257, 8_000_000, 64),  # more than a KiB: what fits beside the model
        (3 * 224 * 224, 1_000_000, 1),
    ],
)
def test_auto_takes_more_rows_the_smaller_they_are_and_the_more_there_are(
    values_per_row: int, rows: int, batch_rows: int
) -> None:
    model = a_model(values_per_row)
    binding = Binding(
        input_name="x",
        index=0,
        columns=("x",),
        element_type="f32",
        row_shape=(values_per_row,),
        cell_shape=(values_per_row,),
        has_batch=True,
    )

    chosen, _ = fix_shapes(model, [binding], "auto", rows)

    assert chosen == batch_rows
    assert describe(model).inputs[0].shape == (batch_rows, values_per_row)
