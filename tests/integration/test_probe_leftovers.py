"""What OpenVINO's telemetry or a driver forks may outlive the probe; nobody waits for it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovray.devices import probe

#: Stands for OpenVINO on the probe's path.  Like the real one it imports telemetry if it can, and leaves a child.
FAKE_OPENVINO = """
import pathlib, subprocess
here = pathlib.Path(__file__).parent
try:
    import openvino_telemetry
    (here / "telemetry").touch()
except ImportError:
    pass
child = subprocess.Popen(["sleep", "600"])
(here / "child").write_text(str(child.pid))

class Core:
    available_devices = []
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "openvino.py").write_text(FAKE_OPENVINO)
    (tmp_path / "openvino_telemetry.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_a_child_that_outlives_the_probe_does_not_hold_up_its_answer(fake: Path) -> None:
    host = probe.probe_local_host(timeout_s=60.0)

    assert host.topology.cores
    os.kill(int((fake / "child").read_text()), 0)  # it is still there, with the output it inherited


def test_the_probe_sends_no_telemetry(fake: Path) -> None:
    probe.probe_local_host()

    assert not (fake / "telemetry").exists()
