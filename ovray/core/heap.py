"""A priority queue whose items can change place: the one data structure behind every O(log n) in the core.

May not enter: anything that knows what the items are.
"""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K")

#: Stale entries tolerated beside the live ones before the heap is rebuilt.
_STALE_ENTRIES_TOLERATED = 64


class LazyHeap(Generic[T, K]):
    """Keeps items in the order of their keys; equal keys in the order they were set.

    An item that moves or leaves is only forgotten, and its old entry skipped when it comes to the top:
    every call is O(log n) amortised, and nothing is ever searched.
    """

    __slots__ = ("_entries", "_keys", "_ticket")

    def __init__(self) -> None:
        self._entries: list[tuple[K, int, T]] = []
        self._keys: dict[T, K] = {}
        self._ticket = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, item: T) -> bool:
        return item in self._keys

    def items(self) -> list[T]:
        """Return the items in no promised order."""
        return list(self._keys)

    def key_of(self, item: T) -> K | None:
        return self._keys.get(item)

    def set(self, item: T, key: K) -> None:
        """Put an item in, or move it to another key."""
        if self._keys.get(item) == key:
            return
        self._keys[item] = key
        self._ticket += 1
        heapq.heappush(self._entries, (key, self._ticket, item))
        if len(self._entries) > 2 * len(self._keys) + _STALE_ENTRIES_TOLERATED:
            self._rebuild()

    def discard(self, item: T) -> None:
        """Take an item out; one that is not in does no harm."""
        self._keys.pop(item, None)

    def first(self) -> T | None:
        """Return the item with the smallest key, or ``None`` where there is none."""
        entry = self.first_with_key()
        return None if entry is None else entry[0]

    def first_key(self) -> K | None:
        """Return the smallest key, or ``None`` where there is none."""
        entry = self.first_with_key()
        return None if entry is None else entry[1]

    def first_with_key(self) -> tuple[T, K] | None:
        """Return the item with the smallest key, and that key."""
        entries, keys = self._entries, self._keys
        while entries:
            key, _, item = entries[0]
            if keys.get(item) == key:
                return item, key
            heapq.heappop(entries)
        return None

    def _rebuild(self) -> None:
        live: dict[T, tuple[K, int, T]] = {}
        for entry in self._entries:
            if self._keys.get(entry[2]) == entry[0] and (entry[2] not in live or entry[1] > live[entry[2]][1]):
                live[entry[2]] = entry
        self._entries = list(live.values())
        heapq.heapify(self._entries)
