"""A reporter tells what it is left, in turn, and costs its driver nothing when telling fails or takes long."""

import logging
import threading
from collections.abc import Callable

import pytest

from ovray.driver.meter import ReplicaMeter
from ovray.driver.reading import Reading
from ovray.driver.reporter import RHYTHM_S, Reporter


def a_reading(now_s: float) -> Reading:
    return Reading(now_s=now_s, replicas=(), elsewhere=ReplicaMeter(), accepted=0, rejected=0, waiting=0)


class ListTeller:
    """Notes what it is told."""

    def __init__(self, on_tell: Callable[[], None] = lambda: None) -> None:
        self.told: list[float] = []
        self.is_closed = False
        self._on_tell = on_tell

    def tell(self, reading: Reading) -> None:
        self._on_tell()
        self.told.append(reading.now_s)

    def close(self) -> None:
        self.is_closed = True


def test_readings_are_told_in_turn_and_the_last_one_before_the_end() -> None:
    teller = ListTeller()
    reporter = Reporter(lambda: teller)
    reporter.start()

    reporter.tell(a_reading(1.0))
    reporter.tell(a_reading(2.0))
    reporter.close(a_reading(3.0))

    assert teller.told == [1.0, 2.0, 3.0]
    assert teller.is_closed


def test_the_next_reading_is_due_after_a_while() -> None:
    now = [100.0]
    reporter = Reporter(ListTeller, clock=lambda: now[0])
    assert reporter.is_due

    reporter.tell(a_reading(1.0))

    assert not reporter.is_due
    now[0] += RHYTHM_S
    assert reporter.is_due


def test_telling_that_takes_long_is_asked_for_less_often() -> None:
    now, cpu, told = [100.0], [0.0], threading.Event()

    def take_a_twentieth() -> None:
        cpu[0] += 0.05
        told.set()

    teller = ListTeller(take_a_twentieth)
    reporter = Reporter(lambda: teller, clock=lambda: now[0], cpu_clock=lambda: cpu[0])
    reporter.start()
    reporter.tell(a_reading(1.0))
    reporter.close(None)

    assert told.is_set()
    now[0] += 9.9
    assert not reporter.is_due
    now[0] += 0.2
    assert reporter.is_due


def test_telling_that_fails_is_said_once_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("no more metrics")

    reporter = Reporter(lambda: ListTeller(fail))
    with caplog.at_level(logging.WARNING, "ovray.driver.reporter"):
        reporter.start()
        reporter.tell(a_reading(1.0))
        reporter.tell(a_reading(2.0))
        reporter.close(a_reading(3.0))

    assert [record.message for record in caplog.records] == [
        "no more figures of this run are told, because telling failed"
    ]
    assert not reporter.is_due
