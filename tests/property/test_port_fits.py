"""What a port takes is what OpenVINO says of its type and partial shape."""

import openvino as ov
import openvino.opset13 as ops
from hypothesis import given
from hypothesis import strategies as st

from ovray.runtime.ports import Fit

DIMENSIONS = st.sampled_from(["?", "0", "1", "3", "2..4", "..3", "3.."])
PARTIAL = st.one_of(st.just("..."), st.lists(DIMENSIONS, max_size=4).map(lambda all: f"[{','.join(all)}]"))


@given(PARTIAL, st.lists(st.integers(0, 5), max_size=4))
def test_shapes_are_taken_that_openvino_calls_compatible(partial: str, shape: list[int]) -> None:
    wanted = ov.PartialShape(partial)
    fit = Fit(ops.parameter(wanted, ov.Type.f32).output(0))

    assert fit.takes(ov.Type.f32, shape) == wanted.compatible(ov.PartialShape(shape))
    assert not fit.takes(ov.Type.i32, shape)
    assert fit.has_open_batch == (wanted.rank.is_static and len(wanted) > 0 and wanted[0].is_dynamic)
