"""Keeps an output folder to one driver at a time; the next one is told who has it.

An exclusive lock on ``_ovray.lock``, held by the driver's process.  The kernel drops it when the process ends,
however it ends, so a restart straight after a kill gets it at once; what the killed run's replicas may still be
doing is fence.py's part.  The text in the file (host, pid) is for the person who has to wait; it is believed only
while the lock is held.  May not enter: parts, rows, what the job is.

Where it holds: local disks, and NFS, where Linux locks on the server (not with the mount options ``nolock`` and
``local_lock``: then drivers of one host see each other, those of two hosts do not).  Object stores and HDFS have
no such locks: there, and on disks that refuse them, the later of two drivers takes the folder over, and the
earlier one fails at its next part.
"""

import json
import os
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from ovray.errors import ConfigError
from ovray.scoring.file_locks import Attempt, Kind, is_still, local_path, try_lock
from ovray.scoring.files import one_line
from ovray.scoring.parts import OutputFolder, prepare_folder
from ovray.scoring.result_formats import ResultFormat

LOCK_NAME = "_ovray.lock"

_LONGEST_TEXT_BYTES = 4096


class _Lock:
    """Is an open and locked file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _held.add(self)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


#: A forked child shares the lock with its parent and would keep it after the parent's death.
_held: "weakref.WeakSet[_Lock]" = weakref.WeakSet()


def _close_in_forked_child() -> None:
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_close_in_forked_child)


@contextmanager
def open_folder(
    typed: str | os.PathLike[str], result_format: ResultFormat = ResultFormat.PARQUET
) -> Iterator[OutputFolder]:
    """Makes an output folder ready and holds it while the block runs; takes away what was made for nothing.

    Raises:
        ConfigError: another driver has it, named with host and pid; or it holds something else, or cannot be
            written or locked.
    """
    folder = prepare_folder(typed, result_format)
    with ExitStack() as undo:
        undo.callback(folder.remove_if_unused)
        with _held_by_us(folder):
            yield folder
        undo.pop_all()


@contextmanager
def _held_by_us(folder: OutputFolder) -> Iterator[None]:
    root = local_path(folder.location)
    if root is None:
        yield
        return
    path = os.path.join(root, LOCK_NAME)
    try:
        lock = _take(folder.name, path)
    except OSError as error:
        raise ConfigError(
            f"output {folder.name!r} cannot be locked: {one_line(error)}; name another folder with --output"
        ) from error
    try:
        yield
    finally:
        # Removed while it is held: whoever has it open already sees that it is gone, and makes a new one.
        with suppress(OSError):
            os.unlink(path)
        lock.close()


def _take(folder: str, path: str) -> _Lock:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if try_lock(descriptor, Kind.EXCLUSIVE) is Attempt.TAKEN:
            holder = _read_holder(os.pread(descriptor, _LONGEST_TEXT_BYTES, 0))
            os.close(descriptor)
            raise ConfigError(
                f"output {folder!r} is being written by {holder}; nothing was started; wait until that is done,"
                " or name another folder with --output"
            )
        if is_still(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _signature(), 0)
            return _Lock(descriptor)
        os.close(descriptor)


def _signature() -> bytes:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since_s": time.time()}).encode()


def _read_holder(text: bytes) -> str:
    try:
        fields = json.loads(text)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(fields["since_s"]))
        return f"pid {int(fields['pid'])} on host {fields['host']} since {since}"
    except (ValueError, KeyError, TypeError):
        return "a process that has only just begun"
