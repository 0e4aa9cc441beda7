"""Leaves an output folder in order when a job has all of its rows: checks them, and says so there.

May not enter: how parts are written (parts.py); how a run begins, and how one ends that failed (taking_up.py).
"""

from collections.abc import Sequence

import pyarrow as pa

from ovray.errors import DataError, InvariantError
from ovray.scoring.done_rows import Range, choose, count_errors, missing, whole
from ovray.scoring.error_files import keep_error_files
from ovray.scoring.files import one_line
from ovray.scoring.notes import read_note, write_note
from ovray.scoring.parts import OutputFolder, delete_parts, list_parts, remove_unfinished
from ovray.scoring.taking_up import SUCCESS_NAME


def settle_folder(folder: OutputFolder, ranges: Sequence[Range], rows: int) -> int:
    """Checks that every row is in the folder once, and says so there; takes away what was lost or too late.

    Rows that could not be scored are in ``_errors`` and not in their part.

    A lost replica may have committed its chunk before its rows were cut anew: what the driver counted is right.
    One that was given up and yet lives may be about to do so: the folder is closed before anybody looks into it.

    Args:
        folder: where the parts are.
        ranges: of the parts that count, those of earlier runs too.
        rows: of the whole data set.

    Returns:
        How many rows are in ``_errors``.

    Raises:
        DataError: a part that was reported complete is not there any more, or not whole.
    """
    wanted = tuple(sorted(ranges))
    if choose(wanted) != wanted or missing(wanted, rows):
        raise InvariantError(f"the parts that were counted are not the {rows} rows of the data set: {wanted}")
    try:
        if folder.fence is not None:
            folder.fence.close()
        delete_parts(folder, sorted(set(list_parts(folder)) - set(wanted)))
        remove_unfinished(folder)
        found = whole(folder, wanted)
        gone = sorted(set(wanted) - {part.rows for part in found})
        if gone:
            first = folder.part_name(*gone[0])
            raise DataError(
                f"{len(gone)} parts of the result are gone from {folder.name!r} or were damaged since they were"
                f" written, the first is {first}; nothing else may change this folder while ovray"
                " writes to it; the same command again scores their rows"
            )
        keep_error_files(folder, [part.rows for part in found if part.errors])
        if read_note(folder, SUCCESS_NAME) is None:
            write_note(folder, SUCCESS_NAME, b"")
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"output {folder.name!r} cannot be checked: {one_line(error)}") from error
    return count_errors(found)
