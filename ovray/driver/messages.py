"""What replicas, and those who watch the cluster, tell the driver, as it arrives in the driver's inbox.

May not enter: decisions.  Who puts these there: transport.py, cluster_watch.py, newcomers.py.  Who turns them into
the scheduler's events: lifecycle.py, job.py and request_loop.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovray.core.ids import DispatchId, ReplicaId
from ovray.core.serving_order import ServingOrder
from ovray.devices.records import ReplicaSpec
from ovray.errors import OvrayError
from ovray.replica.envelope import Reply
from ovray.replica.workload import ReplicaReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStart:
    """Says which replica is wanted and with which OpenVINO properties."""

    spec: ReplicaSpec
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A replica has compiled and warmed up."""

    replica: ReplicaId
    report: ReplicaReport
    #: Which of the replica's starts speaks, counted from 0: a process may be heard of after its successor began.
    life: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """A replica could not start; it holds nothing."""

    replica: ReplicaId
    error: Exception
    life: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A replica finished one dispatch."""

    replica: ReplicaId
    dispatch: DispatchId
    result: Any
    #: Where its rows are, as an object reference; ``None`` where it put them away itself.
    rows: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A replica failed at one dispatch and is alive."""

    replica: ReplicaId
    dispatch: DispatchId
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """A replica finished, or failed at, some of the requests that it was sent."""

    replica: ReplicaId
    replies: Sequence[Reply]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePassed:
    """A replica that was put aside infers again."""

    replica: ReplicaId
    life: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRefused:
    """A replica that was put aside still fails."""

    replica: ReplicaId
    error: Exception
    life: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The process of a replica is gone, or cannot be reached any more."""

    replica: ReplicaId
    reason: str
    life: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSeen:
    """Ray said which of its nodes live; ids as in ``ReplicaSpec.node_id``."""

    alive: frozenset[str]
    #: Those of them that are to get no new work, since they are about to leave.
    draining: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostsJoined:
    """Nodes that were not there at the start were looked at."""

    #: What the device string means on them; nothing where it does not cover them.
    starts: tuple[ReplicaStart, ...]
    #: And how many replicas it means on the whole cluster as it is now.
    replicas_wanted: int
    #: Who looked; ``None`` is the keeper of a pool.  Once the replicas are laid out anew, nobody heeds what one
    #: says that looked for the earlier layout.
    seen_by: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomFound:
    """Cores became free that were missing."""

    starts: tuple[ReplicaStart, ...]
    #: No more replicas than this are wanted in all.
    replicas_max: int
    #: As in ``HostsJoined``.
    seen_by: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRearranged:
    """The pool whose replicas this driver shares was given other devices."""

    #: Those that it is to have now, the ones that go on included; best first.
    wanted: tuple[ReplicaStart, ...]
    #: Which of them are to serve as they come and go; ``None``: all alike.
    order: ServingOrder | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEnded:
    """The pool whose replicas this driver shares is no more."""

    error: OvrayError


Message = (
    Started
    | StartFailed
    | Answered
    | Refused
    | Replied
    | ProbePassed
    | ProbeRefused
    | Gone
    | ClusterSeen
    | HostsJoined
    | RoomFound
)
