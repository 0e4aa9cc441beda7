"""Builders for tests of the scheduler: a scheduler with replicas, and a reader of its commands."""

import random
from collections.abc import Iterable
from typing import TypeVar

from ovray.core.commands import Command, SendChunk, SendEnvelope
from ovray.core.events import Event, JobSubmitted, ReplicaReady, RequestSubmitted
from ovray.core.ids import JobId, ReplicaId, RequestId
from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler
from ovray.core.settings import SchedulerSettings

C = TypeVar("C", bound=Command)

JOB = JobId(1)


def a_scheduler(
    *replicas: ReplicaReady,
    policy: SchedulePolicy = SchedulePolicy.FASTEST_COMPLETION,
    settings: SchedulerSettings | None = None,
) -> Scheduler:
    """Return a scheduler to which these replicas came up at time 0."""
    scheduler = Scheduler(policy, random.Random(0), settings)
    for replica in replicas:
        scheduler.handle(replica, 0.0)
    return scheduler


def a_ready_replica(
    name: str = "a",
    *,
    device: str | None = None,
    rate: float | None = 10.0,
    request_window: int = 2,
    chunk_window: int = 1,
    nireq: int = 1,
) -> ReplicaReady:
    return ReplicaReady(
        replica=ReplicaId(name),
        device=device or f"{name}/CPU.0",
        request_window=request_window,
        chunk_window=chunk_window,
        nireq=nireq,
        rate_rows_per_s=rate,
    )


def a_job(rows: int = 100, *, job: int = 1, **details: object) -> JobSubmitted:
    return JobSubmitted(job=JobId(job), ranges=((0, rows),), **details)  # type: ignore[arg-type]


def a_request(request: int, **details: object) -> RequestSubmitted:
    return RequestSubmitted(request=RequestId(request), **details)  # type: ignore[arg-type]


def only(kind: type[C], commands: Iterable[Command]) -> list[C]:
    return [command for command in commands if isinstance(command, kind)]


def chunks(commands: Iterable[Command]) -> list[SendChunk]:
    return only(SendChunk, commands)


def sent_to(commands: Iterable[Command]) -> dict[str, list[int]]:
    """Return which requests were sent to which replica."""
    return {sent.replica: [request for _, request in sent.requests] for sent in only(SendEnvelope, commands)}


def handle_all(scheduler: Scheduler, events: Iterable[Event], now_s: float) -> list[Command]:
    """Let several things happen at one time; check the promises after each."""
    commands: list[Command] = []
    for event in events:
        commands += scheduler.handle(event, now_s)
        scheduler.check_invariants()
    return commands
