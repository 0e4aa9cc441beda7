"""Both ends of a local socket, in one process: a driver's link and a replica's socket, with real files between."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ovray.core.ids import ReplicaId
from ovray.driver.arena import Arena, ArenaStorage
from ovray.driver.local_link import Doorway, LocalLink
from ovray.driver.mailbox import Mailbox
from ovray.driver.messages import Gone, Replied
from ovray.errors import ReplicaError
from ovray.replica.envelope import Envelope, Reply, Request
from ovray.replica.local_socket import LocalSocket
from tests.waiting import DEADLINE_S

REPLICA = ReplicaId("h/CPU.0#0")


class _Doubling:
    """Serves like a replica: answers each request with its tensors doubled, at once."""

    def __init__(self) -> None:
        self.cancelled: list[tuple[int, str | None]] = []
        self.hold = threading.Event()
        self.hold.set()

    def submit(self, envelope: Envelope, answer: Callable[[Sequence[Reply]], None]) -> None:
        self.hold.wait(DEADLINE_S)
        answer(
            [
                Reply(
                    dispatch=request.dispatch,
                    outputs=tuple(2 * tensor for tensor in request.tensors),
                    error=None,
                    queued_s=0.0,
                    infer_s=0.0,
                    batch_rows=1,
                )
                for request in envelope.requests
            ]
        )

    def cancel(self, dispatch: int, client: str | None = None) -> None:
        self.cancelled.append((dispatch, client))


class _Ends:
    """The driver's end, with its mailbox and arena, and the replica's server."""

    def __init__(self) -> None:
        self.mailbox, self.arena, self.server = Mailbox(), Arena(1 << 22), _Doubling()
        self.links: list[LocalLink] = []
        self.notes: list[object] = []
        doorway = Doorway(self.mailbox, self._connect)
        self.socket = os.stat(doorway.path).st_ino
        opening = threading.Thread(target=LocalSocket, args=(doorway.path, self.server))
        opening.start()
        self.until(lambda: bool(self.links))
        opening.join(DEADLINE_S)

    @property
    def link(self) -> LocalLink:
        return self.links[0]

    def _connect(self, connection: socket.socket) -> None:
        self.links.append(LocalLink(REPLICA, 0, connection, self.mailbox, self.arena))

    def until(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s
            self.notes += self.mailbox.get_all(0.05)

    @property
    def replies(self) -> list[Reply]:
        return [reply for note in self.notes if isinstance(note, Replied) for reply in note.replies]

    def send(self, *numbers: int, size: int = 3) -> None:
        requests = tuple(
            Request(dispatch=number, tensors=(np.full(size, number, dtype=np.int64),)) for number in numbers
        )
        self.link.send_requests(Envelope(client="me", requests=requests))


@pytest.fixture
def ends() -> Iterator[_Ends]:
    both = _Ends()
    yield both
    both.server.hold.set()
    both.link.close()
    both.arena.close()


def test_requests_go_and_replies_come_back(ends: _Ends) -> None:
    ends.send(1, 2, 3)
    ends.send(4, size=50_000)

    ends.until(lambda: len(ends.replies) == 4)

    assert all(
        reply.outputs is not None and (reply.outputs[0] == 2 * reply.dispatch).all() for reply in ends.replies
    )


def test_tensors_in_the_arena_are_read_there(ends: _Ends) -> None:
    kept = ArenaStorage(ends.arena).keep(np.arange(10_000))

    ends.link.send_requests(Envelope(client="me", requests=(Request(dispatch=1, tensors=(kept,)),)))
    ends.until(lambda: len(ends.replies) == 1)

    (reply,) = ends.replies
    assert reply.outputs is not None
    assert (reply.outputs[0] == 2 * np.arange(10_000)).all()


def test_a_replica_that_does_not_read_holds_up_nobody_and_misses_nothing(ends: _Ends) -> None:
    ends.server.hold.clear()

    for number in range(100):
        ends.send(number, size=20_000)  # 16 MB in all: much more than the kernel keeps for a socket
    assert ends.link._unsent
    ends.server.hold.set()
    ends.until(lambda: len(ends.replies) == 100)

    assert not ends.link._unsent
    assert [reply.dispatch for reply in ends.replies] == list(range(100))


def test_a_cancellation_names_its_client(ends: _Ends) -> None:
    ends.link.cancel("me", 7)

    ends.until(lambda: ends.server.cancelled == [(7, "me")])


def test_nothing_of_the_doorway_is_left(ends: _Ends) -> None:
    assert ends.socket not in [os.stat(file).st_ino for file in Path("/proc/self/fd").iterdir() if file.exists()]


def test_a_replica_that_hangs_up_is_gone_once() -> None:
    mailbox, arena = Mailbox(), Arena(1 << 20)
    near, far = socket.socketpair(socket.AF_UNIX)
    link = LocalLink(REPLICA, 0, near, mailbox, arena)
    far.close()

    notes = mailbox.get_all(DEADLINE_S)
    link.send_requests(Envelope(client="me", requests=()))
    link.close()

    assert [type(note) for note in notes] == [Gone]
    assert mailbox.get_all(0.05) == []
    arena.close()


def test_a_peer_that_talks_nonsense_is_hung_up_on() -> None:
    mailbox, arena = Mailbox(), Arena(1 << 20)
    near, far = socket.socketpair(socket.AF_UNIX)
    LocalLink(REPLICA, 0, near, mailbox, arena)
    far.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    (note,) = mailbox.get_all(DEADLINE_S)

    assert isinstance(note, Gone)
    assert "no frame" in note.reason
    far.close()
    arena.close()


def test_a_path_where_nobody_listens_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReplicaError, match="no socket to the driver"):
        LocalSocket(str(tmp_path / "nobody"), _Doubling())
