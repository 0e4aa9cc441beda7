"""Counts what becomes of the chunks of one job, and has it told while the job runs.

May not enter: Ray, what is done with figures (the driver's reporter.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ovray.core import commands, events
from ovray.driver.job import Commit, Progress
from ovray.driver.lifecycle import ReplicaSet
from ovray.driver.meter import ChunkMeter, ReplicaMeter
from ovray.driver.reading import Reading, read_replicas
from ovray.driver.reporter import Reporter
from ovray.driver.status_board import Board


class JobFigures:
    """Listens to one job on its driver's thread."""

    def __init__(self, replicas: ReplicaSet, model_name: str) -> None:
        """Stores; ``told`` acts.

        Args:
            replicas: those of the job.
            model_name: how figures call the model.
        """
        self._replicas = replicas
        self._meter = ChunkMeter()
        self._latest: Progress | None = None
        self._reporter = Reporter(lambda: Board(model_name, "chunks"))

    def note(self, now_s: float, event: events.Event, came_of_it: Sequence[commands.Command]) -> None:
        """Is the driver's observer."""
        self._meter.note(now_s, event, came_of_it)

    def counting(self, deliver: Callable[[Commit, Any], None]) -> Callable[[Commit, Any], None]:
        """Counts each commit before it is passed on."""

        def count(commit: Commit, results: Any) -> None:
            seconds = commit.result.seconds
            self._meter.committed(commit.replica, seconds.total, seconds.infer)
            deliver(commit, results)

        return count

    def watching(self, watch: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Looks at how things stand before that is passed on."""

        def look(progress: Progress) -> None:
            self._latest = progress
            if self._reporter.is_due:
                self._reporter.tell(self._read(progress))
            watch(progress)

        return look

    @contextmanager
    def told(self) -> Iterator[None]:
        """Has figures told while the block runs, and once more when it ends."""
        self._reporter.start()
        try:
            yield
        finally:
            self._reporter.close(None if self._latest is None else self._read(self._latest))

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
