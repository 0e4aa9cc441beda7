"""Threads for callers' callbacks: few while callbacks are quick, enough when they wait for each other."""

import threading
from collections.abc import Callable

import pytest

from ovray.runtime.callbacks import EAGER_THREADS, CallbackThreads
from tests.waiting import DEADLINE_S, until


def test_quick_calls_share_a_few_threads() -> None:
    threads, done, names = CallbackThreads("quick"), threading.Semaphore(0), set()

    def call() -> None:
        names.add(threading.get_ident())
        done.release()

    for _ in range(500):
        threads.run(call)
        assert done.acquire(timeout=DEADLINE_S)

    assert len(names) <= EAGER_THREADS


def test_threads_that_were_called_to_help_and_not_needed_are_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, done, started = CallbackThreads("in pairs"), threading.Semaphore(0), []
    start = threads._start

    def count(target: Callable[[], None]) -> None:
        started.append(target)
        start(target)

    monkeypatch.setattr(threads, "_start", count)
    rounds = 20
    for _ in range(rounds):
        began, may_end = threading.Event(), threading.Event()

        def first(began: threading.Event = began, may_end: threading.Event = may_end) -> None:
            began.set()
            assert may_end.wait(DEADLINE_S)
            done.release()

        threads.run(first)
        assert began.wait(DEADLINE_S)
        threads.run(done.release)  # while the first is under way, so that help is called
        may_end.set()
        assert all(done.acquire(timeout=DEADLINE_S) for _ in range(2))
        until(lambda: not threads._relief_stands_by)  # it looked, and found nothing to do

    assert rounds / 2 > EAGER_THREADS
    assert len(started) < rounds / 2


def test_threads_that_a_jam_took_end_although_calls_keep_coming() -> None:
    threads, jammed, may_end = CallbackThreads("jammed"), threading.Semaphore(0), threading.Event()
    count = 5 * EAGER_THREADS

    def wait() -> None:
        jammed.release()
        assert may_end.wait(DEADLINE_S)

    for _ in range(count):
        threads.run(wait)
    assert all(jammed.acquire(timeout=DEADLINE_S) for _ in range(count))
    assert threads._threads >= count
    may_end.set()

    # Each of them would have something to do more often than every ten seconds, if they took turns.
    def are_few_again() -> bool:
        threads.run(lambda: None)
        return threads._threads <= EAGER_THREADS + 1

    until(are_few_again, DEADLINE_S)


def test_every_call_is_made_once_from_whatever_thread_it_was_asked() -> None:
    threads, made, all_made = CallbackThreads("counted"), [], threading.Event()

    def ask(first: int) -> None:
        for number in range(first, first + 250):
            threads.run(lambda number=number: made.append(number) or (len(made) == 1000 and all_made.set()))

    askers = [threading.Thread(target=ask, args=(first,)) for first in range(0, 1000, 250)]
    for asker in askers:
        asker.start()

    assert all_made.wait(DEADLINE_S)
    assert sorted(made) == list(range(1000))


def test_calls_that_wait_for_each_other_get_as_many_threads_as_they_need() -> None:
    count = 5 * EAGER_THREADS
    threads, done = CallbackThreads("waiting"), threading.Semaphore(0)
    together = threading.Barrier(count, timeout=DEADLINE_S)

    def call() -> None:
        together.wait()
        done.release()

    for _ in range(count):
        threads.run(call)

    assert all(done.acquire(timeout=DEADLINE_S) for _ in range(count))


def test_a_call_is_made_although_all_threads_there_are_wait_for_good() -> None:
    threads, never, made = CallbackThreads("stuck"), threading.Event(), threading.Event()

    for _ in range(2 * EAGER_THREADS):
        threads.run(lambda: never.wait() and None)
    threads.run(made.set)

    assert made.wait(DEADLINE_S)
    never.set()
