import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from ovray.scoring.elements import ELEMENTS, to_arrow, to_numpy

NUMBERS = [name for name in ELEMENTS if name not in ("boolean", "string")]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_go_to_arrow_and_back_without_a_copy(name: str) -> None:
    values = np.arange(10).astype(ELEMENTS[name].dtype)

    column = to_arrow(values, ELEMENTS[name].arrow)
    back = to_numpy(column.slice(3, 4))

    assert column.type == ELEMENTS[name].arrow
    assert back.tolist() == [3, 4, 5, 6]
    assert np.shares_memory(back, values)
    assert to_numpy(column.slice(3, 0)).tolist() == []
    assert len(to_arrow(values[:0], column.type)) == 0


def test_nan_is_a_number() -> None:
    column = to_arrow(np.array([np.nan, 1.0], np.float32), pa.float32())

    assert column.null_count == 0


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([True, False, True]), pa.bool_()),
        (np.array(["a", "", "ü"], object), pa.string()),
        (np.array([1.5, 2.5], np.float64), pa.float32()),
        (np.arange(6, dtype=np.float32)[::2], pa.float32()),
    ],
)
def test_what_is_stored_otherwise_is_converted(values: "np.ndarray", kind: pa.DataType) -> None:
    column = to_arrow(values, kind)

    assert column.type == kind
    assert to_numpy(column).tolist() == values.tolist()


def test_numbers_need_no_pandas() -> None:
    script = (
        "import sys, numpy as np, pyarrow as pa; from ovray.scoring.elements import to_arrow, to_numpy;"
        "to_numpy(to_arrow(np.arange(3), pa.int64())); print('pandas' in sys.modules)"
    )

    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert printed.stdout == "False\n"
