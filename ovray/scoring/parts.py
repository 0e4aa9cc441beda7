"""Writes results: one Parquet file for each range of rows, which appears under its name only when complete.

The name states the range, so that the order of names is the order of rows.  Names that begin with ``_`` or ``.``
are not data.  May not enter: which ranges (the driver's), what the rows hold (outputs.py).
"""

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from types import TracebackType

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ovray.errors import ConfigError, DataError, InvariantError
from ovray.scoring.fence import Fence
from ovray.scoring.files import is_url, one_line, resolve

#: A part's name gives its first row and the row behind its last: twelve digits hold a trillion rows in order.
_PART = re.compile(r"part-(\d{12,})-(\d{12,})\.parquet")

#: What ovray itself puts beside the parts: its notes, and files that are not complete.
UNFINISHED = ".part-"
OUR_PREFIX = "_ovray"
ERRORS_FOLDER = "_errors"
_OURS = (OUR_PREFIX, "_SUCCESS", ERRORS_FOLDER, UNFINISHED)

#: In a part's footer: the file of its rows that could not be scored, as JSON; nothing where there are none.
_ERRORS_KEY = "ovray.errors"

_NAMES_SHOWN = 3

#: What one row group holds, as Arrow; so much is held back in memory until it is written.
_ROW_GROUP_BYTES = 64 * 1024 * 1024

#: Indices of so many bits count more values than a row group has rows.
_WIDE_INDEX_BITS = 32

#: Measured on a million rows of labels, text and class probabilities: zstd gives files 17 % smaller for a third
#: more time, which is taken from inference.
_COMPRESSION = "snappy"


def part_name(start: int, stop: int) -> str:
    """Return the name of the part that holds rows ``start`` up to, not including, ``stop`` of the data set."""
    return f"part-{start:012}-{stop:012}.parquet"


def part_range(name: str) -> tuple[int, int] | None:
    """Return the rows that a part of this name holds; ``None`` if it is no part's name."""
    found = _PART.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFile:
    """Names a file in ``_errors`` and says how many rows it holds."""

    name: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """Says what a part holds."""

    rows: int
    #: Rows of its range that it does not hold.
    errors: ErrorFile | None


