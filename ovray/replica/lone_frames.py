"""Frames of one request, or of one answer with outputs, of plain arrays: most of those that are not joined.

May not enter: frames of several (wire.py), sockets, what becomes of a request.

Their heads are numbers at fixed places, and then what is the same in most of them, types and shapes, as bytes that
either end has seen before: a lookup takes the place of a pickle.  On two cores that others used, too, writing and
reading a request took 7 and 11 us with a pickle of its own, an answer 9 and 18.
"""

import pickle
import struct
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ovray.replica.envelope import Reply, Request, TensorShape
from ovray.replica.frames import Buffer, Frame, write_plain_frame

#: Tensors from this size on are sent as they are; smaller ones are gathered, which is a copy.
GATHERED_BELOW_BYTES = 16 << 10

#: What the heads begin with; one that is a pickle begins with b"\x80".
REQUEST, REPLY = b"R", b"A"

#: Sign, dispatch, number of offsets, which follow, and then the kind.
_REQUEST_HEAD = struct.Struct("<cqB")
#: Sign, dispatch, seconds in the queue and of the inference, rows of its tensor, and then the kind.
_REPLY_HEAD = struct.Struct("<cqddI")

#: In place of an offset: the bytes of the tensor are in the frame.
_IN_FRAME = -1

#: Kinds that are known at once; lengths of texts may make many.
_KINDS_KEPT = 1024

Tensors = tuple[NDArray[Any], ...]

#: What stands with the tensors (``client`` and ``shapes`` of a request, ``shapes`` of a reply), and their types
#: and shapes.
_Kind = tuple[Any, tuple[tuple[np.dtype[Any], TensorShape], ...]]


class SharedMemory(Protocol):
    """Knows which arrays lie in memory that both ends have."""

    def offset_of(self, tensor: NDArray[Any]) -> int | None:
        """Says where an array lies; ``None``: elsewhere."""
        ...

    def view(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Gives the array that lies there."""
        ...


def write_lone_request(client: str, request: Request, shared: SharedMemory) -> list[Buffer] | None:
    """Returns the parts of the frame of an envelope with one request; ``None`` where it is not so plain."""
    kind = _written((client, request.shapes), request.tensors)
    if kind is None:
        return None
    buffers: list[Buffer] = []
    offsets: list[int] = []
    for array in request.tensors:
        # Smaller ones are never placed there; and to ask an array for its address takes longer than to copy it.
        offset = shared.offset_of(array) if array.nbytes >= GATHERED_BELOW_BYTES else None
        if offset is None:
            offset = _IN_FRAME
            buffers.append(_bytes_of(array))
        offsets.append(offset)
    head = _REQUEST_HEAD.pack(REQUEST, request.dispatch, len(offsets)) + struct.pack(f"<{len(offsets)}q", *offsets)
    return write_plain_frame(head + kind, buffers)


def read_lone_request(frame: Frame, shared: SharedMemory) -> tuple[str, Request]:
    """Reads who asks, and what; the tensors are views of the frame or of the shared memory: not to be written."""
    head: bytes = frame.head
    _, dispatch, count = _REQUEST_HEAD.unpack_from(head)
    offsets = struct.unpack_from(f"<{count}q", head, _REQUEST_HEAD.size)
    (client, shapes), described = _read(head[_REQUEST_HEAD.size + 8 * count :])
    buffers = iter(frame.buffers)
    tensors = tuple(
        [
            _array(next(buffers), dtype, shape) if offset == _IN_FRAME else shared.view(offset, dtype, shape)
            for offset, (dtype, shape) in zip(offsets, described, strict=True)
        ]
    )
    return client, Request(dispatch=dispatch, tensors=tensors, shapes=shapes)


def write_lone_reply(reply: Reply) -> list[Buffer] | None:
    """Returns the parts of the frame of one reply; ``None`` where it is not so plain."""
    if reply.outputs is None or (kind := _written(reply.shapes, reply.outputs)) is None:
        return None
    head = _REPLY_HEAD.pack(REPLY, reply.dispatch, reply.queued_s, reply.infer_s, reply.batch_rows)
    return write_plain_frame(head + kind, [_bytes_of(array) for array in reply.outputs])


def read_lone_reply(frame: Frame) -> Reply:
    """Reads a reply.  The outputs are the reader's to keep and to write."""
    head: bytes = frame.head
    _, dispatch, queued_s, infer_s, batch_rows = _REPLY_HEAD.unpack_from(head)
    shapes, described = _read(head[_REPLY_HEAD.size :])
    outputs = tuple(
        [_array(buffer, dtype, shape) for buffer, (dtype, shape) in zip(frame.buffers, described, strict=True)]
    )
    if sum([buffer.nbytes for buffer in frame.buffers]) < GATHERED_BELOW_BYTES:
        # A small one that is kept for long must not keep the memory of all that came with it.
        outputs = tuple([output.copy() for output in outputs])
    return Reply(
        dispatch=dispatch,
        outputs=outputs,
        error=None,
        queued_s=queued_s,
        infer_s=infer_s,
        batch_rows=batch_rows,
        shapes=shapes,
    )


def _written(beside: Hashable, tensors: Tensors) -> bytes | None:
    return _bytes_of_kind(beside, tuple([(array.dtype, array.shape) for array in tensors]))


@lru_cache(_KINDS_KEPT)
def _bytes_of_kind(beside: Hashable, described: tuple[tuple[np.dtype[Any], TensorShape], ...]) -> bytes | None:
    """Returns what says types and shapes; ``None`` for arrays that are not plain."""
    if any(dtype.hasobject for dtype, _ in described):
        return None
    return pickle.dumps((beside, [(dtype.str, shape) for dtype, shape in described]), protocol=5)


@lru_cache(_KINDS_KEPT)
def _read(written: bytes) -> _Kind:
    beside, described = pickle.loads(written)
    return beside, tuple((np.dtype(type_name), shape) for type_name, shape in described)


def _bytes_of(array: NDArray[Any]) -> Buffer:
    if array.nbytes < GATHERED_BELOW_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _array(buffer: memoryview, dtype: np.dtype[Any], shape: TensorShape) -> NDArray[Any]:
    return np.ndarray(shape, dtype, buffer)
