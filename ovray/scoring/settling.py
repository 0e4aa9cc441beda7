"""Leaves an output folder in order: when a job has all of its rows, and when it has not.

May not enter: how parts are written (parts.py), how a folder is taken up (taking_up.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike

import pyarrow as pa

from ovray.errors import DataError, InvariantError
from ovray.scoring import fence
from ovray.scoring.done_rows import Range, choose, missing, whole
from ovray.scoring.files import one_line
from ovray.scoring.folder_lock import hold_folder
from ovray.scoring.job_record import RECORD_NAME
from ovray.scoring.notes import delete_note, read_note, write_note
from ovray.scoring.parts import (
    OutputFolder,
    delete_parts,
    list_parts,
    part_name,
    prepare_folder,
    remove_unfinished,
)
from ovray.scoring.taking_up import SUCCESS_NAME


@contextmanager
def open_folder(typed: str | PathLike[str]) -> Iterator[OutputFolder]:
    """Makes an output folder ready and holds it; where the block fails, keeps what is complete and no more.

    Raises:
        ConfigError: it cannot be written, holds something else, or another driver has it.
    """
    folder = prepare_folder(typed)
    try:
        with hold_folder(folder):
            try:
                yield folder
            except BaseException:
                # The folder may be what failed: the error under way says so better than one from here.
                with suppress(DataError, OSError, pa.ArrowException):
                    _keep_what_is_complete(folder)
                raise
            finally:
                fence.remove(folder.location)
    except BaseException:
        folder.remove_if_unused()
        raise


def settle_folder(folder: OutputFolder, ranges: Sequence[Range], rows: int) -> None:
    """Checks that every row is in the folder once, and says so there; takes away what was lost or too late.

    A lost replica may have committed its chunk before its rows were cut anew: what the driver counted is right.
    One that was given up and yet lives may be about to do so: the folder is closed before anybody looks into it.

    Args:
        folder: where the parts are.
        ranges: of the parts that count, those of earlier runs too.
        rows: of the whole data set.

    Raises:
        DataError: a part that was reported complete is not there any more, or not whole.
    """
    wanted = tuple(sorted(ranges))
    if choose(wanted) != wanted or missing(wanted, rows):
        raise InvariantError(f"the parts that were counted are not the {rows} rows of the data set: {wanted}")
    try:
        fence.close(folder.name, folder.location)
        delete_parts(folder, sorted(set(list_parts(folder)) - set(wanted)))
        remove_unfinished(folder)
        gone = sorted(set(wanted) - set(whole(folder, wanted)))
        if gone:
            raise DataError(
                f"{len(gone)} parts of the result are gone from {folder.name!r} or were damaged since they were"
                f" written, the first is {part_name(*gone[0])}; nothing else may change this folder while ovray"
                " writes to it; the same command again scores their rows"
            )
        if read_note(folder, SUCCESS_NAME) is None:
            write_note(folder, SUCCESS_NAME, b"")
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"output {folder.name!r} cannot be checked: {one_line(error)}") from error


def _keep_what_is_complete(folder: OutputFolder) -> None:
    remove_unfinished(folder)
    if not list_parts(folder):
        delete_note(folder, RECORD_NAME)