def encoded_size(rows: pa.RecordBatch) -> int:
    """Return the bytes of rows in a file of their own.  Raises ArrowException where they cannot be encoded."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([rows]), sink, compression=_COMPRESSION)
    size_bytes: int = sink.getvalue().size
    return size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFolder:
    """Names the folder that takes the parts, on any host, and what was made for it."""

    #: As typed, for messages.
    name: str
    #: An absolute path, or a URL that pyarrow knows.
    location: str
    #: Folders that had to be made for it, the outermost first.
    made: tuple[str, ...] = ()
    #: What a part passes before it appears; ``None`` as long as no run has taken the folder.
    fence: Fence | None = None

    def admit_part(self) -> AbstractContextManager[None]:
        """Hold other runs off while a part takes its name."""
        return nullcontext() if self.fence is None else self.fence.passing()

    def remove_if_unused(self) -> None:
        """Take away the folders that were made for it, unless something is in them."""
        for path in reversed(self.made):
            try:
                os.rmdir(path)
            except OSError:
                return


def prepare_folder(typed: str | os.PathLike[str]) -> OutputFolder:
    """Make the output folder if need be and see that results can go there.

    Raises ConfigError where it holds what ovray did not put there, or cannot be written.
    """
    name = os.fspath(typed)
    if not name:
        raise ConfigError("the output has no name: give the folder for the results with --output")
    location = name if is_url(name) else os.path.abspath(os.path.expanduser(name))
    made: tuple[str, ...] = ()
    try:
        filesystem, path = resolve(location)
        if isinstance(filesystem, pafs.LocalFileSystem):
            location = path  # file:// is a folder like any other: it is made, and taken away where unused
        info = filesystem.get_file_info(path)
        if info.type not in (pafs.FileType.NotFound, pafs.FileType.Directory):
            raise ConfigError(f"output {name!r} is a file; name a folder with --output")
        _check_contents(name, filesystem, path)
        if not is_url(location):
            made = _missing_folders(location)
            os.makedirs(location, exist_ok=True)
        _check_writable(filesystem, path)
    except (OSError, pa.ArrowException) as error:
        OutputFolder(name=name, location=location, made=made).remove_if_unused()
        raise ConfigError(
            f"output {name!r} cannot be written: {one_line(error)}; name another folder with --output"
        ) from error
    return OutputFolder(name=name, location=location, made=made)


def remove_unfinished(folder: OutputFolder) -> None:
    """Take away what writers left under way that were killed, or that no run waits for any more."""
    try:
        filesystem, path = resolve(folder.location)
        for info in filesystem.get_file_info(pafs.FileSelector(path, recursive=False)):
            if info.base_name.startswith(UNFINISHED):
                with suppress(FileNotFoundError):  # its writer, if it lives, takes it away as well
                    filesystem.delete_file(info.path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"unfinished parts in {folder.name!r} cannot be removed: {one_line(error)}") from error


def find_footer(folder: OutputFolder, name: str) -> Footer | None:
    """Return what the footer of a file below the folder says; ``None`` where there is none that is sound."""
    filesystem, path = resolve(folder.location)
    try:
        with filesystem.open_input_file(f"{path.rstrip('/')}/{name}") as file:
            metadata = pq.read_metadata(file)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    except OSError as error:
        if error.errno is not None:
            raise  # of the system's; Arrow's own, on a footer that makes no sense, have no number
        return None
    text = (metadata.metadata or {}).get(_ERRORS_KEY.encode())
    return Footer(rows=metadata.num_rows, errors=None if text is None else ErrorFile(**json.loads(text)))


def list_parts(folder: OutputFolder) -> list[tuple[int, int]]:
    """Return the rows that each part in a folder states, in order.  Raises OSError or ArrowException."""
    filesystem, path = resolve(folder.location)
    found = filesystem.get_file_info(pafs.FileSelector(path, recursive=False))
    return sorted(rows for info in found if (rows := part_range(info.base_name)) is not None)


def delete_parts(folder: OutputFolder, ranges: Iterable[tuple[int, int]]) -> None:
    """Take away the parts of these rows.  Raises OSError or ArrowException."""
    filesystem, path = resolve(folder.location)
    for start, stop in ranges:
        filesystem.delete_file(f"{path.rstrip('/')}/{part_name(start, stop)}")


class PartWriter:
    """Writes one part, batch by batch; leaving its ``with`` block without ``commit`` leaves nothing behind.

    Lifetime: batches are held until a row group is full; memory that they look into must stay as it is until
    ``commit`` returns.
    """

    def __init__(
        self, folder: OutputFolder, start: int, stop: int, schema: pa.Schema, errors: ErrorFile | None = None
    ) -> None:
        """Name the part that is to hold rows ``start`` up to, not including, ``stop`` of the data set.

        ``errors`` is the file of those rows that it does not hold.
        """
        self._folder = folder
        self._errors = errors
        self._rows_wanted = stop - start
        self._rows_written = 0
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        #: For each dictionary column, the different values in ``_pending``.
        self._dictionaries: dict[str, pa.Array] = {}
        self.name = part_name(start, stop)

    def __enter__(self) -> "PartWriter":
        with self._named_errors():
            filesystem, path = resolve(self._folder.location)
            self._file = new_file(filesystem, path.rstrip("/"), self.name)
            try:
                self._writer = self._open_writer()
            except pa.ArrowException:  # a type that Parquet lacks
                self._file.discard()
                raise
        return self

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows, with the columns of the schema."""
        if not self._dictionaries_hold(batch):
            with self._named_errors():
                self._write_row_group()
            self._dictionaries_hold(batch)
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        self._rows_written += batch.num_rows
        if self._pending_bytes >= _ROW_GROUP_BYTES:
            with self._named_errors():
                self._write_row_group()

    def commit(self) -> int:
        """Make the part appear under its name, with all of its rows on the disk; returns its size in bytes."""
        errors = self._errors
        if self._rows_written + (errors.rows if errors else 0) != self._rows_wanted:
            raise InvariantError(
                f"{self.name} was to hold {self._rows_wanted} rows, but holds {self._rows_written}"
            )
        with self._named_errors():
            self._write_row_group()
            if errors is not None:
                self._writer.add_key_value_metadata({_ERRORS_KEY: json.dumps(asdict(errors))})
            self._writer.close()
            return self._file.commit(self._folder.admit_part())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pending.clear()
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        with suppress(OSError, pa.ArrowException):
            self._file.discard()

    def _open_writer(self) -> pq.ParquetWriter:
        return pq.ParquetWriter(
            self._file.sink,
            self._schema,
            compression=_COMPRESSION,
            use_dictionary=[field.name for field in self._schema if _repeats_itself(field.type)],
        )

    def _write_row_group(self) -> None:
        if self._pending:
            table = pa.Table.from_batches(self._pending, self._schema)
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._pending.clear()
        self._pending_bytes = 0
        self._dictionaries.clear()

    def _dictionaries_hold(self, batch: pa.RecordBatch) -> bool:
        """Take in the dictionaries of a batch; False where an index type cannot count all values of a row group.

        Files that each fit their categories into int8, as pandas does, need not do so together; a row group in
        which they do not can be written, but never read again.
        """
        for field in self._schema:
            if pa.types.is_dictionary(field.type) and field.type.index_type.bit_width < _WIDE_INDEX_BITS:
                fresh = batch.column(field.name).dictionary
                known = self._dictionaries.get(field.name, fresh.slice(0, 0))
                values = pa.concat_arrays([known, fresh]).unique()
                if len(known) and len(values) > 2 ** (field.type.index_type.bit_width - 1):
                    return False
                self._dictionaries[field.name] = values
        return True

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self.name} cannot be written to {self._folder.name!r}: {one_line(error)}"
            ) from error


