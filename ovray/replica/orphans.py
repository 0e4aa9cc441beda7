"""Ends a replica whose driver is gone, at once, so that its cores are free for others.

May not enter: ray, openvino, work.  Ray ends the actors of a driver that died, too, but takes seconds over it
(2.9 s after kill -9 on two cores), and a core that nobody needs should be leased again within one.

Only a driver of the same machine and PID namespace can be watched.  Ray's own way remains for all others.
"""

import os
import select
import signal
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """Names one process and no other, wherever this is read: numbers of processes come again."""

    pid: int
    #: In clock ticks since the machine started.
    started_ticks: int
    #: Of the PID namespace: a container counts its processes for itself.  Empty where a sandbox hides it.
    namespace: str
    #: The kernel's boot id; empty where a sandbox hides it.
    machine: str


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    return ProcessIdentity(
        pid=os.getpid(),
        started_ticks=_started_ticks(os.getpid()),
        namespace=_namespace(),
        machine=_machine(),
    )


def end_with(driver: ProcessIdentity) -> None:
    """Kill this process as soon as the driver ends, if that can be seen from here.

    With SIGKILL: what a replica has not committed is not wanted by anybody, and everything that is committed was
    so in one step.
    """
    here = this_process()
    is_known = bool(here.namespace and here.machine)
    if not is_known or (driver.namespace, driver.machine) != (here.namespace, here.machine):
        return
    try:
        # First the descriptor, then the look whose it is: from here on the number cannot change its owner.
        descriptor = os.pidfd_open(driver.pid)
    except ProcessLookupError:
        _end()
    except OSError:
        return  # a kernel before 5.3, or a sandbox without pidfds
    else:
        if _started_ticks(driver.pid) != driver.started_ticks:
            _end()
        threading.Thread(target=_wait_and_end, args=(descriptor,), name="ovray-orphan", daemon=True).start()


def _wait_and_end(descriptor: int) -> None:
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)
    ended.poll()
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _started_ticks(pid: int) -> int:
    """Return field 22 of /proc/<pid>/stat (proc_pid_stat(5)); 0 for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The second field, the name in parentheses, may hold spaces and parentheses of its own.
    return int(text.rpartition(")")[2].split()[19])


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
