"""Memory that a driver shares with the replicas on its own host: what lies in it does not travel.

May not enter: sockets, requests.  The driver writes, replicas only read; so a replica that was given up and is
still alive can do no harm to what came later.  The memory has no name in any file system and is gone with the last
process that has it.
"""

import math
import mmap
import os
import threading
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovray.replica.lone_frames import GATHERED_BELOW_BYTES

#: Blocks begin at multiples of this: a cache line, and what OpenVINO aligns tensors to.
_ALIGNMENT = 64


class Arena:
    """Hands out blocks of shared memory.  Safe to use from many threads.

    Blocks come in sizes of four steps to each doubling, and one that is given back is the next of its size to be
    handed out: its pages are there already, and likely in a cache.
    """

    def __init__(self, size_bytes: int) -> None:
        """Reserves address space; memory is taken as blocks are first used.

        Raises:
            OSError: the system has no shared memory to give.
        """
        self.size_bytes = size_bytes
        #: For replicas to map.
        self.file = os.memfd_create("ovray-arena", os.MFD_CLOEXEC)
        os.ftruncate(self.file, size_bytes)
        self._memory = mmap.mmap(self.file, size_bytes)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._memory, dtype=np.uint8)
        self._begins_at = self._bytes.ctypes.data
        self._changing = threading.Lock()
        self._untouched_from = 0
        #: Offsets of blocks that nobody holds, by their size.
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        #: How often each block that somebody holds has to be given back, by its offset.
        self._holders: dict[int, int] = {}
        #: The arrays in these blocks, with their offsets, by ``id``: to ask an array for its address takes 1.5 us,
        #: ten times that where an inference has emptied the caches, and each is asked for six times.
        self._placed: dict[int, tuple[NDArray[Any], int]] = {}
        self._id_at: dict[int, int] = {}
        #: Blocks that were given back, and their sizes, since anybody looked.  No lock guards this: a destructor,
        #: which may run within any line of a thread that has the lock, gives blocks back, too.
        self._returned: deque[tuple[int, int]] = deque()

    def place(self, tensor: NDArray[Any]) -> NDArray[Any] | None:
        """Copies a tensor into a block; ``None`` where no block is left.

        Returns:
            The copy, C-contiguous; to be given back once, and once more for each ``hold``.
        """
        offset = self._take(_block_bytes(tensor.nbytes))
        if offset is None:
            return None
        flat = self._bytes[offset : offset + tensor.nbytes]
        placed: NDArray[Any] = flat.view(tensor.dtype).reshape(tensor.shape)
        np.copyto(placed, tensor)
        self._id_at[offset] = id(placed)
        self._placed[id(placed)] = placed, offset
        return placed

    def hold(self, placed: NDArray[Any]) -> bool:
        """Keeps the block of a placed tensor for one more; ``False``: the tensor lies elsewhere."""
        offset = self.offset_of(placed)
        if offset is None:
            return False
        with self._changing:
            self._holders[offset] += 1
        return True

    def give_back(self, placed: NDArray[Any]) -> None:
        """Makes the block of a tensor free, unless others hold it."""
        offset = self.offset_of(placed)
        assert offset is not None, "it was placed"
        self._returned.append((offset, _block_bytes(placed.nbytes)))

    def offset_of(self, tensor: NDArray[Any]) -> int | None:
        """Says where a tensor lies; ``None``: elsewhere."""
        placed = self._placed.get(id(tensor))
        if placed is not None:
            return placed[1]  # it is in there, and so alive: no other array has its id
        offset = tensor.ctypes.data - self._begins_at
        return offset if 0 <= offset < self.size_bytes else None

    def view(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Gives the array that lies there."""
        return view_of(self._bytes, offset, dtype, shape)

    def close(self) -> None:
        """Closes the file; the memory goes with the last array that lies in it."""
        os.close(self.file)

    def _take(self, block_bytes: int) -> int | None:
        with self._changing:
            self._take_in_returned()
            if self._free[block_bytes]:
                offset = self._free[block_bytes].pop()
            elif self._untouched_from + block_bytes <= self.size_bytes:
                offset = self._untouched_from
                self._untouched_from += block_bytes
            else:
                return None
            self._holders[offset] = 1
            return offset

    def _take_in_returned(self) -> None:
        while self._returned:
            offset, block_bytes = self._returned.popleft()
            self._holders[offset] -= 1
            if self._holders[offset] == 0:
                del self._holders[offset]
                self._placed.pop(self._id_at.pop(offset, 0), None)
                self._free[block_bytes].append(offset)


class ArenaStorage:
    """Keeps large tensors in an arena as long as there is place, and others in memory of the process."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def place(self, tensor: NDArray[Any]) -> NDArray[Any] | None:
        """Copies a large tensor into the arena, where ``keep`` then leaves it; ``None`` for others."""
        if tensor.nbytes < GATHERED_BELOW_BYTES or tensor.dtype.hasobject:
            return None
        return self._arena.place(tensor)

    def keep(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Copies a tensor, unless it lies in the arena; what is kept is C-contiguous."""
        if tensor.nbytes >= GATHERED_BELOW_BYTES and self._arena.hold(tensor):
            return tensor
        placed = self.place(tensor)
        return np.array(tensor, order="C") if placed is None else placed

    def forget(self, kept: Iterable[NDArray[Any]]) -> None:
        """Says that nobody needs these copies any more."""
        for tensor in kept:
            if tensor.nbytes >= GATHERED_BELOW_BYTES and self._arena.offset_of(tensor) is not None:
                self._arena.give_back(tensor)


class ProcessStorage:
    """Keeps every tensor in memory of the process."""

    def place(self, tensor: NDArray[Any]) -> NDArray[Any] | None:
        """Places nothing: what is kept is always a copy."""
        return None

    def keep(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Copies a tensor; the copy is C-contiguous."""
        return np.array(tensor, order="C")

    def forget(self, kept: Iterable[NDArray[Any]]) -> None:
        """Does nothing: the memory goes with the last that refers to it."""


def view_of(memory: NDArray[np.uint8], offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Gives an array that lies in a stretch of bytes."""
    flat = memory[offset : offset + math.prod(shape) * dtype.itemsize]
    viewed: NDArray[Any] = flat.view(dtype).reshape(shape)
    return viewed


def _block_bytes(size_bytes: int) -> int:
    """Rounds up to one of four sizes in each doubling."""
    wanted = max(_ALIGNMENT, size_bytes)
    step = max(_ALIGNMENT, (1 << (wanted - 1).bit_length()) >> 3)
    return -(-wanted // step) * step
