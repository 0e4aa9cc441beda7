"""Reads row ranges of tables in Ray's object store, where they are wanted.

Ray brings a table from host to host once, whoever put it there; on one host all processes look into the same
memory.  May not enter: files, what the rows are for.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError, RayError

from ovray.scoring.records import Block, InputFile, StoredTable

#: A table that is not here after this long will not come.
FETCH_TIMEOUT_S = 300.0


def stored(ref: StoredTable, schema: pa.Schema, rows: int, size_bytes: int) -> InputFile:
    """Describe a table that is in the object store."""
    return InputFile(
        ref=ref,
        schema=schema.remove_metadata(),
        rows=rows,
        # Reading begins anywhere at no cost: one block is enough.
        blocks=(Block(first_row=0, rows=rows, position=0, size_bytes=size_bytes),),
        size_bytes=size_bytes,
        modified_ns=None,
    )


def fetch(ref: StoredTable) -> pa.Table:
    """Return a table that is in the object store.

    Lifetime: a view of the store's memory, which stays there as long as the table, or anything cut from it, lives.

    Raises:
        OSError: It is lost with the host that had it, or does not come.
    """
    try:
        table: pa.Table = ray.get(ref.reference, timeout=FETCH_TIMEOUT_S)
    except GetTimeoutError as error:
        raise OSError(f"{ref.name} did not come within {FETCH_TIMEOUT_S:g} s") from error
    except RayError as error:
        raise OSError(f"{ref.name} is not in Ray's object store any more: {type(error).__name__}") from error
    return table


class StoredRows:
    """Reads row ranges of one table.  Suits one thread."""

    def __init__(self, ref: StoredTable, columns: Sequence[str], *, rows_per_batch: int) -> None:
        table = fetch(ref)
        absent = [name for name in columns if name not in table.schema.names]
        if absent:
            raise pa.ArrowInvalid(f"it has no column {absent[0]!r}, others have")
        self._table = table.select(list(columns))
        self._rows_per_batch = rows_per_batch

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield rows ``start`` to ``stop``; the one block is the whole table."""
        yield from self._table.slice(start, stop - start).to_batches(max_chunksize=self._rows_per_batch)

    def close(self) -> None:
        """Do nothing: the table goes with this object."""
