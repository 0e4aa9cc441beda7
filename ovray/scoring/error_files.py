"""Writes rows that could not be scored to ``_errors`` in the output folder; takes away what does not count there.

One file for each part that lacks rows, of the part's name but always Parquet: ``_errors/part-START-STOP.parquet``.
How a bad row comes to be there once, whatever the format of the parts:

1. A chunk's file of errors takes its name first, then the chunk's part.  A part counts where its rows and those of
   its errors are all rows of the range; so the part is the record, as for good rows.
2. A file of errors without a part of its name counts for nothing, nor does one beside a part that lacks no row.  A
   replica that is killed in 1, and a chunk whose rows were cut anew, leave such; the next run, or the end of this
   one, takes them away.
3. Two copies of a chunk have the same range and almost always the same bad rows: that one replaces the other's
   files is harmless then.  Not so where a caller's function fails by chance, or where rows were given up as poison
   that another replica could score after all.  So whoever has errors does 1 with the folder to itself (fence.py),
   and leaves a part that is there already, with its errors, as it is.

Object stores have no locks for 3: two copies that are stored in the very same moment, of which each lacks as many
rows as the other but not the same, may be mixed there.
May not enter: which rows are bad and why (bad_rows.py).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ovray.errors import DataError
from ovray.scoring.bad_rows import ERROR_COLUMNS, BadRowError
from ovray.scoring.bisecting import bisected
from ovray.scoring.files import one_line, resolve
from ovray.scoring.new_files import NewFile, new_file
from ovray.scoring.parts import (
    ERRORS_FOLDER,
    UNFINISHED,
    ErrorFile,
    OutputFolder,
    part_name,
    part_range,
    rows_in_file,
)
from ovray.scoring.result_formats import ResultFormat, try_encoding

#: First row, and the one behind the last.
Range = tuple[int, int]


def error_table(errors: pa.RecordBatch, kept_schema: pa.Schema, kept: Sequence[pa.Array]) -> pa.Table:
    """Return what a file of errors holds: what is wrong with each row, then the kept columns.

    One that has the name of a column about errors gets ``kept_`` before it.  Lists of a fixed length lose that,
    since readers differ over their nulls, and values that Parquet cannot hold are null.
    """
    names = list(ERROR_COLUMNS)
    columns: list[pa.Array] = list(errors.columns)
    for field, column in zip(kept_schema, kept, strict=True):
        name = field.name
        while name in names:
            name = f"kept_{name}"
        names.append(name)
        columns.append(_storable(_plain(column)))
    return pa.table(columns, names=names)


@contextmanager
def finished_errors(folder: OutputFolder, rows: Range, table: pa.Table) -> Iterator[ErrorFile]:
    """Write the bad rows of a chunk, so that they can appear while the block runs.

    Args:
        folder: That of the parts.
        rows: First row of the chunk, and the one behind its last.
        table: Of ``error_table``.

    Raises:
        DataError: It cannot be written.
    """
    name = part_name(*rows)
    with ExitStack() as stack:
        try:
            filesystem, path = _place(folder)
            filesystem.create_dir(path, recursive=True)
            file = new_file(filesystem, path, name)
            stack.callback(_discard, file)
            pq.write_table(table, file.sink)
            file.finish()
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{name} cannot be written to '{folder.name}/{ERRORS_FOLDER}': {one_line(error)}"
            ) from error
        yield ErrorFile(rows=table.num_rows, file=file)


def list_error_files(folder: OutputFolder) -> set[Range]:
    """Return the ranges of which there are files of errors.  Raises OSError or ArrowException."""
    return {rows for info in _files_in(folder) if (rows := part_range(info.base_name)) is not None}


def keep_error_files(folder: OutputFolder, ranges: Collection[Range]) -> None:
    """Take all files of errors away but those of these ranges, and the folder with the last.

    Those under way go too.  Raises OSError or ArrowException.
    """
    filesystem, path = _place(folder)
    is_empty = True
    for info in _files_in(folder):
        rows = part_range(info.base_name)
        if rows in ranges or (rows is None and not info.base_name.startswith(UNFINISHED)):
            is_empty = False
            continue
        with suppress(FileNotFoundError):  # its writer, if it lives, takes it away as well
            filesystem.delete_file(info.path)
    if is_empty and filesystem.get_file_info(path).type == pafs.FileType.Directory:
        filesystem.delete_dir(path)


def error_rows_in(folder: OutputFolder, rows: Range) -> int | None:
    """Return how many rows of a range are in its file of errors; ``None`` where that is damaged or not there."""
    return rows_in_file(folder, f"{ERRORS_FOLDER}/{part_name(*rows)}", ResultFormat.PARQUET)


def first_error(folder: OutputFolder, rows: Range) -> str:
    """Return what is said of the first bad row of a range, as messages show it.

    Raises OSError or ArrowException.
    """
    filesystem, path = _place(folder)
    with filesystem.open_input_file(f"{path}/{part_name(*rows)}") as source:
        name, row, _, problem = (
            column[0].as_py() for column in pq.read_table(source, columns=list(ERROR_COLUMNS)).columns
        )
    return f"{name}, row {row} (the first is 0): {problem}"


def _discard(file: NewFile) -> None:
    with suppress(OSError, pa.ArrowException):
        file.discard()


def _files_in(folder: OutputFolder) -> list[pafs.FileInfo]:
    filesystem, path = _place(folder)
    found: list[pafs.FileInfo] = filesystem.get_file_info(
        pafs.FileSelector(path, recursive=False, allow_not_found=True)
    )
    return found


def _place(folder: OutputFolder) -> tuple[pafs.FileSystem, str]:
    filesystem, path = resolve(folder.location)
    return filesystem, f"{path.rstrip('/')}/{ERRORS_FOLDER}"


def _plain(column: pa.Array) -> pa.Array:
    storage = column.storage if isinstance(column, pa.FixedShapeTensorArray) else column
    if pa.types.is_fixed_size_list(storage.type):
        return storage.cast(pa.list_(storage.type.value_type))
    return storage


def _storable(column: pa.Array) -> pa.Array:
    """Return a column with null in place of values that cannot be written: they may be what is wrong with it."""

    def attempt(start: int, stop: int) -> pa.Array:
        cells = column.slice(start, stop - start)
        try:
            try_encoding(ResultFormat.PARQUET, pa.RecordBatch.from_arrays([cells], names=["cells"]))
        except pa.ArrowException as error:
            raise BadRowError(one_line(error)) from error
        return cells

    found: dict[int, pa.Array] = {}
    null = pa.nulls(1, column.type)
    for start, _, cells in bisected(0, len(column), attempt, lambda at, _: found.update({at: null})):
        found[start] = cells
    return pa.concat_arrays([found[at] for at in sorted(found)])
