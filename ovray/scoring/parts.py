"""Writes results: one file for each range of rows, which appears under its name only when complete.

The name states the range, so that the order of names is the order of rows.  Names that begin with ``_`` or ``.``
are not data.  May not enter: which ranges (the driver's), what the rows hold (outputs.py), formats
(result_formats.py).
"""

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import TracebackType

import pyarrow as pa
import pyarrow.fs as pafs

from ovray.errors import ConfigError, DataError, InvariantError
from ovray.scoring.fence import Fence
from ovray.scoring.files import is_url, one_line, resolve
from ovray.scoring.new_files import NewFile, new_file
from ovray.scoring.result_formats import ResultFormat, open_writer, rows_in

#: A part's name gives its first row and the row behind its last: twelve digits hold a trillion rows in order.
_PART = re.compile(r"part-(\d{12,})-(\d{12,})(\.[a-z]+)")

#: What ovray itself puts beside the parts: its notes, and files that are not complete.
UNFINISHED = ".part-"
OUR_PREFIX = "_ovray"
ERRORS_FOLDER = "_errors"
_OURS = (OUR_PREFIX, "_SUCCESS", ERRORS_FOLDER, UNFINISHED)

_NAMES_SHOWN = 3


def part_name(start: int, stop: int, result_format: ResultFormat = ResultFormat.PARQUET) -> str:
    """Return the name of the part that holds rows ``start`` up to, not including, ``stop`` of the data set."""
    return f"part-{start:012}-{stop:012}{result_format.ending}"


def part_range(name: str, result_format: ResultFormat = ResultFormat.PARQUET) -> tuple[int, int] | None:
    """Return the rows that a part of this name holds; ``None`` if it is no part's name in this format."""
    found = _PART.fullmatch(name)
    return (int(found[1]), int(found[2])) if found and found[3] == result_format.ending else None


def _rows_of(name: str) -> tuple[int, int] | None:
    """Return the rows that a part of whatever format holds; ``None`` if it is no part's name."""
    found = (part_range(name, one) for one in ResultFormat)
    return next((rows for rows in found if rows is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFile:
    """Is a file of the rows that a part lacks, finished, which is to appear with the part."""

    rows: int
    file: NewFile


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

    def admit_part_alone(self) -> AbstractContextManager[None]:
        """Hold other runs and all other parts off while a part and its file of errors take their names."""
        return nullcontext() if self.fence is None else self.fence.passing_alone()

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


def rows_in_file(folder: OutputFolder, name: str, result_format: ResultFormat) -> int | None:
    """Return how many rows a file below the folder holds; ``None`` where there is none, or it is damaged."""
    filesystem, path = resolve(folder.location)
    try:
        with filesystem.open_input_file(f"{path.rstrip('/')}/{name}") as file:
            return rows_in(result_format, file)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    except OSError as error:
        if error.errno is not None:
            raise  # of the system's; Arrow's own, on a footer that makes no sense, have no number
        return None


def list_parts(folder: OutputFolder) -> list[tuple[int, int]]:
    """Return the rows that each part of the folder's format states, in order.

    Raises OSError or ArrowException.
    """
    return sorted(rows for name in _names_in(folder) if (rows := part_range(name, folder.format)) is not None)


def list_all_parts(folder: OutputFolder) -> list[tuple[int, int]]:
    """Return the rows that each part states, of whatever format.  Raises OSError or ArrowException."""
    return [rows for name in _names_in(folder) if (rows := _rows_of(name)) is not None]


def delete_parts(folder: OutputFolder, ranges: Iterable[tuple[int, int]]) -> None:
    """Take away the parts of these rows.  Raises OSError or ArrowException."""
    _delete(folder, [folder.part_name(start, stop) for start, stop in ranges])


def delete_all_parts(folder: OutputFolder) -> None:
    """Take away the parts of every format.  Raises OSError or ArrowException."""
    _delete(folder, [name for name in _names_in(folder) if _rows_of(name) is not None])


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

    def __init__(
        self, folder: OutputFolder, start: int, stop: int, schema: pa.Schema, errors: ErrorFile | None = None
    ) -> None:
        """Name the part that is to hold rows ``start`` up to, not including, ``stop`` of the data set.

        ``errors`` is the file of those rows that it does not hold; it appears just before the part.
        """
        self._folder = folder
        self._errors = errors
        self._rows_wanted = stop - start
        self._rows_written = 0
        self._schema = schema
        self.name = folder.part_name(start, stop)

    def __enter__(self) -> "PartWriter":
        with self._named_errors():
            filesystem, path = resolve(self._folder.location)
            self._file = new_file(filesystem, path.rstrip("/"), self.name)
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
        errors = self._errors
        if self._rows_written + (errors.rows if errors else 0) != self._rows_wanted:
            raise InvariantError(
                f"{self.name} was to hold {self._rows_wanted} rows, but holds {self._rows_written}"
            )
        with self._named_errors():
            self._writer.close()
            size_bytes = self._file.finish()
            if errors is None:
                with self._folder.admit_part():
                    self._file.appear()
            else:
                with self._folder.admit_part_alone():
                    self._appear_after(errors)
            return size_bytes

    def _appear_after(self, errors: ErrorFile) -> None:
        """Have the errors appear, then the part; neither where a copy of the chunk has been faster.

        The pair of two files could not be replaced in one step, and what is there is whole.
        """
        if self._file.is_taken():
            return
        errors.file.appear()
        with ExitStack() as undo:
            undo.callback(_take_back, errors)
            self._file.appear()
            undo.pop_all()

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


def _check_contents(name: str, filesystem: pafs.FileSystem, path: str) -> None:
    found = filesystem.get_file_info(pafs.FileSelector(path, recursive=False, allow_not_found=True))
    names = sorted(info.base_name for info in found)
    others = [other for other in names if not other.startswith(_OURS) and _rows_of(other) is None]
    if others:
        more = f" and {len(others) - _NAMES_SHOWN} more" if len(others) > _NAMES_SHOWN else ""
        raise ConfigError(
            f"output {name!r} holds something else: {', '.join(others[:_NAMES_SHOWN])}{more};"
            " name a new or empty folder with --output"
        )


def _take_back(errors: ErrorFile) -> None:
    # The error under way says what went wrong, not one from here.
    with suppress(OSError, pa.ArrowException):
        errors.file.disappear()


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
