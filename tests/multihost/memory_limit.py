"""Limits the memory of processes by a control group, as container runtimes do; the kernel kills who exceeds it.

May not enter: hosts, Ray.  Groups bear the number of the process that made them, and of the namespace in which
that is its number, so that a later run can tell which are left over, and one beside it has others.
"""

import os
from pathlib import Path

import psutil

_NAME = f"ovm-{os.stat('/proc/self/ns/pid').st_ino}"
_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


class MemoryLimit:
    """Holds processes that together get so much memory beyond what they have already."""

    def __init__(self, limit_bytes: int) -> None:
        _clear_what_dead_runs_left()
        is_v1 = _V1.is_dir()
        self._folder = (_V1 if is_v1 else _V2) / f"{_NAME}-{os.getpid()}"
        self._folder.mkdir()
        limit = "memory.limit_in_bytes" if is_v1 else "memory.max"
        self._events = self._folder / ("memory.oom_control" if is_v1 else "memory.events")
        try:
            (self._folder / limit).write_text(str(limit_bytes))
        except OSError:
            self._folder.rmdir()
            raise

    def add(self, pid: int) -> None:
        """What a process has is not moved with it; only what it takes from now on counts."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed here."""
        fields = dict(line.split() for line in self._events.read_text().splitlines())
        return int(fields["oom_kill"])

    def close(self) -> None:
        """The processes must be gone."""
        self._folder.rmdir()


def why_not() -> str | None:
    """Return why memory cannot be limited here; ``None`` if it can."""
    try:
        MemoryLimit(1 << 30).close()
    except OSError as error:
        return f"control groups for memory cannot be made here: {error}"
    return None


def _clear_what_dead_runs_left() -> None:
    for root in (_V1, _V2):
        for folder in root.glob(f"{_NAME}-*"):
            if not psutil.pid_exists(int(folder.name.rpartition("-")[2])):
                folder.rmdir()
