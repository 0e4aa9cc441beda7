"""What is said between a driver and a replica over a local socket: envelopes, cancellations, replies.

May not enter: sockets, threads, what becomes of a request.

Tensors of several requests that have the same types and shapes lie in one buffer for each port, so that a hundred
small requests cost one array and not a hundred.  Tensors that lie in memory that both ends share are named by the
offset there.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovray.replica.envelope import Envelope, Reply, Request
from ovray.replica.frames import Buffer, Frame, write_frame
from ovray.replica.lone_frames import (
    GATHERED_BELOW_BYTES,
    SharedMemory,
    Tensors,
    read_lone_reply,
    read_lone_request,
    write_lone_reply,
    write_lone_request,
)


class Cancel(NamedTuple):
    """Says that nobody needs a request any more."""

    client: str
    dispatch: int


class NoSharedMemory:
    """Is what two ends have that share none."""

    def offset_of(self, tensor: NDArray[Any]) -> int | None:
        return None

    def view(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        raise AssertionError("offsets are only written by an end that shares memory")


def write_envelope(envelope: Envelope, shared: SharedMemory) -> list[Buffer]:
    """Returns the parts of an envelope's frame."""
    if len(envelope.requests) == 1:
        lone = write_lone_request(envelope.client, envelope.requests[0], shared)
        if lone is not None:
            return lone
    buffers: list[Buffer] = []
    groups = []
    for _, group in groupby(envelope.requests, key=_kind_of_request):
        requests = list(group)
        groups.append(
            (
                [request.dispatch for request in requests],
                requests[0].shapes,
                _write_tensors([request.tensors for request in requests], shared, buffers),
            )
        )
    return write_frame((envelope.client, groups), buffers)


def write_cancel(cancel: Cancel) -> list[Buffer]:
    """Returns the parts of a cancellation's frame."""
    return write_frame(tuple(cancel), [])


def read_message(frame: Frame, shared: SharedMemory) -> Envelope | Cancel:
    """Reads what a driver said.  The tensors are views of the frame or of the shared memory: not to be written."""
    if type(frame.head) is bytes:
        client, request = read_lone_request(frame, shared)
        return Envelope(client=client, requests=(request,))
    client, groups = frame.head
    if isinstance(groups, int):
        return Cancel(client, dispatch=groups)
    buffers = iter(frame.buffers)
    requests: list[Request] = []
    for dispatches, shapes, described in groups:
        columns = [_read_port(port, len(dispatches), buffers, shared) for port in described]
        requests += [
            Request(dispatch=dispatch, tensors=tensors, shapes=shapes)
            for dispatch, tensors in zip(dispatches, _rows(columns, len(dispatches)), strict=True)
        ]
    return Envelope(client=client, requests=tuple(requests))


def write_replies(replies: Sequence[Reply]) -> list[Buffer]:
    """Returns the parts of a frame of replies."""
    if len(replies) == 1:
        lone = write_lone_reply(replies[0])
        if lone is not None:
            return lone
    buffers: list[Buffer] = []
    groups = []
    for _, group in groupby(replies, key=_kind_of_reply):
        alike = list(group)
        outputs = [reply.outputs for reply in alike if reply.outputs is not None]
        groups.append(
            (
                [
                    (reply.dispatch, reply.error, reply.queued_s, reply.infer_s, reply.batch_rows, reply.shapes)
                    for reply in alike
                ],
                _write_tensors(outputs, NoSharedMemory(), buffers) if outputs else None,
            )
        )
    return write_frame(groups, buffers)


def read_replies(frame: Frame) -> list[Reply]:
    """Reads what a replica said.  The outputs are the reader's to keep and to write."""
    if type(frame.head) is bytes:
        return [read_lone_reply(frame)]
    buffers = iter(frame.buffers)
    replies: list[Reply] = []
    for told, described in frame.head:
        if described is None:
            outputs: Sequence[Tensors | None] = [None] * len(told)
        else:
            columns = [_read_port(port, len(told), buffers, NoSharedMemory()) for port in described]
            # A small one that is kept for long must not keep the memory of all that came with it.
            is_small = sum(tensor.nbytes for tensor in (column[0] for column in columns)) < GATHERED_BELOW_BYTES
            outputs = [
                tuple(tensor.copy() for tensor in tensors) if is_small else tensors
                for tensors in _rows(columns, len(told))
            ]
        replies += [
            Reply(
                dispatch=dispatch,
                outputs=tensors,
                error=error,
                queued_s=queued_s,
                infer_s=infer_s,
                batch_rows=batch_rows,
                shapes=shapes,
            )
            for (dispatch, error, queued_s, infer_s, batch_rows, shapes), tensors in zip(
                told, outputs, strict=True
            )
        ]
    return replies


def _kind_of_request(request: Request) -> Any:
    return request.shapes, _kind(request.tensors, request.dispatch)


def _kind_of_reply(reply: Reply) -> Any:
    return None if reply.outputs is None else _kind(reply.outputs, reply.dispatch)


def _kind(tensors: Tensors, dispatch: int) -> Any:
    """Is equal for tensors that may share a buffer; large ones share none."""
    if sum(tensor.nbytes for tensor in tensors) >= GATHERED_BELOW_BYTES:
        return dispatch
    return [(tensor.dtype, tensor.shape) for tensor in tensors]


def _write_tensors(items: Sequence[Tensors], shared: SharedMemory, buffers: list[Buffer]) -> list[Any]:
    return [_write_port(arrays, shared, buffers) for arrays in zip(*items, strict=True)]


def _write_port(arrays: Sequence[NDArray[Any]], shared: SharedMemory, buffers: list[Buffer]) -> Any:
    """Describes the tensors of one port, which have one type and shape; adds their bytes to the buffers."""
    first = arrays[0]
    if first.dtype.hasobject:
        return None, first.shape, [array.ravel().tolist() for array in arrays]
    if len(arrays) == 1 and first.nbytes:
        offset = shared.offset_of(first)
        if offset is not None:
            return first.dtype.str, first.shape, offset
        buffers.append(np.ascontiguousarray(first).reshape(-1).view(np.uint8).data)
    else:
        buffers.append(b"".join([array.tobytes() for array in arrays]))
    return first.dtype.str, first.shape, None


def _read_port(described: Any, count: int, buffers: Any, shared: SharedMemory) -> Sequence[NDArray[Any]]:
    """Gives an array for each of the ``count`` requests."""
    type_name, shape, where = described
    if type_name is None:
        return [_of_objects(values, shape) for values in where]
    if where is not None:
        return [shared.view(where, np.dtype(type_name), shape)]
    whole: NDArray[Any] = np.frombuffer(next(buffers), dtype=type_name)
    return [*whole.reshape((count, *shape))] if shape else [whole[at : at + 1].reshape(()) for at in range(count)]


def _of_objects(values: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _rows(columns: Sequence[Sequence[NDArray[Any]]], count: int) -> list[Tensors]:
    return list(zip(*columns, strict=True)) if columns else [()] * count
