"""Cuts files of text into blocks of whole records, and gives the rows of any block back.

CSV, JSON Lines and plain lines share it; what a record is and what rows it makes, their modules say.  UTF-8 all of
them; unpacked where the name ends in ``.gz``.  May not enter: columns, types.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from ovray.errors import ConfigError
from ovray.scoring.files import open_file, open_stream
from ovray.scoring.records import Block, FileRef, Unreadable

#: Text in one block.  A replica holds one block as text and as columns, so this bounds its memory; and a chunk
#: that begins inside a block costs the parsing of that block.
BLOCK_BYTES = 8 * 1024 * 1024

#: A record longer than this is taken for one that does not end.
MAX_RECORD_BYTES = 8 * BLOCK_BYTES

LINE_BREAK = b"\n"

#: What is wrong with a record that is none.
NOT_UTF8 = "is not UTF-8"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Is a run of text that begins where a record does."""

    content: bytes
    #: Offset in (unpacked) bytes.
    position: int
    #: Counted from 1.
    line: int
    #: Whether nothing follows in the file.
    is_last: bool = False

    def line_at(self, offset: int) -> int:
        """Return the line, counted from 1 within the file, that holds the byte at ``offset``."""
        return self.line + self.content.count(LINE_BREAK, 0, offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Says how many rows a text holds, bad ones too, and whether there are such."""

    rows: int
    has_bad: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Is what a text was found to hold."""

    #: The records that can be read, in order.
    table: pa.Table
    #: Why others cannot, by their number among all.
    bad: Mapping[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many there are, bad ones too."""
        return int(self.table.num_rows) + len(self.bad)


def begin_lines(stream: pa.NativeFile, ref: FileRef) -> Text:
    """Read the start of a file without a header: past the byte order mark, if there is one."""
    start: bytes = stream.read(len(BYTE_ORDER_MARK))
    refuse_utf16(start, ref)
    is_mark = start == BYTE_ORDER_MARK
    return Text(content=b"" if is_mark else start, position=len(start) if is_mark else 0, line=1)


def whole_records(
    stream: pa.NativeFile, begun: Text, last_record_end: Callable[[bytes], int], *, name: str, if_endless: str
) -> Iterator[Text]:
    """Yield all text of a file from ``begun`` on, in runs of whole records.

    Args:
        stream: What follows ``begun``.
        begun: What was read already.
        last_record_end: Returns the offset just behind the last whole record of a text that begins with a record;
            0 if there is none.
        name: Of the file, for messages.
        if_endless: What to do about a record that does not end, for messages.

    Raises:
        ConfigError: A record is longer than ``MAX_RECORD_BYTES``.
    """
    position, line, pending = begun.position, begun.line, begun.content
    while True:
        fresh: bytes = stream.read(BLOCK_BYTES)
        end = last_record_end(pending) if fresh else len(pending)
        if end:
            yield Text(content=pending[:end], position=position, line=line, is_last=not fresh)
            position += end
            line += pending.count(LINE_BREAK, 0, end)
        elif len(pending) > MAX_RECORD_BYTES:
            raise ConfigError(
                f"{name!r}: the record that begins in line {line} does not end within"
                f" {MAX_RECORD_BYTES // 2**20} MiB; {if_endless}"
            )
        if not fresh:
            return
        pending = pending[end:] + fresh


def last_line_end(text: bytes) -> int:
    """Return the offset just behind the last line of a text; 0 if none ends."""
    return text.rfind(LINE_BREAK) + 1


def count_blocks(
    texts: Iterable[Text], find_records: Callable[[Text], Found], rows_wanted: int | None
) -> tuple[Block, ...]:
    """Return a block for each text that holds rows, up to the one in which ``rows_wanted`` rows are reached."""
    blocks: list[Block] = []
    first_row = 0
    for text in texts:
        found = find_records(text)
        if found.rows:
            blocks.append(
                Block(
                    first_row=first_row,
                    rows=found.rows,
                    position=text.position,
                    size_bytes=len(text.content),
                    has_bad_records=found.has_bad,
                )
            )
        first_row += found.rows
        if rows_wanted is not None and first_row >= rows_wanted:
            break
    return tuple(blocks)


def refuse_utf16(start: bytes, ref: FileRef) -> None:
    """Refuse a file that begins with the byte order mark of UTF-16."""
    if start.startswith(_OTHER_BYTE_ORDER_MARKS):
        raise ConfigError(
            f"{ref.name!r} is encoded in UTF-16: ovray reads {ref.format.title} in UTF-8; convert it first"
        )


def refuse_other_encodings(text: Text, ref: FileRef) -> None:
    """Refuse text that is not UTF-8, with the line."""
    if text.content.isascii():
        return
    try:
        text.content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{ref.name!r}, line {text.line_at(error.start)}: byte 0x{text.content[error.start]:02x} is not UTF-8;"
            " convert the file first"
        ) from error


def is_utf8(text: bytes) -> bool:
    """Return whether bytes are text in UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


class TextRows:
    """Reads row ranges of one open file of text; the block parsed last is kept.  Suits one thread."""

    def __init__(
        self,
        ref: FileRef,
        parse: Callable[[bytes], pa.Table],
        parse_bad: Callable[[bytes], Records],
        *,
        rows_per_batch: int,
    ) -> None:
        """Open a file.

        Args:
            ref: The file.
            parse: Makes rows of the text of a block.
            parse_bad: The same for a block in which there are bad records.
            rows_per_batch: Rows that are given at once.
        """
        self._text: _SeekableText | _PackedText = _PackedText(ref) if ref.is_packed else _SeekableText(ref)
        self._parse = parse
        self._parse_bad = parse_bad
        self._rows_per_batch = rows_per_batch
        self._block: Block | None = None
        self._records: Records | None = None

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch | Unreadable]:
        """Yield rows ``start`` to ``stop``, both counted from the block's first row."""
        records = self._load(block)
        marks = sorted(records.bad)
        before = bisect_left(marks, start)
        for number in marks[before : bisect_left(marks, stop)]:
            yield from self._batches(records.table, start - before, number - before)
            yield Unreadable(rows=1, problem=records.bad[number])
            start, before = number + 1, before + 1
        yield from self._batches(records.table, start - before, stop - before)

    def close(self) -> None:
        """Let go of the file."""
        self._records = self._block = None
        self._text.close()

    def _load(self, block: Block) -> Records:
        if self._records is None or self._block != block:
            self._records = self._block = None
            text = self._text.read(block)
            records = self._parse_bad(text) if block.has_bad_records else Records(table=self._parse(text))
            if records.count != block.rows:
                raise pa.ArrowInvalid(f"holds {records.count} rows where there were {block.rows}")
            self._records, self._block = records, block
        return self._records

    def _batches(self, table: pa.Table, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        if start < stop:
            yield from table.slice(start, stop - start).to_batches(max_chunksize=self._rows_per_batch)


class _SeekableText:
    """Gives the text of any block at once."""

    def __init__(self, ref: FileRef) -> None:
        self._file = open_file(ref)

    def read(self, block: Block) -> bytes:
        self._file.seek(block.position)
        text: bytes = self._file.read(block.size_bytes)
        return text

    def close(self) -> None:
        self._file.close()


class _PackedText:
    """Gives the text of a block by unpacking all that stands before it; upward ranges unpack each byte once."""

    def __init__(self, ref: FileRef) -> None:
        self._ref = ref
        self._stream = open_stream(ref)
        self._position = 0

    def read(self, block: Block) -> bytes:
        if block.position < self._position:
            self._stream.close()
            self._stream = open_stream(self._ref)
            self._position = 0
        while self._position < block.position:
            skipped = len(self._stream.read(min(BLOCK_BYTES, block.position - self._position)))
            if not skipped:
                raise pa.ArrowInvalid("ends before the rows that it held")
            self._position += skipped
        text: bytes = self._stream.read(block.size_bytes)
        self._position += len(text)
        return text

    def close(self) -> None:
        self._stream.close()
