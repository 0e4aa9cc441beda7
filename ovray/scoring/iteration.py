"""Scores on a thread of its own while the caller iterates over what is done.

The caller may be slow, stop early, or raise: replicas run ahead only as far as there is room (flow.py), and end
with the iteration.  May not enter: how rows are scored (running.py), shapes of results (delivery.py).
"""

import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from ovray.driver.job import Commit
from ovray.driver.session import ray_session
from ovray.errors import ReplicaError
from ovray.scoring.delivery import Framer, InOrder, bring
from ovray.scoring.flow import Flow, StoppedError
from ovray.scoring.given import look_at
from ovray.scoring.options import ScoreOptions
from ovray.scoring.running import (
    CHUNK_SHARE,
    ModelLike,
    Scoring,
    how_to_cut,
    name_of,
    plan_for,
    run_scoring,
    warnings_of,
)
from ovray.scoring.sinks import AnswerSink

if TYPE_CHECKING:
    import pandas as pd

#: The caller waits for results: chunks are cut so that none takes much longer than this, or than the time that the
#: caller has named, if that is less.
MAX_CHUNK_S = 1.0

#: How long replicas may take to end; they need about a second.
CLOSE_TIMEOUT_S = 60.0


class Order(Protocol):
    """Decides in which order results come to the caller."""

    def add(self, start: int, stop: int, what: Any) -> Iterator[tuple[int, int, Any]]:
        """Takes in what there is of some rows; yields what the caller may have now."""
        ...


class AsTheyCome:
    """Is ``Order`` where none is asked for."""

    def add(self, start: int, stop: int, what: Any) -> Iterator[tuple[int, int, Any]]:
        yield start, stop, what


def iterate(
    model: ModelLike, inputs: Any, options: ScoreOptions, order: Order
) -> Generator["pd.DataFrame", None, None]:
    """Yields results as they are done; see ``iter_score``."""
    with ExitStack() as stack:
        given = look_at(inputs, options, stack)
        workload, plan = plan_for(model, given, options)
        framer = given.framer(plan)
        scoring = Scoring(
            workload=workload,
            plan=framer.plan,
            source=given.source,
            sink=AnswerSink(),
            owner="ovray iter_score",
            model_name=name_of(model),
        )
        # Here and not on the other thread: results are fetched until the end.
        stack.enter_context(ray_session(options.address))
        max_chunk_s = min(MAX_CHUNK_S, CHUNK_SHARE * options.commit_every_s)
        flow = Flow(how_to_cut(given.source, plan, options, max_chunk_s=max_chunk_s))
        running = _Running(scoring, flow, options, order)
        stack.callback(running.end)
        given.pour(flow)
        running.start()
        yield from _frames(running, framer, flow)


def _frames(running: "_Running", framer: Framer, flow: Flow) -> Iterator["pd.DataFrame"]:
    taken = InOrder()
    while (piece := running.next()) is not None:
        start, stop, reference = piece
        frame = framer.frame(start, stop, bring(start, stop, reference))
        del piece, reference  # the object store need not keep what is here
        for _ in taken.add(start, stop, None):
            framer.forget(taken.row)
        flow.taken(stop - start)
        yield frame


class _Running:
    """Is a job on a thread of its own, and the results that nobody has taken yet."""

    def __init__(self, scoring: Scoring, flow: Flow, options: ScoreOptions, order: Order) -> None:
        self._scoring = scoring
        self._flow = flow
        self._options = options
        self._order = order
        self._changed = threading.Condition()
        self._results: deque[tuple[int, int, Any]] = deque()
        self._is_over = False
        self._failure: BaseException | None = None
        self._warnings: tuple[str, ...] = ()
        self._thread = threading.Thread(target=self._run, name="ovray-iter-score", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def next(self) -> tuple[int, int, Any] | None:
        """Waits for results; ``None`` when there are no more.

        Raises what the job failed with, once all results before that are taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._results or self._is_over)
            if self._results:
                return self._results.popleft()
        if self._failure is not None:
            raise self._failure
        for text in self._warnings:
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        return None

    def end(self) -> None:
        """Ends the job, if it is not over, and its replicas; waits until what they held is free."""
        self._flow.stop()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_TIMEOUT_S)
            if self._thread.is_alive():
                raise ReplicaError(f"replicas did not end within {CLOSE_TIMEOUT_S:g} s")

    def _run(self) -> None:
        try:
            plan, outcome = run_scoring(self._scoring, self._flow.open, self._deliver, self._options, _unwatched)
            self._warnings = warnings_of(plan, outcome)
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 (it is raised in the caller's thread)
            self._failure = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _deliver(self, commit: Commit, reference: Any) -> None:
        self._flow.done(commit.stop - commit.start)
        with self._changed:
            self._results.extend(self._order.add(commit.start, commit.stop, reference))
            self._changed.notify_all()


def _unwatched(_: object) -> None:
    """Is told how things stand where nobody looks."""
