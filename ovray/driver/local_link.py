"""The driver's end of a socket to a replica on the same host.

May not enter: threads, waiting, what a reply means.  All of it happens on the driver thread; nothing blocks, so a
replica that is stopped holds up nobody.  The replica's end: the replica's local_socket.py.
"""

import os
import socket
import tempfile
from collections.abc import Callable, Sequence

from ovray.core.ids import ReplicaId
from ovray.driver.arena import Arena
from ovray.driver.mailbox import Mailbox
from ovray.driver.messages import Gone, Replied
from ovray.errors import ReplicaError
from ovray.replica.envelope import Envelope
from ovray.replica.frames import Buffer, FrameReader
from ovray.replica.local_socket import BUFFERS_A_CALL, GREETING, READ_BYTES, check_peer, unsent
from ovray.replica.wire import Cancel, read_replies, write_cancel, write_envelope


class Doorway:
    """Waits for one replica to connect, at a path through this process: there is no file that could outlive it."""

    def __init__(self, mailbox: Mailbox, on_connected: Callable[[socket.socket], None]) -> None:
        """Listens.

        Raises:
            OSError: there is no place for a socket.
        """
        self._mailbox = mailbox
        self._on_connected = on_connected
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._place = _listen_nowhere(self._listener)
        except OSError:
            self._listener.close()
            raise
        self.path = f"/proc/{os.getpid()}/fd/{self._place}"
        self._is_open = True
        mailbox.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Lets nobody in any more.  A second call does nothing."""
        if self._is_open:
            self._is_open = False
            self._mailbox.unwatch(self._listener.fileno())
            self._listener.close()
            os.close(self._place)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
            check_peer(connection)
        except (BlockingIOError, ReplicaError):
            return  # whoever it was has left again, or was shown out; the one that is expected may still come
        self.close()
        self._on_connected(connection)


def _listen_nowhere(listener: socket.socket) -> int:
    """Binds a listener to a file that is removed at once; returns the descriptor through which it can be found.

    The kernel lets only this user's processes through, ``PTRACE_MODE_READ`` in proc(5); none of another namespace.

    Raises:
        OSError: there is no place for a socket.
    """
    # Only the user can enter the folder, and only the user can connect.
    with tempfile.TemporaryDirectory(prefix="ovray-") as folder:
        path = os.path.join(folder, "driver")
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(1)
        listener.settimeout(0)
        return os.open(path, os.O_PATH | os.O_CLOEXEC)


class LocalLink:
    """Carries envelopes to one replica and brings its replies."""

    def __init__(
        self, replica: ReplicaId, life: int, connection: socket.socket, mailbox: Mailbox, arena: Arena
    ) -> None:
        """Greets the replica with the driver's arena.

        Args:
            replica: whose process has connected.
            life: which of the replica's starts that is.
            connection: the socket to it.
            mailbox: where its replies go.
            arena: where tensors lie that need not travel.

        Raises:
            OSError: the replica has hung up already.
        """
        self._replica = replica
        self._life = life
        self._connection = connection
        self._mailbox = mailbox
        self._arena = arena
        self._reader = FrameReader()
        self._room = bytearray(READ_BYTES)
        #: What the kernel would not take yet.
        self._unsent: list[memoryview] = []
        socket.send_fds(connection, [GREETING.pack(arena.size_bytes)], [arena.file])
        connection.settimeout(0)
        mailbox.watch(connection.fileno(), self._receive)
        self.is_open = True

    def send_requests(self, envelope: Envelope) -> None:
        """Sends requests; they come back as ``Replied``, or the replica as ``Gone``."""
        self._send(write_envelope(envelope, self._arena))

    def cancel(self, client: str, dispatch: int) -> None:
        """Says that nobody needs a request any more."""
        self._send(write_cancel(Cancel(client, dispatch)))

    def close(self) -> None:
        """Hangs up.  A second call does nothing."""
        if self.is_open:
            self.is_open = False
            self._mailbox.unwatch(self._connection.fileno())
            self._connection.close()

    def _send(self, parts: Sequence[Buffer]) -> None:
        if not self.is_open:
            return  # its end is on its way through the mailbox
        was_stuck = bool(self._unsent)
        self._unsent += [memoryview(part) for part in parts if len(part)]
        if not was_stuck:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._connection.sendmsg(self._unsent[:BUFFERS_A_CALL])
                self._unsent = unsent(self._unsent, sent)
        except BlockingIOError:
            self._mailbox.watch(self._connection.fileno(), self._receive, self._flush_rest)
        except OSError as error:
            self._lose(f"its socket failed: {error}")

    def _flush_rest(self) -> None:
        self._mailbox.watch(self._connection.fileno(), self._receive)
        self._flush()

    def _receive(self) -> None:
        try:
            count = self._connection.recv_into(self._room)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"its socket failed: {error}")
            return
        if count == 0:
            self._lose("it hung up: its process has ended")
            return
        try:
            frames = self._reader.feed(memoryview(self._room)[:count])
        except ReplicaError as error:
            self._lose(str(error))
            return
        for frame in frames:
            self._mailbox.put(Replied(replica=self._replica, replies=read_replies(frame)))

    def _lose(self, reason: str) -> None:
        self.close()
        self._mailbox.put(Gone(replica=self._replica, reason=reason, life=self._life))
