"""What Ctrl-C must not stop half-way is not stopped half-way, and Ctrl-C is not lost."""

import signal
import threading

import pytest

from ovray.driver.interrupts import HeldBack


def test_a_ctrl_c_comes_at_the_end_of_the_block_and_once() -> None:
    before, done = signal.getsignal(signal.SIGINT), []

    def run() -> None:
        with HeldBack():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        run()

    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_ctrl_c_nothing_comes_and_the_handler_is_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)

    with HeldBack():
        assert signal.getsignal(signal.SIGINT) is not before

    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_leave_the_handler_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def run() -> None:
        with HeldBack():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert seen == [before]


def test_a_handler_of_nobody_stays_as_it_is() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with HeldBack():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
