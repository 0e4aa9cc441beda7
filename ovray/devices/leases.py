"""Gives each physical core of a host to one replica at a time, across pools, Rays, users and crashes.

May not enter: ray, openvino, placement choices.  Who chooses the cores: plan.py.

A lease is an exclusive ``flock`` on one small file per logical CPU.  The kernel drops it when the process dies,
however it dies, so there is nothing to clean up and no stale state to tell from a live one.  The text in the file
(pid, job) is for the person who has to wait; it is believed only while the lock is held.

How a pool gets cores, with others that do the same at any moment:

1. The driver probes the hosts.  Each says which CPUs are leased now (``CoreLeases.held``).
2. The plan leaves those CPUs out.  Where that leaves an entry nothing at all, it is planned as if they were free,
   and its replicas wait in step 3.
3. Each replica process calls ``acquire`` for its own cores, all or none, before it pins itself, and waits for up
   to ``--lease-timeout``.  That has the final say: between 1 and 3 somebody else may have taken a core.
4. ``CoresTakenError`` ends that replica.  The pool works on with the others; when none is left, it fails with
   this error.  A replica that waits holds nothing, and one that holds works, so two pools that start together
   cannot block each other for good.

A lease always covers whole physical cores: a replica that runs on one SMT sibling holds the other as well.

Files lie flat in a directory that every user may write to but only owners may delete from (sticky), so one user
cannot remove the lock of another.  Containers that share cores without sharing such a directory do not see each
other; mount one host directory into all of them and name it in ``OVRAY_LEASE_DIR``.
"""

import contextlib
import fcntl
import json
import os
import random
import stat
import tempfile
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from ovray.devices.cpulist import format_cpu_list, parse_cpu_list
from ovray.errors import ConfigError, ReplicaError

#: /run/lock is made for this and lives until the next boot.  The others are for systems where it belongs to root
#: alone: systemd-logind may empty a user's /dev/shm at logout (RemoveIPC), /tmp may be private or swept.
DIRECTORIES = (Path("/run/lock"), Path("/dev/shm"), Path("/tmp"))

#: Names a directory to use instead of these.
DIRECTORY_VARIABLE = "OVRAY_LEASE_DIR"

#: Even ``timeout_s=0`` tries for this long: ``held`` of another process touches each lock for microseconds.
GRACE_S = 0.1

#: Between tries; doubled up to the longest, each with a random part so that rivals do not keep in step.
SHORTEST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.25


class CoresTakenError(ReplicaError):
    """Other replicas on this host hold some of the cores; wait longer, or plan again without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOwner:
    """Says who holds a core."""

    #: As seen in the owner's own PID namespace; 0 where the owner has not written it yet.
    pid: int
    #: What the owner calls its work, e.g. ``ovray score resnet.xml, Ray job 02000000``.
    job: str
    #: Unix time.
    since_s: float

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.job})" if self.pid else "a process that has only just taken it"


_UNKNOWN_OWNER = LeaseOwner(pid=0, job="", since_s=0.0)


class Lease:
    """Holds cores until it is released or this process ends.

    Lifetime: not tied to the object; a lease that is dropped without ``release`` holds until the process ends.
    Children do not inherit it: the descriptors close on exec, and in a forked Python child at once.
    """

    def __init__(self, descriptors: Mapping[int, int]) -> None:
        self._descriptors = dict(descriptors)
        #: Every logical CPU held, SMT siblings included, ascending.
        self.cpus = tuple(sorted(descriptors))
        _live_leases.add(self)

    def release(self) -> None:
        """Give the cores back; a second call does nothing."""
        for descriptor in self._descriptors.values():
            os.ftruncate(descriptor, 0)
        self._close()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


#: A forked child shares the lock with its parent and would keep it after the parent's death.
_live_leases: "weakref.WeakSet[Lease]" = weakref.WeakSet()


def _close_in_forked_child() -> None:
    for lease in list(_live_leases):
        lease._close()  # not release(): that would empty the owner's text


os.register_at_fork(after_in_child=_close_in_forked_child)


class CoreLeases:
    """Is the host's register of leased cores; any number of these objects and processes share it."""

    def __init__(self, directory: Path | None = None, *, sysfs_root: Path = Path("/sys")) -> None:
        """Open the register; ``None`` means the directory that all of this host's ovrays use.

        Raises:
            ConfigError: there is no directory that every user of this host may write to.
        """
        self.directory = directory or default_directory()
        self._sysfs_root = sysfs_root

    def acquire(self, cpus: Iterable[int], owner: str, timeout_s: float) -> Lease:
        """Take these CPUs and their SMT siblings, all or none, waiting up to ``timeout_s`` for others to let go.

        Tries in ascending order and lets go of everything before it waits, so no two callers can block each other.

        Args:
            owner: what this process works on, shown to those who wait for its cores.

        Raises:
            CoresTakenError: the time is over; names each taken CPU with the pid and job of its owner.
            ConfigError: a lock file is not as ovray makes it, or cannot be made.
        """
        wanted = sorted(whole_cores(cpus, self._sysfs_root))
        give_up_at_s = time.monotonic() + max(timeout_s, GRACE_S)
        pause_s = SHORTEST_PAUSE_S
        while True:
            descriptors = self._try_all(wanted)
            if descriptors is not None:
                _sign(descriptors.values(), owner)
                return Lease(descriptors)
            if time.monotonic() >= give_up_at_s:
                raise CoresTakenError(self._explain(wanted, timeout_s))
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def held(self) -> dict[int, LeaseOwner]:
        """Return which logical CPUs of this host are leased at this moment, and by whom.

        Raises:
            ConfigError: a lock file is not as ovray makes it.
        """
        owners: dict[int, LeaseOwner] = {}
        for path in sorted(self.directory.glob(_file_name("*"))):
            with contextlib.suppress(FileNotFoundError, ValueError):
                owner = _owner_if_locked(path)
                if owner is not None:
                    owners[_cpu_of(path)] = owner
        return owners

    def _try_all(self, wanted: Sequence[int]) -> dict[int, int] | None:
        """Lock every CPU's file or none; return the open descriptors by CPU."""
        descriptors: dict[int, int] = {}
        for cpu in wanted:
            descriptor = _try_lock(self.directory / _file_name(f"{cpu:04d}"))
            if descriptor is None:
                for taken in descriptors.values():
                    os.close(taken)
                return None
            descriptors[cpu] = descriptor
        return descriptors

    def _explain(self, wanted: Sequence[int], timeout_s: float) -> str:
        held = self.held()
        cpus_by_owner: dict[LeaseOwner, list[int]] = {}
        for cpu in wanted:
            if cpu in held:
                cpus_by_owner.setdefault(held[cpu], []).append(cpu)
        taken = "; ".join(f"{format_cpu_list(cpus)} by {owner}" for owner, cpus in cpus_by_owner.items())
        free = format_cpu_list(os.sched_getaffinity(0) - set(held)) or "none"
        named = f"CPU {wanted[0]} is not" if len(wanted) == 1 else f"CPUs {format_cpu_list(wanted)} are not all"
        return (
            f"{named} free: {taken or 'taken and let go again just now'}; "
            f"free on this host: {free}; the replica was not started after waiting {timeout_s:g} s; "
            "wait longer with --lease-timeout SECONDS, name free cores with --devices CPU@CPUS, or share "
            "cores, slower for both, with --share-cores"
        )


