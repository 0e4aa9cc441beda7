"""Numbers a caller's rows in memory, and puts those of a chunk into Ray's object store when the chunk is cut.

So the store holds what replicas work on and no more, however large the data.  Rows may come batch by batch and may
be let go of when nobody needs them any more.
May not enter: shapes of data (held.py), when rows are scored (flow.py).
"""

import hashlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import ray

from ovray.errors import ConfigError, DataError
from ovray.scoring.cells import is_list
from ovray.scoring.files import one_line
from ovray.scoring.held import Held, HeldFrame
from ovray.scoring.records import Block, Slice, StoredTable

if TYPE_CHECKING:
    import pandas as pd

#: Rows that are hashed at once.
_HASHED_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Is some rows in their place among all."""

    start: int
    held: Held

    @property
    def stop(self) -> int:
        return self.start + int(self.held.table.num_rows)


class HeldRows:
    """Is ``Source`` of rows in this process's memory.

    One thread may add batches while others cut chunks and let go.
    """

    def __init__(self, kind: str, first: Held) -> None:
        """Begins with some rows, which say what columns there are.

        Args:
            kind: all rows, as messages call them.
            first: at least one row.
        """
        self.kind = kind
        self.schema: pa.Schema = first.table.schema.remove_metadata()
        self.unfit = first.unfit
        self._columns: list[str] = list(self.schema.names)
        self._lock = threading.Lock()
        self._batches: deque[_Batch] = deque()
        self._count = 0
        self._rows = 0
        self.add(first)

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def cheap_cuts(self) -> tuple[int, ...]:
        return ()

    @property
    def read_singly(self) -> tuple[str, ...]:
        return ()

    def sample(self, rows: int) -> pa.RecordBatch:
        """Returns up to so many of the first rows, with all columns."""
        table = self._batches[0].held.table.slice(0, rows).combine_chunks()
        return table.replace_schema_metadata().to_batches()[0]

    def read_only(self, columns: Sequence[str]) -> None:
        """Has no more than these columns travel.

        Raises:
            ConfigError: Arrow cannot hold one of them.
        """
        for name in columns:
            if name in self.unfit:
                raise ConfigError(
                    f"column {name!r} of {self.kind} cannot be sent to replicas: {self.unfit[name]}; convert it,"
                    " or list the columns to carry over with keep=, without this one"
                )
        self._columns = list(columns)

    def add(self, held: Held) -> int:
        """Adds rows behind the others; returns how many.

        Raises:
            DataError: they lack a column, or have one of another type than the first rows.
        """
        number, self._count = self._count, self._count + 1
        self._check(held, number)
        with self._lock:
            self._batches.append(_Batch(start=self._rows, held=held))
            self._rows += held.table.num_rows
        return int(held.table.num_rows)

    def slices(self, start: int, stop: int) -> tuple[Slice, ...]:
        """Puts rows ``start`` up to, not including, ``stop`` into the object store; returns where they are.

        They stay there as long as somebody has what is returned: until the chunk is done.
        """
        try:
            pieces = [
                self._typed(held.table.select(self._columns).slice(first, last - first))
                for held, first, last in self._within(start, stop)
            ]
        except pa.ArrowException as error:
            raise DataError(f"rows {start} to {stop} of {self.kind}: {one_line(error)}") from error
        reference = ray.put(pa.concat_tables(pieces))
        block = Block(first_row=start, rows=stop - start, position=0, size_bytes=0)
        return (
            Slice(
                ref=StoredTable(name=self.kind, reference=reference),
                start=start,
                stop=stop,
                blocks=(block,),
                size_bytes=0,
            ),
        )

    def name(self, start: int, stop: int) -> str:
        """Returns where rows are, in words."""
        rows = f"row {start}" if stop - start == 1 else f"rows {start} to {stop - 1}"
        return f"{self.kind}, {rows} (the first is 0)"

    def frame(self, kept: Sequence[str], start: int, stop: int) -> "pd.DataFrame":
        """Returns columns that are carried over; the index is a DataFrame's own, else the numbers of the rows."""
        import pandas as pd

        within = self._within(start, stop)
        frames = [held.frame(kept, first, last) for held, first, last in within]
        frame = frames[0] if len(frames) == 1 else pd.concat(frames)
        if not all(isinstance(held, HeldFrame) for held, _, _ in within):
            frame.index = pd.RangeIndex(start, stop)
        return frame

    def take_batch(self, row: int) -> Held | None:
        """Lets go of the first batch that is left, and returns it, if it ends at or before a row."""
        with self._lock:
            if not self._batches or self._batches[0].stop > row:
                return None
            return self._batches.popleft().held

    def drop_until(self, row: int) -> None:
        """Lets go of batches that end at or before a row."""
        with self._lock:
            while self._batches and self._batches[0].stop <= row:
                self._batches.popleft()

    def digest(self, columns: Sequence[str]) -> str:
        """Returns the SHA-256 of some columns: equal for equal rows, in this process or another."""
        digest = hashlib.sha256()
        for held, first, last in self._within(0, self._rows):
            for at in range(first, last, _HASHED_ROWS):
                piece = held.table.select(list(columns)).slice(at, min(_HASHED_ROWS, last - at))
                piece = piece.replace_schema_metadata()
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, piece.schema) as writer:
                    writer.write_table(piece.combine_chunks())
                digest.update(sink.getvalue())
        return digest.hexdigest()

    def _within(self, start: int, stop: int) -> list[tuple[Held, int, int]]:
        """Returns the batches that rows lie in, with where these rows start and stop in each."""
        with self._lock:
            batches = [one for one in self._batches if max(start, one.start) < min(stop, one.stop)]
        return [(one.held, max(start, one.start) - one.start, min(stop, one.stop) - one.start) for one in batches]

    def _typed(self, table: pa.Table) -> pa.Table:
        schema = pa.schema([self.schema.field(name) for name in self._columns])
        table = table.replace_schema_metadata()
        return table if table.schema == schema else table.cast(schema)

    def _check(self, held: Held, number: int) -> None:
        if not held.table.num_rows:
            return  # what has no rows often has no types either
        absent = [name for name in self._columns if name not in held.table.schema.names]
        if absent:
            raise DataError(f"batch {number} of {self.kind} has no column {absent[0]!r}, the first batch has")
        for name in self._columns:
            if name in held.unfit and name not in self.unfit:
                raise DataError(f"batch {number} of {self.kind}: column {name!r}: {held.unfit[name]}")
            found, wanted = held.table.schema.field(name).type, self.schema.field(name).type
            if not _can_become(found, wanted):
                raise DataError(
                    f"batch {number} of {self.kind}: column {name!r} is {found}, in the first batch {wanted}"
                )


def _can_become(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Returns whether values are of the same sort: Arrow would also make numbers of text."""
    return found == wanted or pa.types.is_null(found) or _sort(found) == _sort(wanted)


def _sort(of: pa.DataType) -> str:
    kinds, depth = pa.types, 0
    while is_list(of) or kinds.is_dictionary(of):
        depth += is_list(of)
        of = of.value_type
    if kinds.is_integer(of) or kinds.is_floating(of) or kinds.is_boolean(of) or kinds.is_decimal(of):
        return f"numbers in {depth} lists"
    if kinds.is_string(of) or kinds.is_large_string(of) or kinds.is_string_view(of):
        return f"text in {depth} lists"
    return f"{of} in {depth} lists"
