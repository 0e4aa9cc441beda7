"""Reads Parquet files: what a footer says, and row ranges batch by batch.

May not enter: other files of the data set, models, CSV.  Errors of pyarrow go up as they are; inputs.py and
reading.py, the callers, name the file.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ovray.scoring.files import file_info, is_url, open_file
from ovray.scoring.records import Block, FileRef, InputFile

#: Bytes read ahead of each column of a local file.  Without it pyarrow loads a whole column of a row group before
#: the first row; with much more, a file of a thousand columns would hold a gigabyte.
_READ_AHEAD_BYTES = 128 * 1024


def inspect_parquet(ref: FileRef) -> InputFile:
    """Return what the footer says.  The rows themselves are not read."""
    info = file_info(ref)
    with open_file(ref) as source, pq.ParquetFile(source) as file:
        metadata = file.metadata
        blocks = []
        first_row = 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            if group.num_rows:
                blocks.append(
                    Block(
                        first_row=first_row,
                        rows=group.num_rows,
                        position=number,
                        size_bytes=group.total_byte_size,
                    )
                )
            first_row += group.num_rows
        return InputFile(
            ref=ref,
            # What pandas or Spark noted about the whole file does not hold for ranges of its rows.
            schema=file.schema_arrow.remove_metadata(),
            rows=metadata.num_rows,
            blocks=tuple(blocks),
            size_bytes=info.size,
            modified_ns=info.mtime_ns,
        )


class ParquetRows:
    """Reads row ranges of one open Parquet file.

    A row group is decoded from its start only when a range begins before the place that was reached: ranges that
    go upwards, as the chunks of a replica do, cost each page once.  Suits one thread.
    """

    def __init__(self, ref: FileRef, columns: Sequence[str], *, rows_per_batch: int) -> None:
        # Far away, few large reads count for more than memory: there pyarrow fetches a whole row group at once.
        is_far = is_url(ref.location)
        self._source = open_file(ref)
        self._file = pq.ParquetFile(
            self._source, pre_buffer=is_far, buffer_size=0 if is_far else _READ_AHEAD_BYTES
        )
        self._columns = list(columns)
        self._rows_per_batch = rows_per_batch
        #: Row group being decoded; ``None`` before the first.
        self._group: int | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        #: Decoded last, and its first row within the row group; kept since the next range may begin inside it.
        self._batch: pa.RecordBatch | None = None
        self._batch_start = 0

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield rows ``start`` to ``stop``, both counted from the block's first row."""
        if self._group != block.position or start < self._batch_start:
            self._begin(block.position)
        while start < stop:
            batch = self._batch
            if batch is None or self._batch_start + batch.num_rows <= start:
                self._advance()
                continue
            offset = start - self._batch_start
            piece = batch.slice(offset, min(stop - start, batch.num_rows - offset))
            start += piece.num_rows
            yield piece

    def close(self) -> None:
        """Let go of the file."""
        self._batches = iter(())
        self._batch = None
        self._file.close()
        self._source.close()

    def _begin(self, group: int) -> None:
        self._group = group
        self._batch = None
        self._batch_start = 0
        self._batches = self._file.iter_batches(
            batch_size=self._rows_per_batch, row_groups=[group], columns=self._columns
        )

    def _advance(self) -> None:
        group, self._group = self._group, None  # whatever goes wrong here, the next range begins anew
        if self._batch is not None:
            self._batch_start += self._batch.num_rows
        batch = next(self._batches, None)
        if batch is None:
            raise pa.ArrowInvalid("a row group holds fewer rows than the footer says")
        self._batch = batch.select(self._columns)
        self._group = group