def default_directory() -> Path:
    """Return the directory that every user of this host picks: the choice looks at the host, never at the user.

    Raises:
        ConfigError: ``OVRAY_LEASE_DIR`` is no writable directory, or no directory is open to every user.
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        if not (os.path.isdir(named) and os.access(named, os.W_OK | os.X_OK)):
            raise ConfigError(
                f"{DIRECTORY_VARIABLE}={named} is no directory that this user can write to; no core was leased; "
                f"make it with `install -d -m 1777 {named}`, or unset the variable"
            )
        return Path(named)
    for directory in DIRECTORIES:
        with contextlib.suppress(OSError):
            # With this mode only a file system that is mounted read-only can refuse, and it refuses everybody.
            if stat.S_IMODE(directory.stat().st_mode) == 0o1777 and os.access(directory, os.W_OK):
                return directory
    raise ConfigError(
        f"none of {', '.join(map(str, DIRECTORIES))} is open to every user (mode 1777); no core was "
        f"leased; name a directory in {DIRECTORY_VARIABLE}, or share cores with --share-cores"
    )


def whole_cores(cpus: Iterable[int], sysfs_root: Path = Path("/sys")) -> frozenset[int]:
    """Return these CPUs and all their SMT siblings; a CPU that sysfs does not know stands alone."""
    whole: set[int] = set()
    for cpu in cpus:
        siblings = sysfs_root / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        whole.add(cpu)
        with contextlib.suppress(FileNotFoundError):
            whole |= parse_cpu_list(siblings.read_text())
    return frozenset(whole)


def _file_name(cpu: str) -> str:
    return f"ovray-cpu-{cpu}.lock"


def _cpu_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _open(path: Path) -> int:
    """Open a lock file; refuse what somebody else may have put in its place."""
    # Without O_CREAT: with fs.protected_regular the kernel refuses that for other people's files in sticky
    # directories.  O_NONBLOCK: a FIFO in its place must not hang us.
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _bad_file(path, error.strerror or "cannot be opened") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _bad_file(path, "is no regular file")
    return descriptor


def _bad_file(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the lock file {path} is not as ovray makes it: {why}; no core was leased; remove it, or name another "
        f"directory in {DIRECTORY_VARIABLE}"
    )


def _create(path: Path) -> None:
    """Make a lock file that every user can open.  It appears under its name with the right mode, or not at all."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".ovray-") as draft:
            os.fchmod(draft.fileno(), 0o666)
            with contextlib.suppress(FileExistsError):
                os.link(draft.name, path)
    except OSError as error:
        raise _bad_file(path, f"cannot be made ({error.strerror})") from error


def _try_lock(path: Path) -> int | None:
    """Lock a file now; return its descriptor, or ``None`` if somebody else holds it."""
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        _create(path)
        descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        pass
    # Taken, or removed by an administrator since it was opened: the next try makes it anew.
    os.close(descriptor)
    return None


def _sign(descriptors: Iterable[int], job: str) -> None:
    text = json.dumps(asdict(LeaseOwner(pid=os.getpid(), job=job, since_s=time.time())))
    for descriptor in descriptors:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _owner_if_locked(path: Path) -> LeaseOwner | None:
    """Return who holds this file's lock, ``None`` if nobody does."""
    descriptor = _open(path)
    try:
        # Shared, so that two who look do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_owner(os.pread(descriptor, 4096, 0))
    else:
        return None
    finally:
        os.close(descriptor)


def _read_owner(text: bytes) -> LeaseOwner:
    try:
        fields = json.loads(text)
        return LeaseOwner(pid=int(fields["pid"]), job=str(fields["job"]), since_s=float(fields["since_s"]))
    except (ValueError, KeyError, TypeError):
        return _UNKNOWN_OWNER
