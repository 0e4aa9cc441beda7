"""Sees many input files, or stored tables, as one: its schema, its rows counted from 0, and which holds which.

May not enter: open files, rows, models.  Files are looked into by inputs.py, rows are read by reading.py.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from copy import copy
from enum import Enum, auto

import pyarrow as pa

from ovray.errors import ConfigError
from ovray.scoring.files import picture_of
from ovray.scoring.guessed_types import common_text_type, common_type
from ovray.scoring.picture_files import IMAGE_COLUMN
from ovray.scoring.records import Block, FileRef, Format, InputFile, Pictures, Slice, StoredTable


class DataSet:
    """Is the rows of some files or stored tables, one after the other.

    Row numbers here are global: 0 is the first row of the first file.
    """

    def __init__(self, files: Sequence[InputFile], *, limit: int | None = None) -> None:
        """Join files; ``limit`` keeps only that many rows from the start.

        Raises ConfigError where files do not have the same columns of the same types.
        """
        if limit is not None and limit < 1:
            raise ConfigError(f"the limit of rows is {limit}: it must be at least 1")
        self.schema = _common_schema(files)
        self._starts: list[int] = []
        self._files: list[InputFile] = []
        rows = 0
        for file in files:
            if limit is not None and rows >= limit:
                break
            self._starts.append(rows)
            self._files.append(file)
            rows += file.rows
        self.rows = rows if limit is None else min(rows, limit)

    @property
    def files(self) -> tuple[InputFile, ...]:
        """The files that rows are taken from, in order."""
        return tuple(self._files)

    @property
    def has_pictures(self) -> bool:
        """Whether rows are pictures."""
        ref = self._files[0].ref
        return isinstance(ref, FileRef) and ref.format is Format.PICTURE

    @property
    def read_singly(self) -> tuple[str, ...]:
        """Columns of which replicas hold one row at a time."""
        return (IMAGE_COLUMN,) if self.has_pictures else ()

    def with_pictures(self, field: pa.Field) -> "DataSet":
        """Return the same rows, with pictures decoded as the field says."""
        fitted = copy(self)
        fitted.schema = self.schema.set(self.schema.get_field_index(IMAGE_COLUMN), field)
        return fitted

    @property
    def cheap_cuts(self) -> tuple[int, ...]:
        """Rows at which a chunk may begin without reading what stands before it; ends with ``rows``."""
        starts = (
            start + block.first_row
            for start, file in zip(self._starts, self._files, strict=True)
            for block in file.blocks
        )
        return (*(start for start in starts if start < self.rows), self.rows)

    def name(self, start: int, stop: int) -> str:
        """Return where rows are, in words."""
        return name_rows(self.slices(start, stop))

    def slices(self, start: int, stop: int) -> tuple[Slice, ...]:
        """Return where rows ``start`` up to, not including, ``stop`` are: what a replica needs to read them."""
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"rows {start} to {stop} are not within the {self.rows} rows of the data set")
        found: list[Slice] = []
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            file, file_start = self._files[at], self._starts[at]
            file_stop = min(stop, file_start + file.rows)
            found.extend(_slices(file, start - file_start, file_stop - file_start))
            start = file_stop
            at += 1
        return tuple(found)


def name_rows(slices: Sequence[Slice]) -> str:
    """Says where rows are, in words: ``data/a.parquet, rows 3 to 7 (the first is 0)``."""
    first, last = slices[0], slices[-1]
    if first.ref != last.ref:
        return f"{first.ref.name}, row {first.start}, to {last.ref.name}, row {last.stop - 1} (the first is 0)"
    if last.stop - first.start == 1:
        return f"{first.ref.name}, row {first.start} (the first is 0)"
    return f"{first.ref.name}, rows {first.start} to {last.stop - 1} (the first is 0)"


def _slices(file: InputFile, start: int, stop: int) -> Iterable[Slice]:
    """Return what is read of a file; of a folder of pictures, each picture as a file of its own."""
    ref = file.ref
    if not isinstance(ref, FileRef) or ref.pictures is None:
        return [_slice(file, start, stop)]
    return [_picture_slice(picture_of(ref, at), ref.pictures, at) for at in range(start, stop)]


def _picture_slice(ref: FileRef, listing: Pictures, at: int) -> Slice:
    size_bytes = listing.sizes_bytes[at].as_py()
    block = Block(first_row=0, rows=1, position=0, size_bytes=size_bytes)
    return Slice(ref=ref, start=0, stop=1, blocks=(block,), size_bytes=size_bytes)


def _slice(file: InputFile, start: int, stop: int) -> Slice:
    first = bisect_right(file.blocks, start, key=lambda block: block.first_row) - 1
    last = bisect_right(file.blocks, stop - 1, key=lambda block: block.first_row)
    return Slice(ref=file.ref, start=start, stop=stop, blocks=file.blocks[first:last], size_bytes=file.size_bytes)


def _common_schema(files: Sequence[InputFile]) -> pa.Schema:
    """Return the columns that all files have, in the first file's order, each with the one type it has in all."""
    first = files[0]
    fields = {field.name: field for field in first.schema}
    origin = dict.fromkeys(fields, first)
    for file in files[1:]:
        if file.schema.equals(first.schema) and all(file.schema.field(name) == fields[name] for name in fields):
            continue
        _check_names(first, file)
        for field in file.schema:
            known = fields[field.name]
            merged = _common_field(known, origin[field.name], field, file)
            if merged.type != known.type:
                origin[field.name] = file
            fields[field.name] = merged
    return pa.schema(list(fields.values()))


