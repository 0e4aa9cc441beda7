"""Finds the processes of a host that work right now and are pinned to some of our CPUs.

May not enter: what to think of them.  That is hostchecks.py.
"""

import os
import time
from collections.abc import Collection
from dataclasses import dataclass

import psutil

from ovray.devices.cpulist import format_cpu_list
from ovray.devices.leases import CoreLeases
from ovray.errors import ConfigError

#: How long processes are watched to see which of them work, and the share of one CPU that counts as work.
WATCH_S = 0.3
BUSY_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A process that shares CPUs with us."""

    pid: int
    name: str
    #: Those of our CPUs to which some of its threads are pinned.
    cpus: frozenset[int]

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.name}) on CPUs {format_cpu_list(self.cpus)}"


def find_pinned_neighbours(allowed_cpus: Collection[int]) -> tuple[Neighbour, ...]:
    """Return the busy processes with threads on some but not all of these CPUs, replicas of ovray left out.

    Threads count one by one: OpenVINO pins its workers while the mask of its main thread stays wide.
    """
    allowed = frozenset(allowed_cpus)
    found = []
    for process in _busy_processes():
        cpus = _pinned_within(process.pid, allowed)
        if cpus:
            found.append(Neighbour(pid=process.pid, name=_name(process), cpus=cpus))
    return tuple(sorted(found, key=lambda neighbour: neighbour.pid))


def _busy_processes() -> list[psutil.Process]:
    before = _cpu_seconds()
    time.sleep(WATCH_S)
    ours = _lease_owner_pids() | {os.getpid()}
    return [
        process
        for process, seconds in _cpu_seconds().items()
        if process in before and seconds - before[process] > BUSY_SHARE * WATCH_S and process.pid not in ours
    ]


def _cpu_seconds() -> dict[psutil.Process, float]:
    found = {}
    for process in psutil.process_iter(["cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:  # None: we may not look
            found[process] = times.user + times.system
    return found


def _lease_owner_pids() -> frozenset[int]:
    try:
        return frozenset(owner.pid for owner in CoreLeases().held().values())
    except ConfigError:
        return frozenset()


def _pinned_within(pid: int, allowed: frozenset[int]) -> frozenset[int]:
    shared: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            mask = allowed & os.sched_getaffinity(int(thread))
            if mask != allowed:
                shared |= mask
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        pass  # it ended, or hides from us: what was seen so far counts
    return frozenset(shared)


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return "ended meanwhile"
