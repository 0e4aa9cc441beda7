"""Tells others how a pool or a job stands, on a thread of its own; the driver's leaves a reading now and then.

May not enter: what is told (reading.py), where to and how (metrics_export.py).
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ovray.driver.reading import Reading

_log = logging.getLogger(__name__)

#: Between two readings.  Ray itself sends on every ten seconds by default, every second at the most.
RHYTHM_S = 1.0

#: And not sooner than this many times what telling took of the processor, so that it stays below a half percent: a
#: hundred replicas take a tenth of a second.
_REST_TIMES = 200.0

#: But at the latest by then: Ray's agent forgets gauges that nobody has set for 20 seconds.
_REST_MAX_S = 15.0

#: What is being told when the end comes may take so long; it needs milliseconds.
CLOSE_TIMEOUT_S = 5.0


class Teller(Protocol):
    """Takes readings, on the reporter's thread."""

    def tell(self, reading: Reading) -> None:
        """Tells how things stand now."""
        ...

    def close(self) -> None:
        """Tells that this was all."""
        ...


class Reporter:
    """Passes readings on.  One thread leaves them."""

    def __init__(
        self,
        make_teller: Callable[[], Teller],
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """Stores; ``start`` acts.

        Args:
            make_teller: makes what takes readings, on the reporter's thread.
            clock: seconds.
            cpu_clock: seconds of the processor that the calling thread has had.
        """
        self._make_teller = make_teller
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._due_s = 0.0
        self._readings: queue.SimpleQueue[Reading | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ovray-reporter", daemon=True)

    def start(self) -> None:
        """Begins to pass on."""
        self._thread.start()

    @property
    def is_due(self) -> bool:
        """Says whether a reading is wanted."""
        return self._clock() >= self._due_s

    def tell(self, reading: Reading) -> None:
        """Leaves a reading; returns at once."""
        self._due_s = max(self._due_s, self._clock() + RHYTHM_S)
        self._readings.put(reading)

    def close(self, last: Reading | None) -> None:
        """Passes on what is left, the last reading too, and ends the thread."""
        if last is not None:
            self._readings.put(last)
        self._readings.put(None)
        if self._thread.ident is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        try:
            teller = self._make_teller()
            while (reading := self._readings.get()) is not None:
                began_s = self._cpu_clock()
                teller.tell(reading)
                rest_s = min(_REST_TIMES * (self._cpu_clock() - began_s), _REST_MAX_S)
                self._due_s = max(self._due_s, self._clock() + rest_s)
            teller.close()
        except Exception:  # noqa: BLE001 (work goes on without figures, and this says why there are none)
            _log.warning("no more figures of this run are told, because telling failed", exc_info=True)
            self._due_s = float("inf")
