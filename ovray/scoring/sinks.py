"""Says where a replica puts the results of a chunk: into a part of a folder, or into its answer.

May not enter: how rows are scored (chunk.py), how a part is written (parts.py).
"""

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from ovray.scoring.parts import OutputFolder, PartWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Says what became of the results of a chunk."""

    size_bytes: int
    #: What the answer of the replica carries: rows that were not put away.  Ray leaves them in the object store of
    #: the replica's host; they are the driver's, so that they outlive the replica.
    rows: pa.Table | None = None


class Sink(Protocol):
    """Takes the results of chunks, from several threads at once.  Travels to each replica once."""

    def store(self, start: int, stop: int, results: pa.RecordBatch) -> Stored:
        """Puts the results of rows ``start`` up to, not including, ``stop`` away, all or nothing.

        Lifetime: memory that ``results`` looks into must stay as it is until the replica has answered.

        Raises:
            DataError: they cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSink:
    """Writes a part of a folder for each chunk."""

    folder: OutputFolder

    def store(self, start: int, stop: int, results: pa.RecordBatch) -> Stored:
        with PartWriter(self.folder, start, stop, results.schema) as part:
            part.write_batch(results)
            return Stored(size_bytes=part.commit())


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSink:
    """Gives results back in the answer."""

    def store(self, start: int, stop: int, results: pa.RecordBatch) -> Stored:
        # As a table, of which Ray sends what it shows; of a batch it would send all that the batch is cut from.
        return Stored(size_bytes=results.nbytes, rows=pa.Table.from_batches([results]))