def new_file(filesystem: pafs.FileSystem, folder: str, name: str) -> "_RenamedFile | _StoredFile":
    """Return a file that appears in a folder when it is committed, and not before."""
    can_rename = filesystem.type_name in ("local", "hdfs")
    return (_RenamedFile if can_rename else _StoredFile)(filesystem, folder, name)


class _RenamedFile:
    """Grows beside its final place, then takes its name; for file systems that rename in one step."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, name: str) -> None:
        self._filesystem = filesystem
        self._final = f"{folder}/{name}"
        # Two replicas may write the same rows at once: the file under way is this writer's alone.
        self._beside = f"{folder}/.{name}.{uuid.uuid4().hex}"
        self.sink = filesystem.open_output_stream(self._beside, compression=None)

    def commit(self, admission: AbstractContextManager[None]) -> int:
        self.sink.close()
        if isinstance(self._filesystem, pafs.LocalFileSystem):
            _flush_to_disk(self._beside)
        size_bytes: int = self._filesystem.get_file_info(self._beside).size
        with admission:
            self._filesystem.move(self._beside, self._final)
        return size_bytes

    def discard(self) -> None:
        self.sink.close()
        self._filesystem.delete_file(self._beside)  # gone already after a commit


class _StoredFile:
    """Is kept in memory and stored in one piece; for object stores, which cannot rename."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, name: str) -> None:
        self._filesystem = filesystem
        self._final = f"{folder}/{name}"
        self.sink = pa.BufferOutputStream()

    def commit(self, admission: AbstractContextManager[None]) -> int:
        content = self.sink.getvalue()
        with admission, self._filesystem.open_output_stream(self._final, compression=None) as target:
            target.write(content)
        size_bytes: int = content.size
        return size_bytes

    def discard(self) -> None:
        self.sink.close()


def _check_contents(name: str, filesystem: pafs.FileSystem, path: str) -> None:
    found = filesystem.get_file_info(pafs.FileSelector(path, recursive=False, allow_not_found=True))
    names = sorted(info.base_name for info in found)
    others = [other for other in names if not other.startswith(_OURS) and part_range(other) is None]
    if others:
        more = f" and {len(others) - _NAMES_SHOWN} more" if len(others) > _NAMES_SHOWN else ""
        raise ConfigError(
            f"output {name!r} holds something else: {', '.join(others[:_NAMES_SHOWN])}{more};"
            " name a new or empty folder with --output"
        )


def _check_writable(filesystem: pafs.FileSystem, path: str) -> None:
    probe = f"{path.rstrip('/')}/_ovray-{uuid.uuid4().hex}"
    with filesystem.open_output_stream(probe, compression=None) as stream:
        stream.write(b"")
    filesystem.delete_file(probe)


def _missing_folders(path: str) -> tuple[str, ...]:
    """Return the folders that ``os.makedirs`` would make, the outermost first."""
    missing = []
    while not os.path.exists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return tuple(reversed(missing))


def _flush_to_disk(path: str) -> None:
    """Wait until the content of a file is on the disk: a name that outlives its content would lie."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _repeats_itself(of: pa.DataType) -> bool:
    """Return whether values are likely to recur, so that a dictionary pays: not those of results."""
    return not (pa.types.is_floating(of) or pa.types.is_nested(of))
