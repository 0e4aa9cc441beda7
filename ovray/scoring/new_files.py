"""Writes files that appear under their name when they are complete, and not before.

May not enter: what they hold; when they may appear (fence.py).
"""

import os
import uuid
from typing import Protocol

import pyarrow as pa
import pyarrow.fs as pafs


class NewFile(Protocol):
    """Is a file on its way: it is written to ``sink``, finished, and then appears; else it is discarded."""

    sink: pa.NativeFile

    def finish(self) -> int:
        """Complete the content, on the disk where there is one; return its size in bytes."""

    def is_taken(self) -> bool:
        """Return whether there is a file of the name already."""

    def appear(self) -> None:
        """Give the finished file its name; one that had it is replaced."""

    def disappear(self) -> None:
        """Take the file that has the name away."""

    def discard(self) -> None:
        """Let go of what has not appeared.  Raises OSError where all has."""


def new_file(filesystem: pafs.FileSystem, folder: str, name: str) -> NewFile:
    """Begin a file in a folder that is there.  Raises OSError or ArrowException."""
    can_rename = filesystem.type_name in ("local", "hdfs")
    return (_RenamedFile if can_rename else _StoredFile)(filesystem, folder, name)


class _NamedFile:
    """Is the place where a file is to appear."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, name: str) -> None:
        self._filesystem = filesystem
        self._final = f"{folder}/{name}"

    def is_taken(self) -> bool:
        return bool(self._filesystem.get_file_info(self._final).type == pafs.FileType.File)

    def disappear(self) -> None:
        self._filesystem.delete_file(self._final)


class _RenamedFile(_NamedFile):
    """Grows beside its final place, then takes its name; for file systems that rename in one step."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, name: str) -> None:
        super().__init__(filesystem, folder, name)
        # Two replicas may write the same rows at once: the file under way is this writer's alone.
        self._beside = f"{folder}/.{name}.{uuid.uuid4().hex}"
        self.sink = filesystem.open_output_stream(self._beside, compression=None)

    def finish(self) -> int:
        self.sink.close()
        if isinstance(self._filesystem, pafs.LocalFileSystem):
            _flush_to_disk(self._beside)
        size_bytes: int = self._filesystem.get_file_info(self._beside).size
        return size_bytes

    def appear(self) -> None:
        self._filesystem.move(self._beside, self._final)

    def discard(self) -> None:
        self.sink.close()
        self._filesystem.delete_file(self._beside)


class _StoredFile(_NamedFile):
    """Is kept in memory and stored in one piece; for object stores, which cannot rename."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, name: str) -> None:
        super().__init__(filesystem, folder, name)
        self.sink = pa.BufferOutputStream()

    def finish(self) -> int:
        self._content = self.sink.getvalue()
        size_bytes: int = self._content.size
        return size_bytes

    def appear(self) -> None:
        with self._filesystem.open_output_stream(self._final, compression=None) as target:
            target.write(self._content)

    def discard(self) -> None:
        self.sink.close()


def _flush_to_disk(path: str) -> None:
    """Wait until the content of a file is on the disk: a name that outlives its content would lie."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
