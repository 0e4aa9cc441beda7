"""Cuts what a socket between two processes of one user on one host brings into messages, and the other way round.

May not enter: sockets, what a message says (wire.py).  Both ends run the same version of ovray: a replica is
started by the driver that talks to it.

A frame is ``[bytes of the head][number of buffers][bytes of each buffer][head][buffers]``.  The head is a pickle
of plain values, or bytes that begin with another sign than a pickle's; the buffers are tensors' bytes.
"""

import pickle
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from ovray.errors import ReplicaError

_COUNTS = struct.Struct("<II")

#: A head above this is no head: the other end is not one of ours.
_HEAD_MAX_BYTES = 1 << 28

#: What every pickle of protocol 2 and above begins with.
_PICKLE = b"\x80"

Buffer = bytes | memoryview


class Frame(NamedTuple):
    """Is one message."""

    #: Bytes where it was written as such.
    head: Any
    #: Writable memory that nobody but the reader holds.
    buffers: list[memoryview]


def write_frame(head: Any, buffers: Sequence[Buffer]) -> list[Buffer]:
    """Returns the parts of a frame, for a gathering send."""
    return write_plain_frame(pickle.dumps(head, protocol=5), buffers)


def write_plain_frame(head: bytes, buffers: Sequence[Buffer]) -> list[Buffer]:
    """Returns the parts of a frame whose head is these bytes, which begin as no pickle does."""
    counts = struct.pack(f"<II{len(buffers)}Q", len(head), len(buffers), *map(len, buffers))
    return [counts + head, *buffers]


class FrameReader:
    """Holds what has come of a frame that is not whole yet."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, received: bytes | memoryview) -> list[Frame]:
        """Takes in some bytes; returns the frames that are whole now, all of them in the same memory.

        Raises:
            ReplicaError: the bytes are no frame.
        """
        self._received += received
        frames: list[Frame] = []
        whole, at = memoryview(self._received), 0
        while (found := _frame_at(whole, at)) is not None:
            frame, at = found
            frames.append(frame)
        if frames:
            # The frames keep the memory that they lie in.
            self._received = bytearray(whole[at:])
        return frames


def _frame_at(whole: memoryview, at: int) -> tuple[Frame, int] | None:
    """Reads the frame that begins there, and says where the next one does; ``None`` where it is not whole."""
    left = len(whole) - at
    if left < _COUNTS.size:
        return None
    head_bytes, buffer_count = _COUNTS.unpack_from(whole, at)
    if head_bytes > _HEAD_MAX_BYTES:
        raise ReplicaError("what came over the socket is no frame of ovray's; the connection was closed")
    head_at = _COUNTS.size + 8 * buffer_count
    if left < head_at:
        return None
    lengths = struct.unpack_from(f"<{buffer_count}Q", whole, at + _COUNTS.size)
    if left < head_at + head_bytes + sum(lengths):
        return None
    at += head_at
    packed = whole[at : at + head_bytes]
    head = pickle.loads(packed) if packed[:1] == _PICKLE else bytes(packed)
    at += head_bytes
    buffers = []
    for length in lengths:
        buffers.append(whole[at : at + length])
        at += length
    return Frame(head, buffers), at
