"""Says where a replica puts the results of a chunk: into a part of a folder, or into its answer.

May not enter: how rows are scored (chunk.py), what a part and its file of errors are (chunk_part.py).
"""

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from ovray.errors import InvariantError
from ovray.scoring.bad_rows import BadRows
from ovray.scoring.chunk_part import write_chunk
from ovray.scoring.kept import KeptColumns
from ovray.scoring.parts import OutputFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Says what became of the results of a chunk."""

    rows: int
    size_bytes: int
    #: What the answer of the replica carries: results that were not put away.  Ray leaves them in the object store
    #: of the replica's host; they are the driver's, so that they outlive the replica.
    results: pa.Table | None = None


class Sink(Protocol):
    """Takes the results of chunks, from several threads at once.  Travels to each replica once."""

    def store(self, bad: BadRows, kept: KeptColumns, results: pa.RecordBatch) -> Stored:
        """Puts what became of a chunk away, all or nothing.

        Args:
            bad: its bad rows; those that turn out to be unwritable are added.
            kept: the kept columns of all rows that could be read.
            results: of all good rows, with their kept columns.

        Lifetime: memory that ``results`` looks into must stay as it is until the replica has answered.

        Raises:
            DataError: they cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSink:
    """Writes a part of a folder for each chunk."""

    folder: OutputFolder

    def store(self, bad: BadRows, kept: KeptColumns, results: pa.RecordBatch) -> Stored:
        part = write_chunk(self.folder, bad, kept, results)
        return Stored(rows=part.rows, size_bytes=part.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSink:
    """Gives results back in the answer; has no place for bad rows."""

    def store(self, bad: BadRows, kept: KeptColumns, results: pa.RecordBatch) -> Stored:
        if bad.count:
            raise InvariantError(f"{bad.count} bad rows were to be put on record, but there is no folder for them")
        # As a table, of which Ray sends what it shows; of a batch it would send all that the batch is cut from.
        table = pa.Table.from_batches([results])
        return Stored(rows=results.num_rows, size_bytes=results.nbytes, results=table)
