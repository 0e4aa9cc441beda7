"""Starts replicas for one job and has its rows done: the one way in which rows are scored, wherever they come from
and wherever results go.

May not enter: what the caller gave (given.py), what becomes of results (sinks.py, delivery.py), printing.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import openvino as ov

from ovray.core import commands, events
from ovray.core.events import JobSubmitted, Poison
from ovray.core.scheduler import Scheduler
from ovray.devices.records import Plan, ReplicaSpec
from ovray.driver.job import JOB, Commit, JobDriver, Nudged, Observer, Outcome, Progress, Supply
from ovray.driver.messages import ReplicaStart
from ovray.driver.newcomers import upkeep_of
from ovray.driver.placement import early_look, place
from ovray.driver.session import ray_session
from ovray.driver.transport import Answer, Inbox, RayTransport
from ovray.errors import ConfigError
from ovray.replica.model import pack, read_model, with_plain_types
from ovray.replica.properties import compile_properties
from ovray.replica.workload import Workload
from ovray.scoring.chunk import Chunk, ScoringWork
from ovray.scoring.given import Given
from ovray.scoring.held_rows import HeldRows
from ovray.scoring.job_figures import JobFigures
from ovray.scoring.on_error import OnError
from ovray.scoring.options import ScoreOptions
from ovray.scoring.recording import Recording
from ovray.scoring.records import Source
from ovray.scoring.row_plan import RowPlan, plan_rows
from ovray.scoring.sinks import AnswerSink, Sink

_log = logging.getLogger(__name__)

#: A chunk is one part, and a replica has two in work: each may take this share of the time between two parts,
#: which leaves the other half to a rate that was learnt wrong.
CHUNK_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Tells a watcher what goes on before rows are scored."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Tells a watcher how many rows an earlier run had done, where it had some."""

    rows: int
    rows_total: int


ModelLike: TypeAlias = "str | os.PathLike[str] | ov.Model"

News = Stage | Resumed | Plan | Progress
Watch = Callable[[News], None]

#: Is told of rows that are done, and where their results are unless put away; what it raises ends the job.
Deliver = Callable[[Commit, Any], None]

#: Gives the rows, once it is known how many replicas there are; its second argument has them asked for again.
SupplyOf = Callable[[int, Callable[[], None]], Supply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Says what is to be done with which rows, before any replica is placed."""

    workload: Workload
    plan: RowPlan
    source: Source
    sink: Sink
    #: What core leases say of us to those who wait for the same cores.
    owner: str
    #: How figures call the model.
    model_name: str = ""


def how_to_cut(source: Source, plan: RowPlan, options: ScoreOptions, *, max_chunk_s: float) -> JobSubmitted:
    """Returns how rows are to be cut into chunks; which rows is for others to say."""
    return JobSubmitted(
        job=JOB,
        ranges=(),
        cheap_cuts=source.cheap_cuts,
        min_chunk_rows=plan.batch_rows,
        max_chunk_rows=plan.max_chunk_rows,
        cut_multiple=options.rows.rows_per_file,
        max_chunk_s=max_chunk_s,
        max_backups=options.max_backups,
        poison=Poison.PUT_ASIDE if options.errors.on_error is OnError.RECORD else Poison.FAIL,
    )


def plan_for(model: ModelLike, given: Given, options: ScoreOptions) -> tuple[Workload, RowPlan]:
    """Reads a model and decides what becomes of a row.

    Raises:
        ConfigError: the model cannot be read, or it is open how rows are to feed it.
    """
    graph = with_plain_types(read_model(model))
    try:
        wanted = given.fit(graph, options.rows)
        plan = plan_rows(graph, given.source, given.sample(), wanted, options.errors.on_error)
    except ConfigError as error:
        if not given.unfit:
            raise
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in given.unfit.items())
        raise ConfigError(f"{error} (columns that cannot be read are {reasons})") from error
    return Workload(model=pack(graph), batch_rows=plan.batch_rows, work_module=ScoringWork.__module__), plan


def name_of(model: ModelLike) -> str:
    """Says how figures call a model: by its file, or as it calls itself."""
    return model.friendly_name if isinstance(model, ov.Model) else os.path.basename(os.fspath(model))


def run_scoring(
    scoring: Scoring,
    supply_of: SupplyOf,
    deliver: Deliver,
    options: ScoreOptions,
    watch: Watch,
    recording: Recording | None = None,
) -> tuple[Plan, Outcome]:
    """Starts replicas and has all rows done that the supply gives.

    Raises:
        ConfigError: no device can run the model, or none is free.
        DataError: rows could not be read, prepared, inferred, finished or written.
        ReplicaError: no replica was left.
    """
    if isinstance(scoring.source, HeldRows):
        scoring.source.read_only(scoring.plan.read_schema.names)
    watch(Stage(text="connecting to Ray"))
    with early_look(options.address) as look, ray_session(options.address):
        watch(Stage(text="placing replicas"))
        placed = place(options.placement, look=look)
        plan = placed.plan
        watch(plan)
        if plan.shortage is not None:
            _log.warning("%s", plan.shortage)
        inbox: Inbox = Inbox()
        transport = RayTransport(
            inbox,
            owner=f"{scoring.owner}, driver pid {os.getpid()}",
            lease_timeout_s=options.placement.lease_timeout_s,
            answer=Answer.REPORT_AND_ROWS if isinstance(scoring.sink, AnswerSink) else Answer.REPORT,
        )
        transport.put(scoring.workload, ScoringWork(rows=scoring.plan, sink=scoring.sink, errors=options.errors))

        def start_of(spec: ReplicaSpec) -> ReplicaStart:
            return ReplicaStart(spec=spec, properties=compile_properties(spec, options.config))

        upkeep = upkeep_of(options.placement, placed, start_of, inbox)
        driver = JobDriver(Scheduler(), transport, inbox, upkeep=upkeep)
        figures = JobFigures(driver.replicas, scoring.model_name, options.figures, options.trace)
        observers: list[Observer] = [figures.note]
        if recording is not None:
            recording.plan, recording.replicas = plan, driver.replicas
            observers.append(recording.journal.note)
        driver.observer = _all_of(observers)
        supply = supply_of(len(plan.replicas), lambda: inbox.put(Nudged()))
        rows = _JobRows(scoring.source, figures.counting(deliver))
        with figures.told():
            return plan, driver.run(map(start_of, plan.replicas), supply, rows, figures.watching(watch))


def _all_of(observers: Sequence[Observer]) -> Observer:
    def note(now_s: float, event: events.Event, came_of_it: Sequence[commands.Command]) -> None:
        for observer in observers:
            observer(now_s, event, came_of_it)

    return note


@dataclass(frozen=True, slots=True)
class _JobRows:
    """Is what the driver asks about the rows of a data set; see ``driver.job.JobRows``."""

    source: Source
    deliver: Deliver

    def piece(self, start: int, stop: int, verdict: str | None) -> Chunk:
        return Chunk(start=start, stop=stop, slices=self.source.slices(start, stop), verdict=verdict)

    def name(self, start: int, stop: int) -> str:
        return self.source.name(start, stop)

    def count(self, commit: Commit, results: Any) -> None:
        self.deliver(commit, results)


def warnings_of(plan: Plan, outcome: Outcome) -> tuple[str, ...]:
    """Returns what the caller should know although the job ended well."""
    failures = (f"{replica} did not take part to the end: {error}" for replica, error in outcome.failures.items())
    return (*plan.warnings, *failures)
