"""Counts what becomes of the chunks of one job, and has it told while the job runs.

May not enter: Ray, what is done with figures (the driver's reporter.py).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from ovray.core import commands, events
from ovray.driver.job import Commit, Progress
from ovray.driver.lifecycle import ReplicaSet
from ovray.driver.meter import ChunkMeter, Figures, ReplicaMeter
from ovray.driver.reading import Reading, read_replicas
from ovray.driver.reporter import Reporter
from ovray.driver.spans import spans_if_traced
from ovray.driver.status_board import Board
from ovray.driver.trace import Part, Trace, Work
from ovray.errors import DataError
from ovray.scoring.chunk import ChunkSeconds


class JobFigures:
    """Listens to one job on its driver's thread."""

    def __init__(
        self,
        replicas: ReplicaSet,
        model_name: str,
        figures: Figures = Figures.ON,
        trace: str | os.PathLike[str] | None = None,
    ) -> None:
        """Stores; ``told`` acts.

        Args:
            replicas: those of the job.
            model_name: how figures call the model.
            figures: whether they are told; chunks are counted for the trace all the same.
            trace: a file for one; ``None`` writes none.

        Raises:
            ConfigError: a trace cannot be written there.
        """
        self._replicas = replicas
        self._meter = ChunkMeter()
        #: Of what was noted last.
        self._now_s = 0.0
        self._latest: Progress | None = None
        self._trace = None if trace is None else Trace(trace, model_name)
        self._spans = spans_if_traced(model_name)
        self._reporter = None if figures is Figures.OFF else Reporter(lambda: Board(model_name, "chunks"))

    def note(self, now_s: float, event: events.Event, came_of_it: Sequence[commands.Command]) -> None:
        """Is the driver's observer."""
        self._now_s = now_s
        self._meter.note(now_s, event, came_of_it)

    def counting(self, deliver: Callable[[Commit, Any], None]) -> Callable[[Commit, Any], None]:
        """Counts each commit before it is passed on."""

        def count(commit: Commit, results: Any) -> None:
            seconds = commit.result.seconds
            took_s = self._meter.committed(commit.replica, seconds.total, seconds.infer)
            self._trace_chunk(commit, took_s)
            deliver(commit, results)

        return count

    def watching(self, watch: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Looks at how things stand before that is passed on."""

        def look(progress: Progress) -> None:
            self._latest = progress
            if self._reporter is not None and self._reporter.is_due:
                self._reporter.tell(self._read(progress))
            watch(progress)

        return look

    @contextmanager
    def told(self) -> Iterator[None]:
        """Has figures told while the block runs, and once more when it ends."""
        if self._reporter is not None:
            self._reporter.start()
        with ExitStack() as undo:
            undo.callback(self._end_after_an_error)
            yield
            undo.pop_all()
        try:
            self._end()
        except OSError as error:
            raise DataError(f"every row is done, but the trace cannot be written: {error}") from error

    def _end_after_an_error(self) -> None:
        # What went wrong is said by the error under way, not by one from here.
        with suppress(OSError):
            self._end()

    def _end(self) -> None:
        if self._reporter is not None:
            self._reporter.close(None if self._latest is None else self._read(self._latest))
        if self._trace is not None:
            self._trace.write()

    def _trace_chunk(self, commit: Commit, took_s: float) -> None:
        if self._trace is None and self._spans is None:
            return
        work = _work_of(commit, took_s, self._now_s)
        if self._trace is not None:
            self._trace.add(work)
        if self._spans is not None:
            self._spans.add(work, None)

    def _read(self, progress: Progress) -> Reading:
        counted = self._meter.copy()
        return Reading(
            now_s=progress.snapshot.now_s,
            replicas=read_replicas(self._replicas, progress.snapshot, counted),
            elsewhere=counted.get(None, ReplicaMeter()),
            accepted=self._meter.sent,
            rejected=0,
            waiting=0,
            rows_total=progress.rows_total,
            rows_done=progress.rows_done,
        )


def _work_of(commit: Commit, took_s: float, now_s: float) -> Work:
    """Describes a chunk that is done, for a trace."""
    seconds: ChunkSeconds = commit.result.seconds
    half_s = max(0.0, took_s - seconds.total) / 2
    alternating = {"read_s": seconds.read, "prepare_s": seconds.prepare, "infer_s": seconds.infer}
    return Work(
        name=f"rows {commit.start}-{commit.stop}",
        replica=commit.replica,
        ended_s=now_s,
        parts=(
            Part(name="transport", seconds=half_s, is_at_replica=False),
            Part(name="read, prepare, infer", seconds=sum(alternating.values()), facts=alternating),
            Part(name="finish", seconds=seconds.finish),
            Part(name="write", seconds=seconds.write),
            Part(name="transport back", seconds=half_s, is_at_replica=False),
        ),
        facts={"rows": commit.stop - commit.start, "errors": commit.result.errors},
    )
