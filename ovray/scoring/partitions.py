"""Carries values in the names of folders over as columns: ``year=2024/part.parquet`` gives the column ``year``.

As Hive writes them: ``NAME=VALUE``, with ``%`` escapes.  Folders count as typed or found below what was typed, the
outermost first.  Where a file has a column of that name, the file's own counts.
May not enter: formats, the rows of files.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa

from ovray.scoring.records import Block, FileRef, InputFile, Partition, RowSource, Unreadable

#: What Hive names the folder of rows that have no value.
_NULL = "__HIVE_DEFAULT_PARTITION__"

_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}")


def partitions_of(name: str) -> tuple[Partition, ...]:
    """Return what the folders in a file's name say."""
    found: dict[str, Partition] = {}
    for folder in name.split("/")[:-1]:
        key, equals, value = folder.partition("=")
        if key and equals:
            column = unquote(key)
            found[column] = Partition(column=column, value=None if value == _NULL else unquote(value))
    return tuple(found.values())


def with_partitions(found: InputFile) -> InputFile:
    """Add the columns that folders give to what was found in a file."""
    ref = found.ref
    if not isinstance(ref, FileRef):
        return found
    added = tuple(one for one in ref.partitions if one.column not in found.schema.names)
    fields = [pa.field(one.column, _guess(one.value)) for one in added]
    return replace(
        found,
        ref=replace(ref, partitions=added),
        schema=pa.schema([*found.schema, *fields]),
    )


class PartitionedRows:
    """Reads a file's own columns and adds those that its folders give."""

    def __init__(
        self,
        partitions: tuple[Partition, ...],
        schema: pa.Schema,
        open_own: Callable[[pa.Schema], RowSource],
        *,
        rows_per_batch: int,
    ) -> None:
        self._schema = schema
        self._rows_per_batch = rows_per_batch
        self._constants = {
            one.column: _scalar(one.value, schema.field(one.column).type)
            for one in partitions
            if one.column in schema.names
        }
        own = [field for field in schema if field.name not in self._constants]
        #: ``None`` where all columns wanted are in the names of folders.
        self._own = open_own(pa.schema(own)) if own else None

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch | Unreadable]:
        """Yield rows ``start`` to ``stop``, both counted from the block's first row."""
        if self._own is not None:
            for batch in self._own.read(block, start, stop):
                if isinstance(batch, Unreadable):
                    yield batch
                    continue
                yield self._completed(batch.num_rows, dict(zip(batch.schema.names, batch.columns, strict=True)))
            return
        for at in range(start, stop, self._rows_per_batch):
            yield self._completed(min(self._rows_per_batch, stop - at), {})

    def close(self) -> None:
        """Let go of the file."""
        if self._own is not None:
            self._own.close()

    def _completed(self, rows: int, own: dict[str, pa.Array]) -> pa.RecordBatch:
        columns = [
            pa.repeat(self._constants[name], rows) if name in self._constants else own[name]
            for name in self._schema.names
        ]
        return pa.RecordBatch.from_arrays(columns, names=self._schema.names)


def _scalar(value: str | None, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(None, kind) if value is None else pa.scalar(value, pa.string()).cast(kind)


def _guess(value: str | None) -> pa.DataType:
    if value is None:
        return pa.null()
    return pa.int64() if _WHOLE_NUMBER.fullmatch(value) else pa.string()
