"""What the keeper of a named pool is told, and what it tells: the vocabulary between it and drivers.

May not enter: ray (handles of actors pass through as they are), openvino.
"""

from dataclasses import dataclass
from typing import Any

from ovray.devices.records import ReplicaSpec
from ovray.driver.placement import Placed
from ovray.driver.pool_options import PoolOptions
from ovray.replica.workload import ReplicaReport


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRecord:
    """Says what a pool is; it never changes."""

    name: str
    #: As the model calls itself.
    model_name: str
    #: ``HOST:PID`` of the driver that opened it.
    opened_by: str
    #: Unix time.
    opened_s: float
    options: PoolOptions
    #: Where its first replicas are, and the hosts that there were then.
    placed: Placed


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """Says how a pool stands."""

    replicas: tuple[KeptReplica, ...]
    #: Whether it is being stopped; its replicas are about to be gone.
    is_ending: bool
