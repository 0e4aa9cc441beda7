"""One thread takes what many leave: nothing is missed, nobody sleeps over a note or a socket."""

import gc
import os
import queue
import socket
import threading
import time

import pytest

from ovray.driver.mailbox import Mailbox
from tests.waiting import DEADLINE_S


def test_notes_of_many_threads_all_arrive_in_the_order_of_each() -> None:
    mailbox = Mailbox()

    def leave(thread: int) -> None:
        for number in range(2000):
            mailbox.put((thread, number))

    threads = [threading.Thread(target=leave, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    taken: list[tuple[int, int]] = []
    end_s = time.monotonic() + DEADLINE_S
    while len(taken) < 16_000 and time.monotonic() < end_s:
        taken += mailbox.get_all(DEADLINE_S)

    assert all([number for giver, number in taken if giver == thread] == list(range(2000)) for thread in range(8))


def test_one_who_sleeps_is_woken_by_each_note() -> None:
    mailbox, answers = Mailbox(), Mailbox()

    def echo() -> None:
        for _ in range(500):
            answers.put(mailbox.get(DEADLINE_S))

    echoing = threading.Thread(target=echo)
    echoing.start()
    for number in range(500):
        mailbox.put(number)
        # Each is left only when the last was taken, so the taker sleeps, or is about to, every time.
        assert answers.get(DEADLINE_S) == number
    echoing.join(DEADLINE_S)


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
    mailbox.get_all(DEADLINE_S)
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

    assert mailbox.get_all(DEADLINE_S) == ["a note"]
    assert heard == [b"x"]
    near.close()
    far.close()


def test_one_that_waits_aside_hears_of_notes_and_leaves_the_sockets_to_another_thread() -> None:
    mailbox = Mailbox()
    near, far = socket.socketpair()
    heard: list[bytes] = []
    mailbox.watch(near.fileno(), lambda: heard.append(near.recv(10)))
    back = threading.Event()

    def stand_aside() -> None:
        mailbox.wait_aside(DEADLINE_S, lambda: False)
        back.set()

    aside = threading.Thread(target=stand_aside)
    aside.start()
    far.send(b"x")
    found = mailbox.wait(DEADLINE_S)
    mailbox.call_back(found)
    assert heard == [b"x"]
    assert not back.is_set()

    # It may be about to sleep only: then it finds the note before it does.
    mailbox.put("a note")
    assert back.wait(DEADLINE_S)
    assert mailbox.next_of(int) is None
    assert mailbox.next_of(str) == "a note"
    assert not mailbox.has_notes
    aside.join(DEADLINE_S)


def test_nobody_sleeps_over_what_no_note_speaks_of() -> None:
    mailbox, wanted = Mailbox(), threading.Event()

    def want() -> None:
        wanted.set()
        mailbox.wake()

    for wait in (mailbox.wait, mailbox.wait_aside):
        for _ in range(200):
            wanted.clear()
            waking = threading.Thread(target=want)
            waking.start()
            while not wanted.is_set():
                began_s = time.monotonic()
                wait(DEADLINE_S, wanted.is_set)
                assert time.monotonic() - began_s < DEADLINE_S / 2
            waking.join(DEADLINE_S)


def test_a_mailbox_that_nobody_has_any_more_leaves_no_file() -> None:
    gc.disable()
    try:
        before = set(os.listdir("/proc/self/fd"))
        box = Mailbox()
        assert len(os.listdir("/proc/self/fd")) >= len(before) + 2
        del box
        assert set(os.listdir("/proc/self/fd")) <= before
    finally:
        gc.enable()
