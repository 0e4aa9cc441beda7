"""What the keeper of a named pool is told, and what it tells: the vocabulary between it and drivers.

May not enter: ray (handles of actors pass through as they are), openvino.
"""

from dataclasses import dataclass
from typing import Any

from ovray.core.ids import ReplicaId
from ovray.devices.records import ReplicaSpec
from ovray.driver.placement import Placed
from ovray.driver.pool_options import PoolOptions
from ovray.replica.workload import ReplicaReport


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRecord:
    """Says what a pool is."""

    name: str
    #: As the model calls itself.
    model_name: str
    #: ``HOST:PID`` of the driver that opened it.
    opened_by: str
    #: Unix time.
    opened_s: float
    #: Its devices are those that it was given last.
    options: PoolOptions
    #: What they meant on the hosts that there were then.
    placed: Placed
    #: Counts how often it was given other devices.
    changes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReplica:
    """Says how one replica of a pool stands."""

    spec: ReplicaSpec
    #: Ray's handle of it; ``None`` while there is none.
    actor: Any
    #: Counts its starts, from 0.
    life: int
    #: ``None`` while it does not run.
    report: ReplicaReport | None
    #: Why it is not there and will not be started again; ``None`` where it is, or will be.
    failure: Exception | None
    #: Wanted no more: it ends when its drivers have had their answers.
    is_leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """Says how a pool stands."""

    replicas: tuple[KeptReplica, ...]
    #: Whether it is being stopped; its replicas are about to be gone.
    is_ending: bool
    #: As in its record.
    changes: int = 0
    devices: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChange:
    """Says what giving a pool other devices comes to, by ids of replicas."""

    stay: tuple[ReplicaId, ...]
    start: tuple[ReplicaId, ...]
    leave: tuple[ReplicaId, ...]
    #: Of the new plan.
    warnings: tuple[str, ...]
