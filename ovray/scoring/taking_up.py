"""Takes up an output folder at the start of a run: whose job it is, what is done, what is left to do.

May not enter: how rows are scored; the end of a run that has them all (settling.py).  The order of steps is a
promise, so that a kill between any two leaves a folder that the next run understands: parts are never beside the
record of another job than their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum

import pyarrow as pa

from ovray.errors import ConfigError, DataError
from ovray.scoring.bad_rows import FirstError
from ovray.scoring.done_rows import Range, WholePart, choose, count_errors, missing, whole
from ovray.scoring.error_files import first_error, keep_error_files
from ovray.scoring.fence import take_over
from ovray.scoring.files import one_line
from ovray.scoring.job_record import RECORD_NAME, JobRecord, this_run
from ovray.scoring.notes import delete_note, read_note, write_note
from ovray.scoring.parts import (
    OutputFolder,
    delete_all_parts,
    delete_parts,
    list_all_parts,
    list_parts,
    remove_unfinished,
)

#: The file that says that every row is there.
SUCCESS_NAME = "_SUCCESS"

_CHANGES_SHOWN = 3

#: Runs that the record of a job names at the most, the last ones.
RUNS_KEPT = 100


class Earlier(Enum):
    """Says what becomes of rows that an earlier run has done."""

    #: They stay, and only the others are scored; they must be of the same job.
    KEEP = "keep"
    #: They are deleted, whatever job they are of.
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenUp:
    """Says how a folder stood once this run, and no other, could add parts to it."""

    #: Lets the parts of this run in.
    folder: OutputFolder
    #: Done by earlier runs; in order, without overlap, each a whole part.
    done: tuple[Range, ...]
    #: Left to do; in order.
    missing: tuple[Range, ...]
    #: Rows of ``done`` that could not be scored, and what is said of the first of them.
    errors: int = 0
    first_error: FirstError | None = None


@contextmanager
def take_up(folder: OutputFolder, job: JobRecord, rows: int, earlier: Earlier) -> Iterator[TakenUp]:
    """Takes up a folder while the block runs; where that fails, keeps what is complete and no more.

    Args:
        folder: held by this process (folder_lock.py).
        job: what is to be done.
        rows: of the whole data set.
        earlier: what becomes of rows that an earlier run has done.

    Raises:
        ConfigError: the folder holds rows of another job, or of one that cannot be told; they were not touched.
        DataError: the folder cannot be read or written.
    """
    with _named_errors(folder):
        if earlier is Earlier.KEEP:
            _check_same_job(folder, job)
        admission = take_over(folder.name, folder.location)
    with ExitStack() as always, ExitStack() as on_error:
        always.callback(admission.remove)
        on_error.callback(_keep_after_an_error, folder)
        with _named_errors(folder):
            parts = _make_ready(folder, job, rows, earlier)
            done = tuple(part.rows for part in parts)
            taken = TakenUp(
                folder=replace(folder, fence=admission),
                done=done,
                missing=missing(done, rows),
                errors=count_errors(parts),
                first_error=_first_error(folder, parts),
            )
        yield taken
        on_error.pop_all()


def _keep_after_an_error(folder: OutputFolder) -> None:
    # The folder may be what failed: the error under way says so better than one from here.
    with suppress(DataError, OSError, pa.ArrowException):
        _keep_what_is_complete(folder)


def _make_ready(folder: OutputFolder, job: JobRecord, rows: int, earlier: Earlier) -> tuple[WholePart, ...]:
    """Makes a folder be of this job; returns what is done."""
    if earlier is Earlier.DELETE:
        delete_note(folder, SUCCESS_NAME)
        delete_all_parts(folder)
        keep_error_files(folder, ())
    # Once more: a part of an earlier run may have been added until the fence was taken over.
    _check_same_job(folder, job)
    if not list_all_parts(folder):
        delete_note(folder, SUCCESS_NAME)
        write_note(folder, RECORD_NAME, job.to_json())
    remove_unfinished(folder)
    done = _find_done(folder, rows)
    if missing([part.rows for part in done], rows):
        delete_note(folder, SUCCESS_NAME)
        _sign(folder, job)
    return done


def _check_same_job(folder: OutputFolder, job: JobRecord) -> None:
    """Refuses to mix jobs; a record without a row binds nobody."""
    if not list_all_parts(folder):
        return
    text = read_note(folder, RECORD_NAME)
    if text is None:
        raise _refusal(folder, f"has results but no {RECORD_NAME} that says of what")
    try:
        changes = job.differences(JobRecord.from_json(text))
    except ValueError as error:
        raise _refusal(folder, f"has results of a job whose {RECORD_NAME} cannot be read: {error}") from error
    if changes:
        more = f"; and {len(changes) - _CHANGES_SHOWN} more" if len(changes) > _CHANGES_SHOWN else ""
        raise _refusal(folder, f"has results of another job: {'; '.join(changes[:_CHANGES_SHOWN])}{more}")


def _sign(folder: OutputFolder, job: JobRecord) -> None:
    """Adds this run to those that worked on a folder."""
    earlier = JobRecord.runs_in(read_note(folder, RECORD_NAME) or b"{}")
    write_note(folder, RECORD_NAME, job.to_json([*earlier[1 - RUNS_KEPT :], this_run()]))


def _refusal(folder: OutputFolder, why: str) -> ConfigError:
    return ConfigError(
        f"output {folder.name!r} {why}; nothing was changed; delete them and begin anew with --restart, or name"
        " another folder with --output"
    )


def _find_done(folder: OutputFolder, rows: int) -> tuple[WholePart, ...]:
    """Returns what is done; deletes parts that are broken or within others, and errors without their part."""
    found = list_parts(folder)
    parts = {part.rows: part for part in whole(folder, [one for one in found if one[1] <= rows])}
    done = tuple(parts[one] for one in choose(parts))
    delete_parts(folder, sorted(set(found) - {part.rows for part in done}))
    keep_error_files(folder, [part.rows for part in done if part.errors])
    return done


def _first_error(folder: OutputFolder, parts: Sequence[WholePart]) -> FirstError | None:
    for part in parts:
        if part.errors:
            return FirstError(row=part.rows[0], text=first_error(folder, part.rows))
    return None


def _keep_what_is_complete(folder: OutputFolder) -> None:
    remove_unfinished(folder)
    parts = list_all_parts(folder)
    keep_error_files(folder, parts)
    if not parts:
        delete_note(folder, RECORD_NAME)


@contextmanager
def _named_errors(folder: OutputFolder) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"output {folder.name!r} cannot be taken up: {one_line(error)}") from error
