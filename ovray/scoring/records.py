"""What the rooms of scoring say to each other about data: files, tables in memory, blocks, slices, rows.

Plain frozen records that travel between driver and replicas.  May not enter: ray, openvino, open files.
Who fills them: files.py (which files), inputs.py and its formats (what is in them), dataset.py (all as one);
held_rows.py and ray_datasets.py (what is in memory).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import pyarrow as pa


class Format(Enum):
    """Names a file format, as messages do, and the endings of names by which it is known."""

    PARQUET = ("Parquet", (".parquet", ".pq"))
    CSV = ("CSV", (".csv", ".csv.gz"))
    JSON_LINES = ("JSON Lines", (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"))
    ARROW = ("Arrow", (".arrow", ".arrows", ".feather", ".ipc"))
    NPY = ("NumPy", (".npy",))
    NPZ = ("NumPy", (".npz",))
    TEXT = ("text", (".txt", ".txt.gz"))
    #: Not all that Pillow reads: what people call pictures.
    PICTURE = (
        "a picture",
        (
            *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
            *(".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
        ),
    )

    def __init__(self, title: str, endings: tuple[str, ...]) -> None:
        self.title = title
        self.endings = endings

    @classmethod
    def of_name(cls, name: str) -> "Format | None":
        """Return the format of a file of that name; ``None`` if ovray reads no such files."""
        return next((known for known in cls if name.lower().endswith(known.endings)), None)

    @property
    def takes_a_pass(self) -> bool:
        """Whether all of a file is gone through to find out what it holds."""
        return self in (Format.CSV, Format.JSON_LINES, Format.TEXT)

    @property
    def is_one_row(self) -> bool:
        """Whether each file is a single row, and a folder of them the input that is looked into."""
        return self is Format.PICTURE


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Says which value a column has in all rows of a file, as the name of a folder has it."""

    column: str
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Lists the pictures of one folder, in the order of their rows, in a few bytes each: there may be millions."""

    #: Below the folder; a single empty one where the folder's ref is itself that of a picture.
    names: pa.StringArray
    sizes_bytes: pa.Int64Array
    #: Null where the file system keeps no times.
    modified_ns: pa.Int64Array

    @property
    def digest(self) -> str:
        """Tells listings apart that differ in any name, size or time."""
        sha = hashlib.sha256()
        sha.update(json.dumps([self.names.to_pylist(), self.sizes_bytes.to_pylist()]).encode())
        sha.update(json.dumps(self.modified_ns.to_pylist()).encode())
        return sha.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """Points to one input file, or to a folder of pictures."""

    #: As messages show it: what the caller typed, or the folder as typed and the file's path below it.
    name: str
    #: What any host opens: an absolute path, or a URL that pyarrow knows.
    location: str
    format: Format
    #: Columns that the names of its folders give; once it was looked into, only those that it lacks itself.
    partitions: tuple[Partition, ...] = ()
    #: Of a folder that counts as one file with a row for each.
    pictures: Pictures | None = None

    @property
    def is_packed(self) -> bool:
        """Whether the file is unpacked while it is read."""
        return self.name.lower().endswith(".gz")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """Points to an Arrow table in Ray's object store: rows that are in no file."""

    #: As messages show it.
    name: str
    #: Its ``ray.ObjectRef``.  The table lives as long as anybody holds one.
    reference: Any


#: Where rows are.
RowsRef = FileRef | StoredTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Describes a piece of a file where reading can begin without what stands before it.

    A row group of a Parquet file; a record batch of Arrow; an array or a stored table from its first row to its
    last; a run of whole records of a file of text.
    """

    #: Counted from 0 within the file.
    first_row: int
    rows: int
    #: Number of the row group or record batch; for text the offset in (unpacked) bytes at which the block begins.
    position: int
    size_bytes: int
    #: Whether some of its records were found to be unreadable, so that they have to be told from the others.
    has_bad_records: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """Says what one file, or stored table, was found to hold when it was inspected."""

    ref: RowsRef
    #: Where a format states no types: those that hold every value of the file.
    schema: pa.Schema
    rows: int
    #: In order, without gaps, at least one.
    blocks: tuple[Block, ...]
    size_bytes: int
    modified_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Holds all that a replica needs to read rows ``start`` up to, not including, ``stop`` of a file or table."""

    ref: RowsRef
    start: int
    stop: int
    #: The blocks that these rows lie in; no others, so that a slice stays small whatever the file's size.
    blocks: tuple[Block, ...]
    #: The file's size when it was inspected: another size now means that the rows are no longer the same.  Tables
    #: in the store cannot change.
    size_bytes: int


class Source(Protocol):
    """Is the rows of a job as the driver sees them: numbered from 0, in places where replicas read."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""
        ...

    @property
    def rows(self) -> int:
        """How many there are; so far, where they come bit by bit."""
        ...

    @property
    def cheap_cuts(self) -> tuple[int, ...]:
        """Rows at which a chunk may begin without reading what stands before it."""
        ...

    @property
    def read_singly(self) -> tuple[str, ...]:
        """Columns of which replicas hold one row at a time, however many a chunk has."""
        ...

    def slices(self, start: int, stop: int) -> tuple[Slice, ...]:
        """Return where rows ``start`` up to, not including, ``stop`` are: what a replica needs to read them."""
        ...

    def name(self, start: int, stop: int) -> str:
        """Return where these rows are, in words."""
        ...


class RowSource(Protocol):
    """Reads rows of one open file or stored table; every format has one."""

    def read(self, block: Block, start: int, stop: int) -> "Iterator[pa.RecordBatch | Unreadable]":
        """Yield rows ``start`` to ``stop``, counted from the block's first row, in order, in bounded batches."""

    def close(self) -> None:
        """Let go of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Stands in the place of rows that cannot be read."""

    rows: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Carries some rows of a file or table and knows which they are."""

    #: The file or table as messages show it.
    file: str
    #: Counted from 0 within the file.
    first_row: int
    batch: pa.RecordBatch

    def slice(self, start: int, stop: int) -> "Rows":
        """Return some of these rows."""
        return Rows(file=self.file, first_row=self.first_row + start, batch=self.batch.slice(start, stop - start))

    def name_row(self, index: int) -> str:
        """Say where row ``index`` of this batch comes from, as messages show it."""
        return f"{self.file}, row {self.first_row + index} (the first is 0)"
