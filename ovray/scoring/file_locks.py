"""Locks files of a disk with ``flock``, and knows where that means something.

May not enter: what the locks are for (folder_lock.py, fence.py).  ``flock`` and not POSIX record locks: those are
dropped when any descriptor of the file is closed, and two jobs in one process would not see each other.
"""

import errno
import fcntl
import os
from enum import Enum

import pyarrow.fs as pafs

from ovray.scoring.files import resolve

#: What file systems answer that cannot lock: Lustre mounted without ``flock``, some of FUSE, NFS without a daemon.
_CANNOT_LOCK = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})


class Kind(Enum):
    """Says with whom a lock is shared."""

    SHARED = fcntl.LOCK_SH
    EXCLUSIVE = fcntl.LOCK_EX


class Attempt(Enum):
    """Says what came of trying to lock."""

    LOCKED = "locked"
    TAKEN = "taken"
    UNSUPPORTED = "unsupported"


def local_path(location: str) -> str | None:
    """Return the path of a folder on a disk, network disks included; ``None`` for stores without file locks."""
    filesystem, path = resolve(location)
    return path if isinstance(filesystem, pafs.LocalFileSystem) else None


def try_lock(descriptor: int, kind: Kind) -> Attempt:
    """Lock an open file now, or say why not."""
    return _flock(descriptor, kind.value | fcntl.LOCK_NB)


def wait_for_lock(descriptor: int, kind: Kind) -> Attempt:
    """Lock an open file; only where whoever holds it lets go at once."""
    return _flock(descriptor, kind.value)


def is_still(descriptor: int, path: str) -> bool:
    """Return whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _flock(descriptor: int, operation: int) -> Attempt:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return Attempt.TAKEN
    except OSError as error:
        if error.errno in _CANNOT_LOCK:
            return Attempt.UNSUPPORTED
        raise
    return Attempt.LOCKED
