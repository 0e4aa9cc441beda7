"""Looks into input files before anything starts: is each whole, what does it hold, where can reading begin.

Formats meet here: a new one is a module with an ``inspect`` and a ``RowSource``, and a line in ``_inspect`` and in
``open_rows``.  Runs on any host, so that the files of a large data set are looked into in parallel.
"""

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from ovray.errors import ConfigError
from ovray.scoring.csv_files import inspect_csv, open_csv
from ovray.scoring.files import one_line
from ovray.scoring.parquet import ParquetRows, inspect_parquet
from ovray.scoring.records import Block, FileRef, Format, InputFile


class RowSource(Protocol):
    """Reads rows of one open file; every format has one."""

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield rows ``start`` to ``stop``, counted from the block's first row, in order, in bounded batches."""

    def close(self) -> None:
        """Let go of the file."""


def inspect(ref: FileRef, *, rows_wanted: int | None = None) -> InputFile:
    """Return what a file holds: Parquet by its footer, CSV by one pass over its text in bounded memory.

    Args:
        ref: The file, as ``find_files`` found it.
        rows_wanted: No more rows than this will be read; a CSV file is then looked into only so far.

    Raises:
        ConfigError: The file cannot be opened, is damaged or holds no rows; the message names it.
    """
    try:
        found = _inspect(ref, rows_wanted)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(
            f"{ref.name!r} cannot be read as {ref.format.title}: {one_line(error)}; replace the file or"
            " leave it out"
        ) from error
    if not found.rows:
        raise ConfigError(f"{ref.name!r} is empty: it holds no rows; leave the file out")
    names = found.schema.names
    doubled = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    if doubled:
        raise ConfigError(f"{ref.name!r} has more than one column named {doubled[0]!r}; rename one")
    return found


def _inspect(ref: FileRef, rows_wanted: int | None) -> InputFile:
    if ref.format is Format.PARQUET:
        return inspect_parquet(ref)
    return inspect_csv(ref, rows_wanted=rows_wanted)


def open_rows(ref: FileRef, schema: pa.Schema, *, rows_per_batch: int) -> RowSource:
    """Open a file for reading the columns of ``schema``; CSV cells become its types."""
    if ref.format is Format.PARQUET:
        return ParquetRows(ref, schema.names, rows_per_batch=rows_per_batch)
    return open_csv(ref, schema, rows_per_batch=rows_per_batch)
