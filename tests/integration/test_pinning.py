"""Pins real processes and reads the answer from /proc."""

import os

import pytest

from ovray.devices.cpulist import format_cpu_list
from ovray.errors import ReplicaError
from ovray.replica import pinning
from tests.integration.processes import running
from tests.waiting import DEADLINE_S

MY_CPUS = sorted(os.sched_getaffinity(0))

#: Threads start threads all the time, each generation from the one before, while the process is pinned.
RESTLESS = """
import os, sys, threading
from ovray.replica.pinning import pin_process
from tests.waiting import DEADLINE_S

def breed():
    born.release()
    if not stop.wait(0.001):
        threading.Thread(target=breed, daemon=True).start()
    stop.wait(DEADLINE_S)

stop, born = threading.Event(), threading.Semaphore(0)
wide = os.sched_getaffinity(0)
for _ in range(20):
    threading.Thread(target=breed, daemon=True).start()
pin_process([int(sys.argv[1])])
print("pinned")
while born.acquire(blocking=False):
    pass
assert all(born.acquire(timeout=DEADLINE_S) for _ in range(100)), "no more threads are born"
stop.set()
idle = threading.Event()
for _ in range(5):
    threading.Thread(target=idle.wait, daemon=True).start()
print("more threads")
sys.stdin.readline()
"""

PIN_AND_REPORT = """
import sys
from ovray.replica.pinning import pin_process
from ovray.errors import ReplicaError
try:
    pin_process([int(cpu) for cpu in sys.argv[1].split(",") if cpu])
except ReplicaError as error:
    print(error)
else:
    print("pinned")
sys.stdin.readline()
"""


@pytest.mark.skipif(len(MY_CPUS) < 2, reason="pinning shows only where there is a choice of cores")
def test_every_thread_is_on_its_core_while_threads_are_being_born() -> None:
    with running(RESTLESS, str(MY_CPUS[-1])) as script:
        assert script.read_line() == "pinned"
        affinities = pinning.thread_affinities(script.pid)

        assert len(affinities) > 20
        assert set(affinities.values()) == {frozenset({MY_CPUS[-1]})}

        assert script.read_line() == "more threads"
        assert set(pinning.thread_affinities(script.pid).values()) == {frozenset({MY_CPUS[-1]})}


def test_an_unpinned_process_shows_the_mask_it_was_born_with() -> None:
    with running("import sys; print('up'); sys.stdin.readline()") as script:
        assert script.read_line() == "up"

        assert pinning.thread_affinities(script.pid) == {script.pid: frozenset(MY_CPUS)}


def test_a_process_that_is_gone_has_no_threads() -> None:
    with running("print('up')") as script:
        script.process.wait(DEADLINE_S)

        assert pinning.thread_affinities(script.pid) == {}


def test_cores_that_the_kernel_does_not_give_are_named() -> None:
    absent = os.cpu_count() or 1
    asked = [MY_CPUS[0], absent + 500]
    with running(PIN_AND_REPORT, f"{asked[0]},{asked[1]}") as script:
        message = script.read_line()

    assert message.startswith(f"this process may not run on CPUs {asked[1]} of its CPUs {format_cpu_list(asked)}")
    assert "`ovray devices`" in message


@pytest.mark.parametrize("cpus", ["", "-1", "1000000000"])
def test_cores_that_cannot_exist_are_an_error_of_ours(cpus: str) -> None:
    with running(PIN_AND_REPORT, cpus) as script:
        assert script.read_line().startswith("this process may not run on CPUs")


def test_a_thread_that_keeps_leaving_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "_move_strays", lambda wanted: 1)

    with pytest.raises(ReplicaError, match=r"keep leaving CPUs .* after 100 passes.*--share-cores"):
        pinning.pin_process(MY_CPUS)
