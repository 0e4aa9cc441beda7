"""Puts a whole process on its cores, and shows where the threads of a process may run.

May not enter: openvino.  OpenVINO's CPU plugin reads the main thread's mask at its first touch and keeps it for
the life of the process, so ``pin_process`` comes first and the import of anything that loads the plugin after it.
Which cores: plan.py.  Whether they are free: leases.py, which comes before this.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ovray.devices.cpulist import format_cpu_list, parse_cpu_list
from ovray.errors import ReplicaError

#: A thread takes the mask of the one that starts it, so strays can only come from strays and two or three passes
#: are the rule.  Only a thread that keeps moving itself away gets as far as this.
MAX_PASSES = 100

#: One clean pass would do if /proc were exact; its listing may skip an entry when a thread ends meanwhile.
CLEAN_PASSES = 2


def pin_process(cpus: Sequence[int]) -> None:
    """Let every thread of this process, now and later, run on ``cpus`` and nowhere else.

    Threads that are born meanwhile are caught by looking again until nobody is off the mask.

    Raises:
        ReplicaError: the kernel gave other cores than these (offline, or outside the container's cpuset), or a
            thread keeps changing its own mask.
    """
    wanted = frozenset(cpus)
    _check_that_kernel_gives(wanted)
    clean_passes = 0
    for _ in range(MAX_PASSES):
        clean_passes = clean_passes + 1 if _move_strays(wanted) == 0 else 0
        if clean_passes == CLEAN_PASSES:
            return
    raise ReplicaError(
        f"threads of process {os.getpid()} keep leaving CPUs {format_cpu_list(wanted)}, also after {MAX_PASSES} "
        "passes; the replica was not started; look for code in this process that sets its own affinity, or share "
        "the cores with --share-cores"
    )


def thread_affinities(pid: int) -> dict[int, frozenset[int]]:
    """Return the CPUs on which each thread of a process may run, by thread id; empty if the process is gone."""
    found: dict[int, frozenset[int]] = {}
    for thread_id in _thread_ids(pid):
        try:
            status = Path(f"/proc/{pid}/task/{thread_id}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended between the listing and the reading
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        found[thread_id] = parse_cpu_list(lines["Cpus_allowed_list"])
    return found


def _check_that_kernel_gives(wanted: frozenset[int]) -> None:
    """Move the calling thread; the kernel drops CPUs that it cannot give without a word, so ask it back."""
    given: set[int] = set()
    try:
        os.sched_setaffinity(0, wanted)
        given = os.sched_getaffinity(0)
    except (OSError, ValueError, OverflowError):
        pass  # none of them can be given: said below, in full
    if given != wanted or not wanted:
        missing = format_cpu_list(wanted - given) or "(none named)"
        raise ReplicaError(
            f"this process may not run on CPUs {missing} of its CPUs {format_cpu_list(wanted) or '(none)'}; "
            "the replica was not started; they are offline or outside the container's cpuset: "
            "`ovray devices` lists the CPUs that can be used"
        )


def _move_strays(wanted: frozenset[int]) -> int:
    """Set the mask of every thread that is off it; return how many there were."""
    strays = 0
    for thread_id in _thread_ids(os.getpid()):
        try:
            if os.sched_getaffinity(thread_id) != wanted:
                strays += 1
                os.sched_setaffinity(thread_id, wanted)
        except ProcessLookupError:
            continue  # a thread that ended is nobody's stray
        except PermissionError as error:
            raise ReplicaError(
                f"thread {thread_id} of process {os.getpid()} cannot be moved to CPUs {format_cpu_list(wanted)} "
                f"({error.strerror}); the replica was not started; allow sched_setaffinity in this container's "
                "security profile, or share the cores with --share-cores"
            ) from error
    return strays


def _thread_ids(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []
