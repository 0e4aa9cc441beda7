"""Starts replicas for one job and has its rows done: the one way in which rows are scored, wherever they come from
and wherever results go.

May not enter: what the caller gave (given.py), what becomes of results (sinks.py, delivery.py), printing.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import openvino as ov

from ovray.core.events import JobSubmitted
from ovray.core.scheduler import Scheduler
from ovray.devices.records import Plan
from ovray.driver.job import JOB, Deliver, JobDriver, Nudged, Outcome, Progress, Supply
from ovray.driver.lifecycle import ReplicaStart
from ovray.driver.placement import place
from ovray.driver.session import ray_session
from ovray.driver.transport import Answer, Inbox, RayTransport
from ovray.errors import ConfigError
from ovray.replica.model import pack, read_model, with_plain_types
from ovray.replica.properties import compile_properties
from ovray.replica.workload import Workload
from ovray.scoring.chunk import Chunk, ScoringWork
from ovray.scoring.given import Given
from ovray.scoring.held_rows import HeldRows
from ovray.scoring.options import ScoreOptions
from ovray.scoring.records import Source
from ovray.scoring.row_plan import RowPlan, plan_rows
from ovray.scoring.sinks import AnswerSink, Sink

#: A chunk is one part, and a replica has two in work: each may take this share of the time between two parts,
#: which leaves the other half to a rate that was learnt wrong.
CHUNK_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Tells a watcher what goes on before rows are scored."""

    text: str


ModelLike: TypeAlias = "str | os.PathLike[str] | ov.Model"

Watch = Callable[[Stage | Plan | Progress], None]

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


def how_to_cut(source: Source, plan: RowPlan, *, max_chunk_s: float) -> JobSubmitted:
    """Returns how rows are to be cut into chunks; which rows is for others to say."""
    return JobSubmitted(
        job=JOB,
        ranges=(),
        cheap_cuts=source.cheap_cuts,
        min_chunk_rows=plan.batch_rows,
        max_chunk_rows=plan.max_chunk_rows,
        max_chunk_s=max_chunk_s,
    )


def plan_for(model: ModelLike, given: Given, options: ScoreOptions) -> tuple[Workload, RowPlan]:
    """Reads a model and decides what becomes of a row.

    Raises:
        ConfigError: the model cannot be read, or it is open how rows are to feed it.
    """
    graph = with_plain_types(read_model(model))
    try:
        plan = plan_rows(graph, given.source, given.sample(), given.wanted(options.rows))
    except ConfigError as error:
        if not given.unfit:
            raise
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in given.unfit.items())
        raise ConfigError(f"{error} (columns that cannot be read are {reasons})") from error
    return Workload(model=pack(graph), batch_rows=plan.batch_rows), plan


def run_scoring(
    scoring: Scoring, supply_of: SupplyOf, deliver: Deliver, options: ScoreOptions, watch: Watch
) -> tuple[Plan, Outcome]:
    """Starts replicas and has all rows done that the supply gives.

    Raises:
        ConfigError: no device can run the model, or none is free.
        DataError: rows could not be read, prepared or written.
        ReplicaError: no replica was left.
    """
    if isinstance(scoring.source, HeldRows):
        scoring.source.read_only(scoring.plan.read_schema.names)
    watch(Stage(text="connecting to Ray"))
    with ray_session(options.address):
        watch(Stage(text="placing replicas"))
        plan = place(options.placement)
        watch(plan)
        inbox: Inbox = Inbox()
        transport = RayTransport(
            inbox,
            owner=f"{scoring.owner}, driver pid {os.getpid()}",
            lease_timeout_s=options.placement.lease_timeout_s,
            answer=Answer.REPORT_AND_ROWS if isinstance(scoring.sink, AnswerSink) else Answer.REPORT,
        )
        transport.put(scoring.workload, ScoringWork(rows=scoring.plan, sink=scoring.sink))
        replicas = [
            ReplicaStart(spec=spec, properties=compile_properties(spec, options.config)) for spec in plan.replicas
        ]

        def piece_of(start: int, stop: int) -> Chunk:
            return Chunk(start=start, stop=stop, slices=scoring.source.slices(start, stop))

        supply = supply_of(len(replicas), lambda: inbox.put(Nudged()))
        return plan, JobDriver(Scheduler(), transport, inbox).run(replicas, supply, piece_of, deliver, watch)


def warnings_of(plan: Plan, outcome: Outcome) -> tuple[str, ...]:
    """Returns what the caller should know although the job ended well."""
    failures = (f"{replica} did not take part to the end: {error}" for replica, error in outcome.failures.items())
    return (*plan.warnings, *failures)
