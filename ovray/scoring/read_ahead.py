"""Reads small files on several threads before their turn comes: one thread would leave a large device waiting.

May not enter: formats.  Rows still come in order, and an error at its turn.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from ovray.scoring.records import Block, FileRef, RowSource, Slice

#: Each thread may hold a large picture; so many decode faster than any device infers.
MAX_THREADS = 16


class ReadAhead:
    """Has a window of upcoming slices read, those that are whole small files.  Suits one caller."""

    def __init__(self, open_rows: Callable[[Slice], RowSource]) -> None:
        """Prepare to read what ``open_rows`` opens, which is called on several threads at once."""
        self._open_rows = open_rows
        self._count = min(len(os.sched_getaffinity(0)), MAX_THREADS)
        self._threads: ThreadPoolExecutor | None = None
        #: Of the slice whose turn it is.
        self._current: tuple[Slice, Future[list[pa.RecordBatch]]] | None = None

    def over(self, slices: Iterable[Slice]) -> Generator[Slice, None, None]:
        """Yield every slice, in order; while it is its turn, ``source_of`` has what was read ahead of it."""
        upcoming = iter(slices)
        window: deque[tuple[Slice, Future[list[pa.RecordBatch]] | None]] = deque()
        try:
            while True:
                while len(window) <= self._count and (one := next(upcoming, None)) is not None:
                    window.append((one, self._submit(one) if _is_one_row(one) else None))
                if not window:
                    return
                turn, loading = window.popleft()
                self._current = None if loading is None else (turn, loading)
                yield turn
        finally:
            self._current = None
            for _, loading in window:
                if loading is not None:
                    loading.cancel()

    def source_of(self, one: Slice) -> RowSource | None:
        """Return what gives the rows of a slice; ``None`` where they are not read ahead."""
        return _Loading(self._current[1]) if self._current is not None and self._current[0] is one else None

    def close(self) -> None:
        """Let the threads end; reading ahead may go on afterwards."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)

    def _submit(self, one: Slice) -> "Future[list[pa.RecordBatch]]":
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=self._count, thread_name_prefix="read-ahead")
        return self._threads.submit(self._load, one)

    def _load(self, one: Slice) -> list[pa.RecordBatch]:
        source = self._open_rows(one)
        try:
            return [batch for block in one.blocks for batch in source.read(block, 0, block.rows)]
        finally:
            source.close()


def _is_one_row(one: Slice) -> bool:
    return isinstance(one.ref, FileRef) and one.ref.format.is_one_row


@dataclass(frozen=True, slots=True)
class _Loading:
    """Is a source of the rows of one slice, which another thread reads."""

    batches: "Future[list[pa.RecordBatch]]"

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        yield from self.batches.result()

    def close(self) -> None:
        return
