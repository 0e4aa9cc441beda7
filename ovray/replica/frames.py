"""Cuts what a socket between two processes of one user on one host brings into messages, and the other way round.

May not enter: sockets, what a message says (wire.py).  Both ends run the same version of ovray: a replica is
started by the driver that talks to it.

A frame is ``[bytes of the head][number of buffers][bytes of each buffer][head][buffers]``.  The head is a pickle
of plain values; the buffers are tensors' bytes.
"""

import pickle
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from ovray.errors import ReplicaError

_COUNTS = struct.Struct("<II")

#: A head above this is no head: the other end is not one of ours.
_HEAD_MAX_BYTES = 1 << 28

Buffer = bytes | memoryview


class Frame(NamedTuple):
    """Is one message."""

    head: Any
    #: Writable memory that nobody but the reader holds.
    buffers: list[memoryview]


def write_frame(head: Any, buffers: Sequence[Buffer]) -> list[Buffer]:
    """Returns the parts of a frame, for a gathering send."""
    packed = pickle.dumps(head, protocol=5)
    lengths = struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
    return [_COUNTS.pack(len(packed), len(buffers)) + lengths + packed, *buffers]


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
        while (end := _end_of_frame(whole[at:])) is not None:
            frames.append(_read_frame(whole[at : at + end]))
            at += end
        if frames:
            # The frames keep the memory that they lie in.
            self._received = bytearray(whole[at:])
        return frames


def _end_of_frame(received: memoryview) -> int | None:
    """Says how long the first frame is; ``None`` where it is not whole."""
    if len(received) < _COUNTS.size:
        return None
    head_bytes, buffer_count = _COUNTS.unpack_from(received)
    if head_bytes > _HEAD_MAX_BYTES:
        raise ReplicaError("what came over the socket is no frame of ovray's; the connection was closed")
    head_at = _COUNTS.size + 8 * buffer_count
    if len(received) < head_at:
        return None
    end = head_at + head_bytes + sum(struct.unpack_from(f"<{buffer_count}Q", received, _COUNTS.size))
    return end if len(received) >= end else None


def _read_frame(frame: memoryview) -> Frame:
    head_bytes, buffer_count = _COUNTS.unpack_from(frame)
    lengths = struct.unpack_from(f"<{buffer_count}Q", frame, _COUNTS.size)
    at = _COUNTS.size + 8 * buffer_count + head_bytes
    head = pickle.loads(frame[at - head_bytes : at])
    buffers = []
    for length in lengths:
        buffers.append(frame[at : at + length])
        at += length
    return Frame(head, buffers)
