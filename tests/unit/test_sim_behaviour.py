"""What a simulated device answers, and what troubles it: files and numbers, no device."""

import threading
from pathlib import Path

import numpy as np
import pytest

from ovray.errors import ConfigError, ReplicaError
from ovray.replica.signature import Port, Signature
from ovray.replica.sim_behaviour import Trouble, check_summable, filled, row_sums


def a_port(kind: str, name: str = "y") -> Port:
    return Port(name=name, names=(name,), shape=(None, 2), element_type=kind)


@pytest.mark.parametrize(("said", "speed"), [("", 1.0), ("0.1", 0.1), ("2\n", 2.0)])
def test_a_file_says_how_fast_a_device_is(tmp_path: Path, said: str, speed: float) -> None:
    trouble = Trouble(tmp_path / "trouble")
    without_file = trouble.speed()
    (tmp_path / "trouble").write_text(said)

    assert (without_file, trouble.speed()) == (1.0, speed)


@pytest.mark.parametrize(
    ("said", "error"), [("fails", "fails, as .*trouble says"), ("0", "legal are"), ("often", "'often'; legal are")]
)
def test_a_device_fails_where_the_file_says_so_or_says_nonsense(tmp_path: Path, said: str, error: str) -> None:
    (tmp_path / "trouble").write_text(said)

    with pytest.raises(ReplicaError, match=error):
        Trouble(tmp_path / "trouble").speed()


def test_a_device_hangs_as_long_as_the_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "trouble").write_text("hangs")
    speeds: list[float] = []
    asking = threading.Thread(target=lambda: speeds.append(Trouble(tmp_path / "trouble").speed()))

    asking.start()
    asking.join(0.15)
    hung = asking.is_alive()
    (tmp_path / "trouble").unlink()
    asking.join(60)

    assert hung
    assert speeds == [1.0]


def test_each_row_of_an_answer_is_the_sum_of_its_inputs() -> None:
    sums = row_sums([np.array([[1, 2], [3, 4]], np.uint8), np.array([10.0], np.float32)], rows=2)

    assert sums.tolist() == [13.0, 17.0]
    assert filled(a_port("f32"), (2, 2), sums).tolist() == [[13.0, 13.0], [17.0, 17.0]]
    assert filled(a_port("i64"), (3,), sums).tolist() == [30, 30, 30]
    assert filled(a_port("f16"), (), sums).tolist() == 30.0


@pytest.mark.parametrize("kind", ["string", "u4", "bf16"])
def test_what_cannot_be_added_up_is_refused_before_anything_starts(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"'y' of the model is {kind}; leave answer out"):
        check_summable(Signature(name="m", inputs=(a_port("f32", "x"),), outputs=(a_port(kind),)))
