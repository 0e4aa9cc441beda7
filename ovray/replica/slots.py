"""Keeps the idle slots of an engine and the time in which any of them was busy.

May not enter: openvino, what a slot is.
"""

import threading
import time
from collections import deque
from typing import Generic, TypeVar

SlotT = TypeVar("SlotT")

#: Slots that can be filled while every infer request runs: one for each thread that works at a replica.
SLOTS_AHEAD = 2


class SlotPool(Generic[SlotT]):
    """Hands out slots to any thread, first come first served, and adds up when at least one of them ran."""

    def __init__(self, slots: list[SlotT]) -> None:
        self._idle = deque(slots)
        self._changed = threading.Condition()
        self._size = len(slots)
        self._running = 0
        self._running_since_s = 0.0
        self._busy_s = 0.0

    def acquire(self, timeout_s: float | None = None) -> SlotT:
        """Waits for an idle slot; ends, because every started inference answers.

        Raises:
            TimeoutError: there was none for ``timeout_s``; ``None`` is for those who trust the device.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._idle, timeout_s):
                raise TimeoutError(f"no inference ended within {timeout_s:g} s")
            return self._idle.popleft()

    def give_back(self, slot: SlotT) -> None:
        """Makes a slot idle."""
        with self._changed:
            self._idle.append(slot)
            self._changed.notify_all()

    def started(self) -> None:
        """Notes that an inference begins."""
        with self._changed:
            if self._running == 0:
                self._running_since_s = time.monotonic()
            self._running += 1

    def ended(self) -> None:
        """Notes that an inference is over."""
        with self._changed:
            self._running -= 1
            if self._running == 0:
                self._busy_s += time.monotonic() - self._running_since_s

    def busy_s(self) -> float:
        """Gives the seconds so far in which at least one inference ran."""
        with self._changed:
            running_s = time.monotonic() - self._running_since_s if self._running else 0.0
            return self._busy_s + running_s

    def wait_all_idle(self) -> None:
        """Waits until every slot is back."""
        with self._changed:
            while len(self._idle) < self._size:
                self._changed.wait()
