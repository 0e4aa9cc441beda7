"""Tells others what a pool does: figures now and then, a trace, spans.

May not enter: where they go (reporter.py, trace.py, spans.py), Ray.
"""

import logging
from collections.abc import Callable

from ovray.driver.calls import Call, Ended
from ovray.driver.reading import Reading
from ovray.driver.reporter import Reporter
from ovray.driver.spans import Spans
from ovray.driver.trace import Trace
from ovray.driver.works import work_of_request

_log = logging.getLogger(__name__)


class Telling:
    """Knows who wants to hear of a pool's requests.  All but ``spans`` is used during turns only."""

    def __init__(
        self, reporter: Reporter | None = None, trace: Trace | None = None, spans: Spans | None = None
    ) -> None:
        """Stores; ``start`` acts.

        Args:
            reporter: is told how the pool stands, now and then; is started and ended with it.
            trace: takes in what has ended, and is written when the pool ends.
            spans: takes in what has ended.
        """
        self._reporter = reporter
        self._trace = trace
        self.spans = spans

    def start(self) -> None:
        """Begins to tell."""
        if self._reporter is not None:
            self._reporter.start()

    @property
    def wants_each_request(self) -> bool:
        """Says whether ``ended`` is to be called."""
        return self._trace is not None or self.spans is not None

    def ended(self, call: Call, how: Ended, now_s: float) -> None:
        """Tells of a request, or of a bundle, that has ended."""
        work = work_of_request(call, how, now_s)
        if self._trace is not None:
            self._trace.add(work)
        if self.spans is not None:
            self.spans.add(work, call.context)

    def look(self, read: Callable[[], Reading]) -> None:
        """Tells how the pool stands, if it is time for that."""
        if self._reporter is not None and self._reporter.is_due:
            self._reporter.tell(read())

    def stop(self, read: Callable[[], Reading]) -> None:
        """Tells how the pool stood at its end."""
        if self._reporter is not None:
            self._reporter.close(read())

    def write_trace(self) -> None:
        """Writes the trace, if one is wanted."""
        if self._trace is not None:
            try:
                self._trace.write()
            except OSError as error:
                _log.error("the trace cannot be written: %s", error)
