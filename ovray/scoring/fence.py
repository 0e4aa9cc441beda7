"""Keeps parts of an earlier run out of a folder that a later run has taken over.

A driver that is killed leaves replicas behind, for moments on its own host, for seconds on others; each may be
about to give its part its name.  So a part passes a fence on its way: the file ``_ovray.fence`` names the one run
that may add parts.  How two runs use it:

1. A writer locks the file shared, sees whether its own run is named, renames its part, and unlocks.
2. A driver that takes over locks it exclusively, which waits for renames under way, names its run, and unlocks.

A part that lacks rows appears together with the file of its errors, in two steps: its writer locks exclusively
in 1, so that copies of a chunk do not mix theirs (error_files.py).

After 2 no part of an earlier run can appear, so what the driver then finds in the folder is all there will be.
The wait is for renames, not for inference: milliseconds.

Where the file system has no locks (object stores, HDFS), writers look at the file just before they store a part:
one that is being stored in that very moment may still appear.  Within one job it holds the right rows, and what
the driver did not count is removed at the end; so it could only do harm where the job was changed and begun anew
in that moment.  May not enter: what parts hold; who drives (folder_lock.py).
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

import pyarrow as pa

from ovray.errors import DataError
from ovray.scoring.file_locks import Attempt, Kind, is_still, local_path, try_lock, wait_for_lock
from ovray.scoring.files import resolve

FENCE_NAME = "_ovray.fence"

#: A rename takes milliseconds; on a network disk that hangs it may take for ever.
TAKE_OVER_TIMEOUT_S = 60.0
_REMOVE_TIMEOUT_S = 2.0
_PAUSE_S = 0.02

_LONGEST_TEXT_BYTES = 64

#: Stands for a run that has no replicas.
_NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Lets the parts of one run into a folder.  Travels to every replica."""

    #: The folder as typed, for messages.
    folder: str
    location: str
    #: Unlike that of any other run.
    run: str

    def passing(self) -> AbstractContextManager[None]:
        """Holds other runs off while a part takes its name.

        Raises:
            DataError: another run has taken the folder over, or this one is over.
        """
        return self._passing(Kind.SHARED)

    def passing_alone(self) -> AbstractContextManager[None]:
        """Holds off other runs and all that passes, for what takes more than one step; else as ``passing``."""
        return self._passing(Kind.EXCLUSIVE)

    @contextmanager
    def _passing(self, kind: Kind) -> Iterator[None]:
        root = local_path(self.location)
        if root is None:
            self._check(_read_stored(self.location))
            yield
            return
        path = os.path.join(root, FENCE_NAME)
        try:
            # Network disks lock exclusively only what is open for writing.
            descriptor = os.open(path, os.O_RDONLY if kind is Kind.SHARED else os.O_RDWR)
        except FileNotFoundError:
            raise self._refusal() from None
        try:
            wait_for_lock(descriptor, kind)
            self._check(os.pread(descriptor, _LONGEST_TEXT_BYTES, 0) if is_still(descriptor, path) else b"")
            yield
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Lets no parts in any more, not those of replicas either that were given up and yet live.

        Raises:
            DataError: a replica does not get done with adding a part.
        """
        _name_run(self.folder, self.location, _NOBODY)

    def remove(self) -> None:
        """Takes the fence's file away, which closes it as well.

        Leaves it where another run has taken over, and where a replica does not get done with adding a part: the
        next run then waits for that.
        """
        with suppress(OSError, pa.ArrowException):
            root = local_path(self.location)
            if root is not None:
                self._remove_locked(os.path.join(root, FENCE_NAME))
            elif _read_stored(self.location) in self._ours:
                filesystem, path = resolve(self.location)
                filesystem.delete_file(_stored_path(path))

    @property
    def _ours(self) -> tuple[bytes, ...]:
        return (self.run.encode(), _NOBODY.encode())

    def _remove_locked(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            # Without the lock a part could still be added after the next run has made a fence of its own.
            is_locked = _lock_in_time(descriptor, time.monotonic() + _REMOVE_TIMEOUT_S)
            if is_locked and os.pread(descriptor, _LONGEST_TEXT_BYTES, 0) in self._ours:
                os.unlink(path)
        finally:
            os.close(descriptor)

    def _check(self, found: bytes) -> None:
        if found != self.run.encode():
            raise self._refusal()

    def _refusal(self) -> DataError:
        return DataError(
            f"output {self.folder!r} was taken over by another run of ovray; this one adds nothing more to it"
        )


def take_over(folder: str, location: str) -> Fence:
    """Lets a new run's parts into a folder, and those of all earlier runs no more.

    Args:
        folder: as typed, for messages.
        location: where it is; the caller is its only driver.

    Raises:
        DataError: a replica does not get done with adding a part.
    """
    fence = Fence(folder=folder, location=location, run=uuid.uuid4().hex)
    _name_run(folder, location, fence.run)
    return fence


def _name_run(folder: str, location: str, run: str) -> None:
    root = local_path(location)
    if root is None:
        filesystem, path = resolve(location)
        with filesystem.open_output_stream(_stored_path(path), compression=None) as stream:
            stream.write(run.encode())
        return
    descriptor = os.open(os.path.join(root, FENCE_NAME), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _lock_in_time(descriptor, time.monotonic() + TAKE_OVER_TIMEOUT_S):
            raise DataError(
                f"a replica has been adding a part to output {folder!r} for {TAKE_OVER_TIMEOUT_S:g} s; nothing was"
                " changed meanwhile; see whether its disk answers; the same command again carries on"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, run.encode(), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock_in_time(descriptor: int, end_s: float) -> bool:
    while try_lock(descriptor, Kind.EXCLUSIVE) is Attempt.TAKEN:
        if time.monotonic() > end_s:
            return False
        time.sleep(_PAUSE_S)
    return True


def _read_stored(location: str) -> bytes:
    filesystem, path = resolve(location)
    try:
        with filesystem.open_input_file(_stored_path(path)) as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        return b""


def _stored_path(folder: str) -> str:
    return f"{folder.rstrip('/')}/{FENCE_NAME}"
