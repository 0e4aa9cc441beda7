"""Makes requests that bear a number, and tells from an answer alone whether it is that number's.

The model adds up each row, as a simulated device does that is told ``answer=sum``: so both kinds of replica can be
checked.  May not enter: Ray, sending.
"""

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

#: Columns of most requests, and of those that are large enough for shared memory.
WIDTH = 8
LARGE_WIDTH = 5_000
LARGE_EVERY = 20

#: 32 MB.
MEAL_WIDTH = 8_000_000

#: Numbers stay below; larger ones begin again.
NUMBERS = 1 << 15

#: In place of a number it is poison: OpenVINO 2026.4's CPU plugin looks into its table without a check whether
#: that is so long, and the process ends with a segmentation fault.
POISON = 1 << 30


def a_row_sum() -> ov.Model:
    """``x`` f32[?,?] in; ``sum`` f32[?,1] out; each row's first element must be below ``NUMBERS``."""
    x = ops.parameter(ov.PartialShape([-1, -1]), ov.Type.f32)
    x.output(0).get_tensor().set_names({"x"})
    first = ops.gather(x, ops.constant(np.array([0])), ops.constant(np.int64(1)))
    nothing = ops.gather_nd(ops.constant(np.zeros(NUMBERS, np.float32)), ops.convert(first, "i32"), 0)
    total = ops.add(ops.reduce_sum(x, [1], keep_dims=True), ops.unsqueeze(nothing, [1]))
    total.output(0).get_tensor().set_names({"sum"})
    return ov.Model([ops.result(total)], [x], "row_sum")


def numbered(number: int) -> NDArray[np.float32]:
    """Makes request ``number``: float32[rows, columns] of small whole numbers, whose sums no rounding blurs."""
    return _made(number, LARGE_WIDTH if number % LARGE_EVERY == 0 else WIDTH)


def as_a_meal(number: int) -> NDArray[np.float32]:
    """Makes request ``number`` so large that who has little memory left dies of it."""
    return _made(number, MEAL_WIDTH)


def is_answer_to(number: int, columns: int, answer: NDArray[Any]) -> bool:
    """Holds an answer against request ``number`` of so many columns."""
    wanted = _made(number, columns).sum(axis=1, dtype=np.float64, keepdims=True)
    return answer.shape == wanted.shape and bool((answer == wanted).all())


def _made(number: int, columns: int) -> NDArray[np.float32]:
    rows = 1 + (number % 10 == 0)
    made: NDArray[np.float32] = np.zeros((rows, columns), np.float32)
    made[:, 1:LARGE_WIDTH] = np.arange(1, min(columns, LARGE_WIDTH)) % 7
    made[:, 0] = number
    return made
