"""Reads NumPy's files: ``.npy`` as the one column ``array``, each array of a ``.npz`` as a column of its name.

May not enter: what an array's bytes mean (numpy_arrays.py), other formats.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import IO, Any, cast

import pyarrow as pa

from ovray.errors import ConfigError
from ovray.scoring.files import file_info, open_file
from ovray.scoring.numpy_arrays import Header, NumpyArray, read_header
from ovray.scoring.records import Block, FileRef, Format, InputFile

#: Name of the column that the array of a ``.npy`` file becomes.
ARRAY_COLUMN = "array"

_MEMBER_ENDING = ".npy"
_IS_ENCRYPTED = 1

#: A member of an archive begins with so many bytes, then a name and more fields; the last four give their lengths.
_MEMBER_START_BYTES = 30


def inspect_numpy(ref: FileRef) -> InputFile:
    """Return what the headers say.  The values themselves are not read."""
    info = file_info(ref)
    with closing(_OpenFile(ref)) as file:
        arrays = file.arrays
        first = arrays[0]
        for array in arrays:
            if array.rows != first.rows:
                raise ConfigError(
                    f"{ref.name!r}: array {first.name!r} has {first.rows} rows but {array.name!r} has"
                    f" {array.rows}; save arrays apart that do not count the same rows"
                )
    # Reading begins anywhere at no cost: one block is enough.
    block = Block(
        first_row=0, rows=first.rows, position=0, size_bytes=sum(array.header.size_bytes for array in arrays)
    )
    return InputFile(
        ref=ref,
        schema=pa.schema([(array.name, array.header.type) for array in arrays]),
        rows=first.rows,
        blocks=(block,),
        size_bytes=info.size,
        modified_ns=info.mtime_ns,
    )


class NumpyRows:
    """Reads row ranges of one open file.  Suits one thread."""

    def __init__(self, ref: FileRef, columns: Sequence[str], *, rows_per_batch: int) -> None:
        self._file = _OpenFile(ref)
        self._arrays = [self._file.named(column) for column in columns]
        self._rows_per_batch = rows_per_batch

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield rows ``start`` to ``stop``; the one block is the whole file."""
        for at in range(start, stop, self._rows_per_batch):
            behind = min(at + self._rows_per_batch, stop)
            with _zip_errors_as_arrow():
                columns = [array.read(at, behind) for array in self._arrays]
            yield pa.RecordBatch.from_arrays(columns, names=[array.name for array in self._arrays])

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _OpenFile:
    """Holds a file open, with the arrays in it, at least one."""

    def __init__(self, ref: FileRef) -> None:
        self._source = open_file(ref)
        try:
            with _zip_errors_as_arrow():
                self.arrays = (
                    [_stored(ARRAY_COLUMN, self._source, 0, self._source.size())]
                    if ref.format is Format.NPY
                    else _members(self._source)
                )
        except (OSError, pa.ArrowException):
            self._source.close()
            raise

    def named(self, name: str) -> NumpyArray:
        found = next((array for array in self.arrays if array.name == name), None)
        if found is None:
            self.close()
            raise pa.ArrowInvalid(f"it holds no array {name!r} any more")
        return found

    def close(self) -> None:
        self._source.close()


def _members(source: pa.NativeFile) -> list[NumpyArray]:
    try:
        archive = zipfile.ZipFile(cast("IO[bytes]", source))
    except pa.ArrowInvalid as error:  # it went to places that are not there
        raise pa.ArrowInvalid("it is no whole archive") from error
    members = archive.infolist()
    if not members:
        raise pa.ArrowInvalid("it holds no arrays")
    return [_member(archive, member, source) for member in members]


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: pa.NativeFile) -> NumpyArray:
    name = member.filename.removesuffix(_MEMBER_ENDING)
    if name == member.filename:
        raise pa.ArrowInvalid(f"it holds {name!r}, which is no array")
    if member.header_offset < 0:
        raise pa.ArrowInvalid("it is no whole archive")
    if member.flag_bits & _IS_ENCRYPTED:
        raise pa.ArrowInvalid("it is encrypted")
    if member.compress_type == zipfile.ZIP_STORED:
        return _stored(name, source, _content_start(member, source), member.file_size)
    if member.compress_type != zipfile.ZIP_DEFLATED:
        raise pa.ArrowInvalid(f"array {name!r} is packed in a way that NumPy does not know")
    return _packed(name, archive.open(member), member.file_size)


def _content_start(member: zipfile.ZipInfo, source: pa.NativeFile) -> int:
    source.seek(member.header_offset)
    start = source.read(_MEMBER_START_BYTES)
    if len(start) < _MEMBER_START_BYTES:
        raise pa.ArrowInvalid("it is cut short")
    name_bytes, more_bytes = struct.unpack("<HH", start[-4:])
    return member.header_offset + _MEMBER_START_BYTES + int(name_bytes) + int(more_bytes)


def _stored(name: str, source: pa.NativeFile, start: int, size_bytes: int) -> NumpyArray:
    source.seek(start)
    header = read_header(source)
    values_start = source.tell()
    _check_size(name, header, size_bytes - (values_start - start))
    return NumpyArray(name=name, header=header, content=_StoredContent(source, values_start))


def _packed(name: str, stream: IO[bytes], size_bytes: int) -> NumpyArray:
    header = read_header(stream)
    values_start = stream.tell()
    _check_size(name, header, size_bytes - values_start)
    if header.is_fortran:
        raise pa.ArrowInvalid(
            f"array {name!r} is packed and stored column by column, so that no row can be read without all of it;"
            " save numpy.ascontiguousarray of it, or save with numpy.savez"
        )
    return NumpyArray(name=name, header=header, content=_PackedContent(stream, values_start))


def _check_size(name: str, header: Header, found_bytes: int) -> None:
    if found_bytes != header.size_bytes:
        raise pa.ArrowInvalid(
            f"array {name!r} is {header.dtype}{list(header.shape)}, {header.size_bytes} bytes, but there are"
            f" {found_bytes}: the file seems to be damaged"
        )


class _StoredContent:
    """Reads values that stand in the file as they are."""

    def __init__(self, source: pa.NativeFile, start: int) -> None:
        self._source = source
        self._start = start

    def read(self, offset: int, size_bytes: int) -> Any:
        self._source.seek(self._start + offset)
        return self._source.read_buffer(size_bytes)


class _PackedContent:
    """Reads values by unpacking all that stands before them; upward ranges unpack each byte once."""

    def __init__(self, stream: IO[bytes], start: int) -> None:
        self._stream = stream
        self._start = start

    def read(self, offset: int, size_bytes: int) -> Any:
        self._stream.seek(self._start + offset)
        return self._stream.read(size_bytes)


@contextmanager
def _zip_errors_as_arrow() -> Iterator[None]:
    """Let what the standard library says about a damaged archive go up like any other damage."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as error:
        raise pa.ArrowInvalid(str(error) or "it is cut short") from error
