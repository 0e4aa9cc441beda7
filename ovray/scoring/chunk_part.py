"""Puts a chunk on record: its good rows as a part, its bad ones as a file of errors of the same name.

May not enter: inference; how parts (parts.py) and files of errors (error_files.py) appear in the folder.
"""

from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from ovray.errors import DataError
from ovray.scoring.bad_rows import BadRowError, BadRows, Stage, StageRows
from ovray.scoring.bisecting import bisected
from ovray.scoring.error_files import error_table, finished_errors
from ovray.scoring.files import one_line
from ovray.scoring.kept import KeptColumns
from ovray.scoring.parts import OutputFolder, PartWriter
from ovray.scoring.result_formats import try_encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedPart:
    """Says what a part turned out to be."""

    name: str
    rows: int
    size_bytes: int


def write_chunk(folder: OutputFolder, bad: BadRows, kept: KeptColumns, results: pa.RecordBatch) -> CommittedPart:
    """Write a part, and a file of errors if there are any; rows that cannot be written become such.

    Args:
        folder: Where they go.
        bad: The bad rows so far.
        kept: The kept columns of all rows of the chunk that could be read.
        results: The results of all good rows, with their kept columns.

    Raises:
        DataError: A row cannot be written and is not to be recorded, or none can: the disk is full.
    """
    try:
        return _commit(folder, bad, kept, results)
    except DataError:
        writable = _writable(folder, bad, results)
        if writable.num_rows == results.num_rows:
            raise  # it is not the rows that are to blame
    return _commit(folder, bad, kept, writable)


def _commit(folder: OutputFolder, bad: BadRows, kept: KeptColumns, results: pa.RecordBatch) -> CommittedPart:
    with ExitStack() as stack:
        errors = None
        if bad.count:
            table = error_table(bad.table(), kept.schema, kept.of_bad(bad))
            errors = stack.enter_context(finished_errors(folder, (bad.start, bad.stop), table))
        part = stack.enter_context(PartWriter(folder, bad.start, bad.stop, results.schema, errors))
        if results.num_rows:
            part.write_batch(results)
        size_bytes = part.commit()
    return CommittedPart(name=part.name, rows=results.num_rows, size_bytes=size_bytes)


def _writable(folder: OutputFolder, bad: BadRows, results: pa.RecordBatch) -> pa.RecordBatch:
    """Return the results without the rows that cannot be encoded, which are added to the bad ones."""
    good_rows = bad.good_rows
    written = StageRows(bad, Stage.WRITE, lambda row: int(good_rows[row]))

    def attempt(start: int, stop: int) -> pa.RecordBatch:
        rows = results.slice(start, stop - start)
        try:
            try_encoding(folder.format, rows)
        except pa.ArrowException as error:
            raise BadRowError(f"cannot be written: {one_line(error)}") from error
        return rows

    good = [rows for _, _, rows in bisected(0, results.num_rows, attempt, written.blame)]
    return pa.concat_batches([results.slice(0, 0), *good])
