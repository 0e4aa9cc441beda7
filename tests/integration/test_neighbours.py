"""Looks for real processes that work on pinned cores."""

import os
from pathlib import Path

import pytest

from ovray.devices import neighbours
from ovray.devices.neighbours import Neighbour, find_pinned_neighbours
from tests.integration.processes import running

MY_CPUS = sorted(os.sched_getaffinity(0))

pytestmark = pytest.mark.skipif(len(MY_CPUS) < 2, reason="on one core nothing is narrower than all")

#: Works for as long as it is left alone; with "main" the mask of the main thread is narrow, with "worker"
#: only that of a thread, as OpenVINO does it.
BUSY = """
import os, sys, threading
def work():
    os.sched_setaffinity(0, {int(sys.argv[2])})
    print("working", flush=True)
    while True:
        pass
if sys.argv[1] == "main":
    work()
else:
    threading.Thread(target=work).start()
"""

IDLE = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print('idle'); sys.stdin.readline()"

LEASED = """
from ovray.devices.leases import CoreLeases
CoreLeases().acquire([int(__import__("sys").argv[2])], "a replica", 5.0)
"""


def _cpus_of(pid: int, found: tuple[Neighbour, ...]) -> frozenset[int] | None:
    return next((neighbour.cpus for neighbour in found if neighbour.pid == pid), None)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any use of the CPU counts as work, so that a crowded test machine does not hide it."""
    monkeypatch.setattr(neighbours, "WATCH_S", 1.0)
    monkeypatch.setattr(neighbours, "BUSY_SHARE", 0.01)


@pytest.mark.parametrize("pinned", ["main", "worker"])
def test_a_busy_process_with_pinned_threads_is_found(pinned: str) -> None:
    with running(BUSY, pinned, str(MY_CPUS[0])) as process:
        assert process.read_line() == "working"

        assert _cpus_of(process.pid, find_pinned_neighbours(MY_CPUS)) == {MY_CPUS[0]}


def test_an_idle_process_does_no_harm() -> None:
    with running(IDLE, str(MY_CPUS[0])) as process:
        assert process.read_line() == "idle"

        assert _cpus_of(process.pid, find_pinned_neighbours(MY_CPUS)) is None


def test_a_replica_with_a_lease_is_no_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVRAY_LEASE_DIR", str(tmp_path))
    with running(LEASED + BUSY, "main", str(MY_CPUS[0])) as process:
        assert process.read_line() == "working"

        assert _cpus_of(process.pid, find_pinned_neighbours(MY_CPUS)) is None