def _check_names(first: InputFile, file: InputFile) -> None:
    names, others = set(first.schema.names), set(file.schema.names)
    for lacking, having, name in (
        *((file, first, name) for name in sorted(names - others)),
        *((first, file, name) for name in sorted(others - names)),
    ):
        raise ConfigError(
            f"{lacking.ref.name!r} has no column {name!r}, {having.ref.name!r} has;"
            " all input files need the same columns: score them apart, or mend one"
        )


def _common_field(known: pa.Field, known_from: InputFile, field: pa.Field, file: InputFile) -> pa.Field:
    merged: pa.Field | None = known
    if known.type == field.type or pa.types.is_null(field.type):
        merged = known
    elif pa.types.is_null(known.type):
        merged = field
    elif _are_same_categories(known.type, field.type):
        merged = max(known, field, key=lambda one: one.type.index_type.bit_width)
    else:
        kind = _reconciled((known.type, _origin(known_from, field.name)), (field.type, _origin(file, field.name)))
        merged = None if kind is None else known.with_type(kind)
    if merged is None:
        raise ConfigError(
            f"column {known.name!r} is {known.type} in {known_from.ref.name!r} but {field.type} in"
            f" {file.ref.name!r}; it needs one type in all input files: score them apart, or mend one"
        )
    return merged.with_nullable(known.nullable or field.nullable)


class _Origin(Enum):
    """Says how a file gives the type of a column."""

    STATED = auto()
    #: Guessed from text that can also be read as text.
    TEXT = auto()
    #: Guessed from values that are numbers or text to begin with.
    VALUES = auto()


def _origin(file: InputFile, column: str) -> _Origin:
    if isinstance(file.ref, StoredTable):
        return _Origin.STATED
    if file.ref.format is Format.CSV or any(column == one.column for one in file.ref.partitions):
        return _Origin.TEXT
    return _Origin.VALUES if file.ref.format is Format.JSON_LINES else _Origin.STATED


def _reconciled(one: tuple[pa.DataType, _Origin], other: tuple[pa.DataType, _Origin]) -> pa.DataType | None:
    """Return the type for values of which two files say different things; ``None`` if there is none."""
    origins = {one[1], other[1]}
    if origins == {_Origin.TEXT}:
        return common_text_type(one[0], other[0])
    if _Origin.STATED not in origins:
        return common_type(one[0], other[0])
    if origins == {_Origin.STATED}:
        return None
    # Whole numbers may turn out to be meant as others.
    (stated, _), (guessed, _) = sorted((one, other), key=lambda said: said[1] is not _Origin.STATED)
    return stated if pa.types.is_integer(guessed) and pa.types.is_floating(stated) else None


def _are_same_categories(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether types differ in nothing but the width of their indices, which in pandas follows the data."""
    return bool(
        pa.types.is_dictionary(one)
        and pa.types.is_dictionary(other)
        and one.value_type == other.value_type
        and one.ordered == other.ordered
        and pa.types.is_signed_integer(one.index_type) == pa.types.is_signed_integer(other.index_type)
    )
