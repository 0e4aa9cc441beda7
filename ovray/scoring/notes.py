"""Puts ovray's own small files into an output folder: each appears whole or not at all.

May not enter: what they say (job_record.py), results (parts.py).
"""

import os
import uuid

import pyarrow.fs as pafs

from ovray.scoring.file_locks import local_path
from ovray.scoring.files import resolve
from ovray.scoring.parts import UNFINISHED, OutputFolder


def read_note(folder: OutputFolder, name: str) -> bytes | None:
    """Return what a note says; ``None`` if there is none.  Raises OSError or ArrowException as pyarrow does."""
    filesystem, path = resolve(folder.location)
    path = f"{path.rstrip('/')}/{name}"
    if filesystem.get_file_info(path).type == pafs.FileType.NotFound:
        return None
    with filesystem.open_input_file(path) as stream:
        return bytes(stream.read())


def write_note(folder: OutputFolder, name: str, text: bytes) -> None:
    """Write a note in one step; on a disk it outlives a power cut, and so does everything renamed before it."""
    root = local_path(folder.location)
    if root is None:
        filesystem, path = resolve(folder.location)
        with filesystem.open_output_stream(f"{path.rstrip('/')}/{name}", compression=None) as stream:
            stream.write(text)
        return
    _flush_folder(root)
    beside = os.path.join(root, f"{UNFINISHED}{name}.{uuid.uuid4().hex}")
    with open(beside, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, os.path.join(root, name))
    _flush_folder(root)


def delete_note(folder: OutputFolder, name: str) -> None:
    """Take a note away, if it is there."""
    filesystem, path = resolve(folder.location)
    path = f"{path.rstrip('/')}/{name}"
    if filesystem.get_file_info(path).type != pafs.FileType.NotFound:
        filesystem.delete_file(path)


def _flush_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
