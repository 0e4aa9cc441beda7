"""Writes results: one file for each range of rows, which appears under its name only when complete.

The name states the range, so that the order of names is the order of rows.  Names that begin with ``_`` or ``.``
are not data.  May not enter: which ranges (the driver's), what the rows hold (outputs.py), formats
(result_formats.py).
"""

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import TracebackType

import pyarrow as pa
import pyarrow.fs as pafs

from ovray.errors import ConfigError, DataError, InvariantError
from ovray.scoring.fence import Fence
from ovray.scoring.files import is_url, one_line, resolve
from ovray.scoring.result_formats import ResultFormat, open_writer

#: A part's name gives its first row and the row behind its last: twelve digits hold a trillion rows in order.
_PART = re.compile(r"part-(\d{12,})-(\d{12,})(\.[a-z]+)")

#: What ovray itself puts beside the parts: its notes, and files that are not complete.
UNFINISHED = ".part-"
_OURS = ("_ovray", "_SUCCESS", UNFINISHED)

_NAMES_SHOWN = 3


def part_name(start: int, stop: int, result_format: ResultFormat = ResultFormat.PARQUET) -> str:
    """Return the name of the part that holds rows ``start`` up to, not including, ``stop`` of the data set."""
    return f"part-{start:012}-{stop:012}{result_format.ending}"


def part_range(name: str, result_format: ResultFormat = ResultFormat.PARQUET) -> tuple[int, int] | None:
    """Return the rows that a part of this name holds; ``None`` if it is no part's name in this format."""
    found = _PART.fullmatch(name)
    return (int(found[1]), int(found[2])) if found and found[3] == result_format.ending else None


def _is_part(name: str) -> bool:
    return any(part_range(name, one) is not None for one in ResultFormat)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFolder:
    """Names the folder that takes the parts, on any host, and what was made for it."""

    #: As typed, for messages.
    name: str
    #: An absolute path, or a URL that pyarrow knows.
    location: str
    #: Of the parts that this run adds.
    format: ResultFormat = ResultFormat.PARQUET
    #: Folders that had to be made for it, the outermost first.
    made: tuple[str, ...] = ()
    #: What a part passes before it appears; ``None`` as long as no run has taken the folder.
    fence: Fence | None = None

    def part_name(self, start: int, stop: int) -> str:
        """Return the name of the part that holds these rows."""
        return part_name(start, stop, self.format)

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


def prepare_folder(
    typed: str | os.PathLike[str], result_format: ResultFormat = ResultFormat.PARQUET
) -> OutputFolder:
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
    return OutputFolder(name=name, location=location, format=result_format, made=made)


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


def list_parts(folder: OutputFolder) -> list[tuple[int, int]]:
    """Return the rows that each part of the folder's format states, in order.

    Raises OSError or ArrowException.
    """
    return sorted(rows for name in _names_in(folder) if (rows := part_range(name, folder.format)) is not None)


def has_parts(folder: OutputFolder) -> bool:
    """Return whether there is any part, of whatever format.  Raises OSError or ArrowException."""
    return any(_is_part(name) for name in _names_in(folder))


def delete_parts(folder: OutputFolder, ranges: Iterable[tuple[int, int]]) -> None:
    """Take away the parts of these rows.  Raises OSError or ArrowException."""
    _delete(folder, [folder.part_name(start, stop) for start, stop in ranges])


def delete_all_parts(folder: OutputFolder) -> None:
    """Take away the parts of every format.  Raises OSError or ArrowException."""
    _delete(folder, [name for name in _names_in(folder) if _is_part(name)])


def _names_in(folder: OutputFolder) -> list[str]:
    filesystem, path = resolve(folder.location)
    return [info.base_name for info in filesystem.get_file_info(pafs.FileSelector(path, recursive=False))]


def _delete(folder: OutputFolder, names: Iterable[str]) -> None:
    filesystem, path = resolve(folder.location)
    for name in names:
        filesystem.delete_file(f"{path.rstrip('/')}/{name}")


class PartWriter:
    """Writes one part, batch by batch; leaving its ``with`` block without ``commit`` leaves nothing behind.

    Lifetime: batches may be held; memory that they look into must stay as it is until ``commit`` returns.
    """

    def __init__(self, folder: OutputFolder, start: int, stop: int, schema: pa.Schema) -> None:
        """Name the part that is to hold rows ``start`` up to, not including, ``stop`` of the data set."""
        self._folder = folder
        self._rows_wanted = stop - start
        self._rows_written = 0
        self._schema = schema
        self.name = folder.part_name(start, stop)

    def __enter__(self) -> "PartWriter":
        with self._named_errors():
            filesystem, path = resolve(self._folder.location)
            can_rename = filesystem.type_name in ("local", "hdfs")
            file = _RenamedFile if can_rename else _StoredFile
            self._file = file(filesystem, path.rstrip("/"), self.name)
            try:
                self._writer = open_writer(self._folder.format, self._file.sink, self._schema)
            except pa.ArrowException:  # a type that the format lacks
                self._file.discard()
                raise
        return self

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows, with the columns of the schema."""
        with self._named_errors():
            self._writer.write_batch(batch)
        self._rows_written += batch.num_rows

    def commit(self) -> int:
        """Make the part appear under its name, with all of its rows on the disk; returns its size in bytes."""
        if self._rows_written != self._rows_wanted:
            raise InvariantError(
                f"{self.name} was to hold {self._rows_wanted} rows, but holds {self._rows_written}"
            )
        with self._named_errors():
            self._writer.close()
            return self._file.commit(self._folder.admit_part())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        with suppress(OSError, pa.ArrowException):
            self._file.discard()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self.name} cannot be written to {self._folder.name!r}: {one_line(error)}"
            ) from error


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
    others = [other for other in names if not other.startswith(_OURS) and not _is_part(other)]
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
