"""What promises cost a job: that each row is there exactly once, and that whoever watches a cluster is told of it.

The same job is done as it is, without the first promise and without the second, in turn, by one driver under one
Ray; by one replica, because of two the second is ready now sooner, now later, and would decide who wins.

Without the first: no record of the job, no look at what an earlier run has done, no lock and no fence; parts grow
under their own name and are not flushed to the disk; nothing is counted at the end.  All else is the same.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pandas  # noqa: F401 (a report's table needs it: the first job should not pay for that)

import ovray
from ovray.driver.session import ray_session
from ovray.scoring import score
from ovray.scoring.parts import OutputFolder
from ovray.scoring.report import ScoreReport
from ovray.scoring.result_formats import ResultFormat
from ovray.scoring.taking_up import TakenUp
from tests.benchmarks.comparison import Measured
from tests.benchmarks.plain_files import PlainSink
from tests.benchmarks.works import Work

EXACTLY_ONCE = "exactly once"
ONLY_WRITTEN = "only written"
UNTOLD = "without figures"

_DEVICES = "CPU"

#: So many times the rows of the work: some seconds.
TIMES = 3

#: Of the job that goes before the first turn: everything is loaded by it that later ones find loaded.
_WARM_UP_SHARE = 0.1


def figures_of_promises(work: Work, folder: Path, turns: int) -> Sequence[Measured]:
    """Measures each way of doing a job in turn: its seconds, without the start of replicas and their end."""
    folder.mkdir()
    found: list[Measured] = []
    with ray_session("local"):
        _seconds(work, folder / "warm-up", limit=int(work.rows * _WARM_UP_SHARE))
        for turn in range(turns):
            seconds = {}
            for name, way in _in_turn(turn):
                with way():
                    seconds["seconds", name] = _seconds(work, folder / f"{turn}-{name}")
            found.append(seconds)
    return found


def _in_turn(turn: int) -> Iterator[tuple[str, Callable[[], AbstractContextManager[object]]]]:
    """Gives the ways of doing a job, each time in another order."""
    names = list(_WAYS)
    first = turn % len(names)
    order = names[first:] + names[:first]
    yield from ((name, _WAYS[name]) for name in (order if turn % 2 == 0 else reversed(order)))


def _seconds(work: Work, output: Path, limit: int | None = None) -> float:
    """Returns what a job takes before replicas are started, with them, and when they have ended."""
    moments: dict[str, float] = {}

    def before(module: ModuleType, name: str) -> AbstractContextManager[object]:
        did = getattr(module, name)

        def do(*its: Any, **their: Any) -> Any:
            moments[name] = time.perf_counter()
            return did(*its, **their)

        return _put(module, name, do)

    with before(score, "run_scoring"), before(score, "settle_folder"):
        began_s = time.perf_counter()
        report: ScoreReport = ovray.score(
            work.model, [work.data] * TIMES, output=output, input="x", devices=_DEVICES, limit=limit
        )
        ended_s = time.perf_counter()
    return (moments["run_scoring"] - began_s) + report.run_seconds + (ended_s - moments["settle_folder"])


def _put(module: ModuleType, name: str, stand_in: object) -> AbstractContextManager[object]:
    """Puts something in the place of what a module uses; raises where that is not there any more."""
    return patch.object(module, name, stand_in)


@contextmanager
def _without_the_promise() -> Iterator[None]:
    """Has jobs only write."""
    with ExitStack() as stack:
        for name, stand_in in _STAND_INS.items():
            stack.enter_context(_put(score, name, stand_in))
        yield


@contextmanager
def _without_figures() -> Iterator[None]:
    with patch.dict(os.environ, OVRAY_METRICS="off"):
        yield


_WAYS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    EXACTLY_ONCE: nullcontext,
    ONLY_WRITTEN: _without_the_promise,
    UNTOLD: _without_figures,
}


@contextmanager
def _open_folder(output: Path, result_format: ResultFormat) -> Iterator[OutputFolder]:
    output.mkdir()
    yield OutputFolder(name=str(output), location=str(output), format=result_format)


@contextmanager
def _take_up(folder: OutputFolder, job: object, rows: int, earlier: object) -> Iterator[TakenUp]:
    yield TakenUp(folder=folder, done=(), missing=((0, rows),))


_STAND_INS: Mapping[str, object] = {
    "open_folder": _open_folder,
    "take_up": _take_up,
    "settle_folder": lambda folder, ranges, rows: 0,
    "FolderSink": PlainSink,
}
