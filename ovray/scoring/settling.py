"""Leaves an output folder in order: when a job has all of its rows, and when it has not.

May not enter: how parts are written (parts.py).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike

import pyarrow as pa
import pyarrow.fs as pafs

from ovray.errors import DataError
from ovray.scoring.files import one_line, resolve
from ovray.scoring.parts import OutputFolder, part_name, part_range, prepare_folder, remove_unfinished


@contextmanager
def open_folder(typed: str | PathLike[str]) -> Iterator[OutputFolder]:
    """Makes an output folder ready; where the block fails, takes away what is not complete, keeps what is."""
    folder = prepare_folder(typed)
    try:
        yield folder
    except BaseException:
        # The folder may be what failed: the error under way says so better than one from here.
        with suppress(DataError):
            remove_unfinished(folder)
        folder.remove_if_unused()
        raise


def settle_folder(folder: OutputFolder, ranges: Iterable[tuple[int, int]]) -> None:
    """Checks that the folder holds just these rows; takes away what replicas left that were lost or too late.

    A lost replica may have committed its chunk before its rows were cut anew: what the driver counted is right.

    Raises:
        DataError: a part that was reported complete is not there.
    """
    wanted = {part_name(start, stop) for start, stop in ranges}
    try:
        found = {info.base_name: info for info in _list(folder)}
        missing = sorted(wanted - found.keys())
        if missing:
            raise DataError(
                f"{len(missing)} parts of the result are gone from {folder.name!r}, the first is {missing[0]};"
                " nothing else may change this folder while ovray writes to it; delete it and start again"
            )
        filesystem, _ = resolve(folder.location)
        for name in found.keys() - wanted:
            if part_range(name) is not None:
                filesystem.delete_file(found[name].path)
        remove_unfinished(folder)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"output {folder.name!r} cannot be checked: {one_line(error)}") from error


def _list(folder: OutputFolder) -> list[pafs.FileInfo]:
    filesystem, path = resolve(folder.location)
    found: list[pafs.FileInfo] = filesystem.get_file_info(pafs.FileSelector(path, recursive=False))
    return found
