"""Looks into input files before anything starts: is each whole, what does it hold, where can reading begin.

Opens them for reading, too, and tables that are in no file.  Formats meet here: a new one is a module with an
``inspect`` and a ``RowSource``, and a line in ``_inspect`` and in ``_open``.  Runs on any host, so that the files
of a large data set are looked into in parallel.
"""

from functools import partial

import pyarrow as pa

from ovray.errors import ConfigError
from ovray.scoring.arrow_files import ArrowRows, inspect_arrow
from ovray.scoring.csv_files import inspect_csv, open_csv
from ovray.scoring.files import one_line
from ovray.scoring.json_lines import inspect_json_lines, open_json_lines
from ovray.scoring.numpy_files import NumpyRows, inspect_numpy
from ovray.scoring.on_error import OnError
from ovray.scoring.parquet import ParquetRows, inspect_parquet
from ovray.scoring.partitions import PartitionedRows, with_partitions
from ovray.scoring.picture_files import PictureRow, inspect_pictures
from ovray.scoring.records import FileRef, Format, InputFile, RowSource, RowsRef, StoredTable
from ovray.scoring.stored_tables import StoredRows
from ovray.scoring.text_lines import inspect_text_lines, open_text_lines

#: The name of Ray Data's Arrow type for objects that nothing else can hold.
_PICKLED_OBJECT = "ray.data.arrow_pickled_object"


def inspect(ref: FileRef, *, rows_wanted: int | None = None, on_error: OnError = OnError.RAISE) -> InputFile:
    """Return what a file holds: by its footer or header, or text by one pass over it in bounded memory.

    Args:
        ref: The file, as ``find_files`` found it.
        rows_wanted: No more rows than this will be read; text is then looked into only so far.
        on_error: Whether bad records of text are refused, or counted like others.

    Raises:
        ConfigError: The file cannot be opened, is damaged or holds no rows; the message names it.
    """
    try:
        found = with_partitions(_inspect(ref, rows_wanted, on_error))
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
    _refuse_pickles(ref, found.schema)
    return found


def _refuse_pickles(ref: FileRef, schema: pa.Schema) -> None:
    """Refuses columns that run code when somebody looks into them: pickles as Ray Data stores objects.

    Where ``ray.data`` was imported, Arrow knows the type, and turning a cell into Python unpickles it.
    """
    for field in schema:
        if _holds_pickles(field):
            raise ConfigError(
                f"column {field.name!r} of {ref.name!r} holds pickled Python objects ({_PICKLED_OBJECT}), which"
                " ovray does not unpickle; nothing was scored; write the file without the column, or with numbers"
                " or text in it"
            )


def _holds_pickles(field: pa.Field) -> bool:
    metadata = field.metadata or {}
    if metadata.get(b"ARROW:extension:name", b"").decode(errors="replace") == _PICKLED_OBJECT:
        return True
    kind = field.type
    while isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == _PICKLED_OBJECT:
            return True
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        return _holds_pickles(pa.field(field.name, kind.value_type))
    return any(_holds_pickles(kind.field(at)) for at in range(kind.num_fields))


def _inspect(ref: FileRef, rows_wanted: int | None, on_error: OnError) -> InputFile:
    match ref.format:
        case Format.PARQUET:
            return inspect_parquet(ref)
        case Format.CSV:
            return inspect_csv(ref, rows_wanted=rows_wanted, on_error=on_error)
        case Format.JSON_LINES:
            return inspect_json_lines(ref, rows_wanted=rows_wanted, on_error=on_error)
        case Format.ARROW:
            return inspect_arrow(ref)
        case Format.NPY | Format.NPZ:
            return inspect_numpy(ref)
        case Format.TEXT:
            return inspect_text_lines(ref, rows_wanted=rows_wanted, on_error=on_error)
        case Format.PICTURE:
            return inspect_pictures(ref)


def open_rows(ref: RowsRef, schema: pa.Schema, *, rows_per_batch: int) -> RowSource:
    """Open a file that was looked into, or a table, for reading columns; guessed types become the schema's."""
    if isinstance(ref, StoredTable):
        return StoredRows(ref, schema.names, rows_per_batch=rows_per_batch)
    open_own = partial(_open, ref, rows_per_batch=rows_per_batch)
    if not ref.partitions:
        return open_own(schema)
    return PartitionedRows(ref.partitions, schema, open_own, rows_per_batch=rows_per_batch)


def _open(ref: FileRef, schema: pa.Schema, *, rows_per_batch: int) -> RowSource:
    match ref.format:
        case Format.PARQUET:
            return ParquetRows(ref, schema.names, rows_per_batch=rows_per_batch)
        case Format.CSV:
            return open_csv(ref, schema, rows_per_batch=rows_per_batch)
        case Format.JSON_LINES:
            return open_json_lines(ref, schema, rows_per_batch=rows_per_batch)
        case Format.ARROW:
            return ArrowRows(ref, schema.names, rows_per_batch=rows_per_batch)
        case Format.NPY | Format.NPZ:
            return NumpyRows(ref, schema.names, rows_per_batch=rows_per_batch)
        case Format.TEXT:
            return open_text_lines(ref, rows_per_batch=rows_per_batch)
        case Format.PICTURE:
            return PictureRow(ref, schema)
