"""Compiling leaves a process in which signals still arrive."""

import subprocess
import sys

import pytest

from tests.waiting import DEADLINE_S

_COMPILES_TWICE_AND_IS_INTERRUPTED = """
import signal, threading
import numpy as np
import openvino as ov
from openvino import opset13
from ovray.replica.compiling import compile_for

def compiled():
    parameter = opset13.parameter([1, 4], np.float32)
    return compile_for("CPU", ov.Model([opset13.relu(parameter)], [parameter]), {})[0]

first, second = compiled(), compiled()
LET_GO
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""

WAYS = {
    "in the order they came": "del first; del second",
    "by another thread": "held = [first, second]; del first, second; gone = threading.Thread(target=held.clear);"
    " gone.start(); gone.join()",
}


@pytest.mark.parametrize("let_go", WAYS.values(), ids=WAYS)
def test_models_may_be_let_go_of_in_any_way(let_go: str) -> None:
    script = _COMPILES_TWICE_AND_IS_INTERRUPTED.replace("LET_GO", let_go)

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S)

    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr
