"""Leases cores between real processes, with real locks."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovray.devices.leases import CoreLeases
from tests.integration.processes import running
from tests.waiting import DEADLINE_S

#: Takes CPUs, says so, holds them until told otherwise.
HOLDER = """
import sys
from pathlib import Path
from ovray.devices.leases import CoreLeases
lease = CoreLeases(Path(sys.argv[1]), sysfs_root=Path(sys.argv[1])).acquire(
    [int(cpu) for cpu in sys.argv[2].split(",")], "night run", float(sys.argv[3]))
print("leased", *lease.cpus)
sys.stdin.readline()
lease.release()
print("released")
sys.stdin.readline()
"""

#: A holder that leaves two kinds of children behind when it is killed; they end when its input does.
HOLDER_WITH_CHILDREN = """
import os, subprocess, sys
from pathlib import Path
from ovray.devices.leases import CoreLeases
lease = CoreLeases(Path(sys.argv[1]), sysfs_root=Path(sys.argv[1])).acquire([0, 1], "parent", 5.0)
forked = os.fork()
if forked == 0:
    os.close(1)
    os.read(0, 1)
    os._exit(0)
started = subprocess.Popen(["cat"], stdout=subprocess.DEVNULL, close_fds=False)
print(forked, started.pid)
sys.stdin.readline()
"""

#: Takes and gives back the same CPUs many times, in an order of its own; a file in a folder that only its
#: holder may make proves that nobody else was there.
RACER = """
import os, sys
from pathlib import Path
from ovray.devices.leases import CoreLeases
directory = Path(sys.argv[1])
leases = CoreLeases(directory, sysfs_root=directory)
print("ready")
sys.stdin.readline()
for turn in range(300):
    cpus = [[0, 1], [1, 2], [2, 0], [0, 1, 2]][(turn + int(sys.argv[2])) % 4]
    with leases.acquire(cpus, "racer", 60.0) as lease:
        for cpu in lease.cpus:
            os.close(os.open(directory / f"inside-{cpu}", os.O_CREAT | os.O_EXCL))
        for cpu in lease.cpus:
            os.unlink(directory / f"inside-{cpu}")
print("done")
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory like /run/lock: pytest's own belong to one user, all the way up."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o1777)
        yield Path(directory)


def _leases(directory: Path) -> CoreLeases:
    return CoreLeases(directory, sysfs_root=directory)


def test_two_processes_hold_disjoint_cores(tmp_path: Path) -> None:
    with running(HOLDER, str(tmp_path), "0,1", "1") as one, running(HOLDER, str(tmp_path), "2,3", "1") as two:
        assert one.read_line() == "leased 0 1"
        assert two.read_line() == "leased 2 3"

        held = _leases(tmp_path).held()

        assert {cpu: owner.pid for cpu, owner in held.items()} == {0: one.pid, 1: one.pid, 2: two.pid, 3: two.pid}
        assert {owner.job for owner in held.values()} == {"night run"}


def test_who_waits_gets_the_cores_when_they_are_given_back(tmp_path: Path) -> None:
    with running(HOLDER, str(tmp_path), "0,1", "1") as first:
        assert first.read_line() == "leased 0 1"
        with running(HOLDER, str(tmp_path), "1,2", str(DEADLINE_S)) as second:
            first.tell("release")
            assert first.read_line() == "released"

            assert second.read_line() == "leased 1 2"


def test_cores_of_a_killed_process_can_be_leased(tmp_path: Path) -> None:
    with running(HOLDER, str(tmp_path), "0,1", "1") as holder:
        assert holder.read_line() == "leased 0 1"
        holder.kill()

        with _leases(tmp_path).acquire([0, 1], "heir", DEADLINE_S) as lease:
            assert {0, 1} <= set(lease.cpus)


def test_children_of_a_killed_holder_do_not_keep_its_cores(tmp_path: Path) -> None:
    with running(HOLDER_WITH_CHILDREN, str(tmp_path)) as holder:
        children = [int(pid) for pid in holder.read_line().split()]
        try:
            holder.kill()

            assert _leases(tmp_path).acquire([0, 1], "heir", 1.0).cpus == (0, 1)
        finally:
            for child in children:
                os.kill(child, 9)


def test_a_forked_child_does_not_end_its_parents_lease(tmp_path: Path) -> None:
    with running(HOLDER_WITH_CHILDREN, str(tmp_path)) as holder:
        forked, started = (int(pid) for pid in holder.read_line().split())
        os.kill(forked, 9)
        os.kill(started, 9)

        assert {owner.pid for owner in _leases(tmp_path).held().values()} == {holder.pid}


def test_racers_for_the_same_cores_are_never_there_together_and_all_finish(tmp_path: Path) -> None:
    with (
        running(RACER, str(tmp_path), "0") as one,
        running(RACER, str(tmp_path), "1") as two,
        running(RACER, str(tmp_path), "2") as three,
    ):
        racers = (one, two, three)
        assert [racer.read_line() for racer in racers] == ["ready"] * 3

        for racer in racers:
            racer.tell("go")

        assert [racer.read_line() for racer in racers] == ["done"] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_can_lease_what_the_first_has_given_back(open_directory: Path) -> None:
    previous_umask = os.umask(0o077)
    try:
        _leases(open_directory).acquire([0], "root's", 1.0).release()
    finally:
        os.umask(previous_umask)
    as_nobody = "import os\nos.setgid(65534)\nos.setuid(65534)\n"

    with running(
        "from ovray.devices import leases\n" + as_nobody + HOLDER, str(open_directory), "0,1", "1"
    ) as nobody:
        assert nobody.read_line() == "leased 0 1"
        assert sorted(_leases(open_directory).held()) == [0, 1]
