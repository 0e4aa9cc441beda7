"""Says how a driver's work stands: one frozen record, from which metrics and displays are made.

May not enter: Ray, threads, where readings go.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ovray.core.ids import ReplicaId
from ovray.core.ledger import ReplicaState
from ovray.core.snapshot import ReplicaSnapshot, Snapshot
from ovray.devices.records import ReplicaSpec
from ovray.driver.lifecycle import ReplicaSet
from ovray.driver.meter import ReplicaMeter

#: What a replica can be, beyond the scheduler's states.
STARTING, FAILED = "starting", "failed"
#: What it is when nobody wants it any more; what it did still counts.
LEFT = "left"
STATES = (STARTING, *(state.value for state in ReplicaState), FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReading:
    """Says how one replica stands, and what it has done since the driver knows it."""

    #: ``host/CPU.0#0``
    id: str
    host: str
    device: str
    #: One of ``STATES``, or ``LEFT``.
    state: str
    outstanding: int
    rows_done: int
    rows_per_s: float | None
    retries: int
    evictions: int
    meter: ReplicaMeter


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Says how a pool or a job stands."""

    #: On the driver's clock.
    now_s: float
    replicas: tuple[ReplicaReading, ...]
    #: What ended before a replica had it.
    elsewhere: ReplicaMeter
    accepted: int
    rejected: int
    #: Requests that no replica has yet.
    waiting: int
    #: Of a job: rows in all, and those that are done; 0 for requests.
    rows_total: int = 0
    rows_done: int = 0


def read_replicas(
    replicas: ReplicaSet, snapshot: Snapshot, counted: Mapping[ReplicaId | None, ReplicaMeter]
) -> tuple[ReplicaReading, ...]:
    """Joins what is known of every replica that was asked for, or has done something."""
    standing = {replica.id: replica for replica in snapshot.replicas}
    starting = set(replicas.starting)
    specs = {spec.id: spec for spec in replicas.specs}
    wanted = [
        _read(spec, standing.get(spec.id), STARTING if spec.id in starting else FAILED, counted.get(spec.id))
        for spec in specs.values()
    ]
    left = [_of_one_that_left(id, meter) for id, meter in counted.items() if id is not None and id not in specs]
    return (*wanted, *left)


def _of_one_that_left(id: ReplicaId, meter: ReplicaMeter) -> ReplicaReading:
    host, _, rest = id.partition("/")
    return ReplicaReading(
        id=id,
        host=host,
        device=rest.rpartition("#")[0],
        state=LEFT,
        outstanding=0,
        rows_done=0,
        rows_per_s=None,
        retries=0,
        evictions=0,
        meter=meter,
    )


def _read(
    spec: ReplicaSpec, standing: ReplicaSnapshot | None, otherwise: str, counted: ReplicaMeter | None
) -> ReplicaReading:
    return ReplicaReading(
        id=spec.id,
        host=spec.host,
        device=spec.device,
        state=otherwise if standing is None else standing.state.value,
        outstanding=0 if standing is None else standing.requests_outstanding + standing.chunks_outstanding,
        rows_done=0 if standing is None else standing.rows_done,
        rows_per_s=None if standing is None else standing.rows_per_s,
        retries=0 if standing is None else standing.retries,
        evictions=0 if standing is None else standing.evictions,
        meter=counted or ReplicaMeter(),
    )
