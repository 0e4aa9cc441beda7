"""Writes rows that could not be scored to ``_errors`` in the output folder; takes away what does not count there.

One file for each part that lacks rows.  How a bad row comes to be there once:

1. A chunk's file of errors appears first, under a name that no other has.
2. Then its part appears; the part's footer names the file and how many rows it holds.

So the part is the record, as for good rows: a file of errors counts where a part that counts names it.  A replica
that is killed between 1 and 2, and one of two copies of a chunk, whose part the other's replaces, leave files that
no part names; the next run, or the end of this one, takes them away.
May not enter: which rows are bad and why (bad_rows.py).
"""

import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ovray.errors import DataError
from ovray.scoring.bad_rows import ERROR_COLUMNS, BadRowError
from ovray.scoring.bisecting import bisected
from ovray.scoring.files import one_line, resolve
from ovray.scoring.parts import ERRORS_FOLDER, ErrorFile, OutputFolder, encoded_size, find_footer, new_file

_START = "errors-"
_UNFINISHED = f".{_START}"
_OURS = (_START, _UNFINISHED)


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


def write_error_file(folder: OutputFolder, rows: tuple[int, int], table: pa.Table) -> ErrorFile:
    """Write the bad rows of a chunk.

    Args:
        folder: That of the parts.
        rows: First row of the chunk, and the one behind its last.
        table: Of ``error_table``.

    Raises:
        DataError: It cannot be written, or another run has taken the folder over.
    """
    name = f"{_START}{rows[0]:012}-{rows[1]:012}-{uuid.uuid4().hex[:12]}.parquet"
    try:
        filesystem, path = _place(folder)
        filesystem.create_dir(path, recursive=True)
        file = new_file(filesystem, path, name)
        try:
            pq.write_table(table, file.sink)
            file.commit(folder.admit_part())
        finally:
            with suppress(OSError, pa.ArrowException):
                file.discard()
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{name} cannot be written to '{folder.name}/{ERRORS_FOLDER}': {one_line(error)}"
        ) from error
    return ErrorFile(name=name, rows=table.num_rows)


def delete_error_file(folder: OutputFolder, file: ErrorFile) -> None:
    """Take a file away whose part did not come to be; where that fails, the next run does it."""
    with suppress(OSError, pa.ArrowException):
        filesystem, path = _place(folder)
        filesystem.delete_file(f"{path}/{file.name}")


def remove_unfinished_errors(folder: OutputFolder) -> None:
    """Take away what writers left under way that were killed.  Raises OSError or ArrowException."""
    filesystem, path = _place(folder)
    for info in filesystem.get_file_info(pafs.FileSelector(path, recursive=False, allow_not_found=True)):
        if info.base_name.startswith(_UNFINISHED):
            with suppress(FileNotFoundError):  # its writer, if it lives, takes it away as well
                filesystem.delete_file(info.path)


def keep_error_files(folder: OutputFolder, names: Collection[str]) -> None:
    """Take all files of errors away but these, and the folder with the last.  Raises OSError or ArrowException."""
    filesystem, path = _place(folder)
    found = filesystem.get_file_info(pafs.FileSelector(path, recursive=False, allow_not_found=True))
    left = [info for info in found if info.base_name in names or not info.base_name.startswith(_OURS)]
    for info in found:
        if info not in left:
            with suppress(FileNotFoundError):  # its writer, if it lives, takes it away as well
                filesystem.delete_file(info.path)
    is_there = filesystem.get_file_info(path).type == pafs.FileType.Directory
    if is_there and not left:
        filesystem.delete_dir(path)


def is_whole(folder: OutputFolder, file: ErrorFile) -> bool:
    """Return whether a file of errors is there with all of its rows."""
    footer = find_footer(folder, f"{ERRORS_FOLDER}/{file.name}")
    return footer is not None and footer.rows == file.rows


def first_error(folder: OutputFolder, file: ErrorFile) -> str:
    """Return what a file says of its first row, as messages show it.  Raises OSError or ArrowException."""
    filesystem, path = _place(folder)
    with filesystem.open_input_file(f"{path}/{file.name}") as source:
        name, row, _, problem = (
            column[0].as_py() for column in pq.read_table(source, columns=list(ERROR_COLUMNS)).columns
        )
    return f"{name}, row {row} (the first is 0): {problem}"


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
            encoded_size(pa.RecordBatch.from_arrays([cells], names=["cells"]))
        except pa.ArrowException as error:
            raise BadRowError(one_line(error)) from error
        return cells

    found: dict[int, pa.Array] = {}
    null = pa.nulls(1, column.type)
    for start, _, cells in bisected(0, len(column), attempt, lambda at, _: found.update({at: null})):
        found[start] = cells
    return pa.concat_arrays([found[at] for at in sorted(found)])
