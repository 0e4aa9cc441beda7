"""Reads small files on several threads before their turn comes: one thread would leave a large device waiting.

May not enter: what is read.  Rows still come in order, and an error at its turn.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from ovray.scoring.records import Slice

#: Each thread may hold a large picture; so many decode faster than any device infers.
MAX_THREADS = 16

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Has a window of upcoming slices read, those that are whole small files.  Suits one caller."""

    def __init__(self, load: Callable[[Slice], T]) -> None:
        """Prepare to call ``load`` on several threads at once."""
        self._load = load
        self._count = min(len(os.sched_getaffinity(0)), MAX_THREADS)
        self._threads: ThreadPoolExecutor | None = None

    def over(self, slices: Iterable[Slice]) -> Generator[tuple[Slice, "Future[T] | None"], None, None]:
        """Yield every slice, in order, with what is being read of it; ``None`` where that is not read ahead."""
        upcoming = iter(slices)
        window: deque[tuple[Slice, Future[T] | None]] = deque()
        try:
            while True:
                while len(window) <= self._count and (one := next(upcoming, None)) is not None:
                    window.append((one, self._submit(one) if one.ref.format.is_one_row else None))
                if not window:
                    return
                yield window.popleft()
        finally:
            for _, loading in window:
                if loading is not None:
                    loading.cancel()

    def close(self) -> None:
        """Let the threads end; reading ahead may go on afterwards."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)

    def _submit(self, one: Slice) -> "Future[T]":
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=self._count, thread_name_prefix="read-ahead")
        return self._threads.submit(self._load, one)
