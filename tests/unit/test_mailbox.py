"""One thread takes what many leave: nothing is missed, nobody sleeps over a note or a socket."""

import queue
import socket
import threading
import time

import pytest

from ovray.driver.mailbox import Mailbox

WAIT_S = 60.0


def test_notes_of_many_threads_all_arrive_in_the_order_of_each() -> None:
    mailbox = Mailbox()

    def leave(thread: int) -> None:
        for number in range(2000):
            mailbox.put((thread, number))

    threads = [threading.Thread(target=leave, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    taken: list[tuple[int, int]] = []
    end_s = time.monotonic() + WAIT_S
    while len(taken) < 16_000 and time.monotonic() < end_s:
        taken += mailbox.get_all(WAIT_S)

    assert all([number for giver, number in taken if giver == thread] == list(range(2000)) for thread in range(8))


def test_one_who_sleeps_is_woken_by_each_note() -> None:
    mailbox, answers = Mailbox(), Mailbox()

    def echo() -> None:
        for _ in range(500):
            answers.put(mailbox.get(WAIT_S))

    echoing = threading.Thread(target=echo)
    echoing.start()
    for number in range(500):
        mailbox.put(number)
        # Each is left only when the last was taken, so the taker sleeps, or is about to, every time.
        assert answers.get(WAIT_S) == number
    echoing.join(WAIT_S)


def test_nothing_comes_within_the_time() -> None:
    with pytest.raises(queue.Empty):
        Mailbox().get(0.01)

    assert Mailbox().get_all(0.01) == []


def test_a_socket_wakes_the_taker_until_it_is_no_longer_watched() -> None:
    mailbox = Mailbox()
    near, far = socket.socketpair()
    heard: list[bytes] = []
    mailbox.watch(near.fileno(), lambda: heard.append(near.recv(10)))

    far.send(b"first")
    mailbox.get_all(WAIT_S)
    mailbox.unwatch(near.fileno())
    far.send(b"second")
    mailbox.get_all(0.05)

    assert heard == [b"first"]
    near.close()
    far.close()


def test_a_socket_is_heard_although_notes_never_end() -> None:
    mailbox = Mailbox()
    near, far = socket.socketpair()
    heard: list[bytes] = []
    mailbox.watch(near.fileno(), lambda: heard.append(near.recv(10)))
    far.send(b"x")

    mailbox.put("a note")

    assert mailbox.get_all(WAIT_S) == ["a note"]
    assert heard == [b"x"]
    near.close()
    far.close()
