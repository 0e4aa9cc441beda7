"""The replica's end of a socket to a driver on the same host: requests come in, replies go out.

May not enter: what becomes of a request (serving.py), how it is written (wire.py).  The driver's end: the driver's
local_link.py, which listens; a replica only ever connects to the path that its driver names.
"""

import mmap
import os
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ovray.errors import ReplicaError
from ovray.replica.envelope import Envelope, Reply
from ovray.replica.frames import Buffer, FrameReader
from ovray.replica.wire import Cancel, read_message, write_replies

#: What connecting and the driver's greeting may take: both are waiting in the kernel already.
GREETING_TIMEOUT_S = 10.0

#: What one read may bring: more than a pipe holds, less than what stays in no cache.
READ_BYTES = 256 << 10

#: The greeting: how large the memory is whose file comes with it.
GREETING = struct.Struct("<Q")

_PEER = struct.Struct("3i")

#: Buffers of one gathering send; the kernel takes 1024 (IOV_MAX).
BUFFERS_A_CALL = 1000


class Serving(Protocol):
    """Is what answers requests; see serving.py."""

    def submit(self, envelope: Envelope, answer: Callable[[Sequence[Reply]], None]) -> None: ...

    def cancel(self, dispatch: int, client: str | None = None) -> None: ...


class DriversMemory:
    """Is the arena of a driver, as a replica sees it: to read, not to write."""

    def __init__(self, file: int, size_bytes: int) -> None:
        """Maps the file, and closes it."""
        try:
            self._bytes: NDArray[np.uint8] = np.frombuffer(
                mmap.mmap(file, size_bytes, prot=mmap.PROT_READ), dtype=np.uint8
            )
        finally:
            os.close(file)

    def offset_of(self, tensor: NDArray[Any]) -> int | None:
        """Says that nothing of the replica's own lies there."""
        return None

    def view(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Gives the array that lies there."""
        size_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        viewed: NDArray[Any] = self._bytes[offset : offset + size_bytes].view(dtype).reshape(shape)
        return viewed


class LocalSocket:
    """Serves one driver until it hangs up."""

    def __init__(self, path: str, server: Serving) -> None:
        """Connects, and begins to serve on a thread of its own.

        Raises:
            ReplicaError: nobody of the same user listens there.
        """
        self._server = server
        self._sending = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(GREETING_TIMEOUT_S)
        try:
            self._socket.connect(path)
            check_peer(self._socket)
            greeting, files, _, _ = socket.recv_fds(self._socket, GREETING.size, 1)
            if len(greeting) != GREETING.size or len(files) != 1:
                raise ReplicaError("the driver hung up before its greeting")
            self._memory = DriversMemory(files[0], GREETING.unpack(greeting)[0])
        except OSError as error:
            self._socket.close()
            raise ReplicaError(f"no socket to the driver: {error}") from error
        self._socket.settimeout(None)
        threading.Thread(target=self._read, name="driver-socket", daemon=True).start()

    def _read(self) -> None:
        reader, room = FrameReader(), bytearray(READ_BYTES)
        with self._socket:
            while count := _receive(self._socket, room):
                for frame in reader.feed(memoryview(room)[:count]):
                    message = read_message(frame, self._memory)
                    if isinstance(message, Cancel):
                        self._server.cancel(message.dispatch, message.client)
                    else:
                        self._server.submit(message, self._answer)

    def _answer(self, replies: Sequence[Reply]) -> None:
        parts = write_replies(replies)
        with self._sending:
            try:
                send_all(self._socket, parts)
            except OSError:
                # The driver has hung up: nobody is left to answer.  The reading thread ends by itself.
                return


def check_peer(connection: socket.socket) -> None:
    """Holds the other end's user against this one's.

    Raises:
        ReplicaError: it is somebody else.
    """
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, user, _ = _PEER.unpack(told)
    if user != os.getuid():
        connection.close()
        raise ReplicaError(f"user {user} is at the other end of a socket of user {os.getuid()}; it was closed")


def send_all(connection: socket.socket, parts: Sequence[Buffer]) -> None:
    """Sends all of these, however often the kernel takes only a part.

    Raises:
        OSError: the other end has hung up.
    """
    left = [memoryview(part) for part in parts if len(part)]
    while left:
        sent = connection.sendmsg(left[:BUFFERS_A_CALL])
        left = unsent(left, sent)


def unsent(parts: list[memoryview], sent_bytes: int) -> list[memoryview]:
    """Returns what of these is left when so many bytes have gone."""
    for index, part in enumerate(parts):
        if sent_bytes < len(part):
            return [part[sent_bytes:], *parts[index + 1 :]]
        sent_bytes -= len(part)
    return []


def _receive(connection: socket.socket, room: bytearray) -> int:
    try:
        return connection.recv_into(room)
    except OSError:
        return 0
