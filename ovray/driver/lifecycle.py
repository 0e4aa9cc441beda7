"""Follows replicas from start to end, and turns what they say of themselves into the scheduler's events.

A replica is starting, ready, draining, or down; one that is down is started again, when restarts.py says so and
its host is there.  One that is wanted no more drains, and is forgotten when it has ended.  Whether a ready one is
trusted with work (evicted, resting, stalled) is the scheduler's to say.

May not enter: work, decisions about it (core), Ray (transport.py).  Callers: job.py and request_loop.py,
each from where the scheduler is fed, too.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from ovray.core import events
from ovray.core.ids import ReplicaId
from ovray.core.snapshot import Snapshot
from ovray.devices.leases import CoresTakenError
from ovray.devices.records import ReplicaSpec
from ovray.devices.replanning import Present
from ovray.driver import messages
from ovray.driver.autoscaling import Demand
from ovray.driver.messages import ReplicaStart
from ovray.driver.restarts import Restarts
from ovray.driver.transport import Transport
from ovray.errors import CompileError, ConfigError, OvrayError, ReplicaError, ReplicaLostError
from ovray.logs import fields
from ovray.replica.actor import WORK_THREADS
from ovray.replica.workload import ReplicaReport

_log = logging.getLogger(__name__)

#: A replica that takes longer to take its cores, read, compile and warm up is given up.
START_TIMEOUT_S = 900.0

#: A replica that holds work and has been silent for this long after the scheduler noticed is lost.  Its work was
#: given to others when the scheduler noticed; this only decides when to start it anew.
SILENCE_TIMEOUT_S = 30.0

#: A head that says nothing for so long is gone.
HEAD_TIMEOUT_S = 30.0

#: It is asked once a second: before so long, even a sound one may not have answered.
_HEAD_TIMEOUT_MIN_S = 3.0

#: Looks come every quarter of a second; after so long a one, messages wait that have not been read.
_ABSENCE_S = 2.0

#: Requests that a replica holds beyond those that run: as many again, or what it does in this time.  A Ray actor
#: call takes 1.4 to 2 ms there and back (field measurement on two cores); but where replicas have every core, the
#: driver's threads wait several slices of the kernel's scheduler for theirs.
PREFETCH_S = 0.04

#: And never more than this: what a lost replica gives back is done again.
_WINDOW_MAX = 4096

LifeMessage = (
    messages.Started
    | messages.StartFailed
    | messages.ProbePassed
    | messages.ProbeRefused
    | messages.Gone
    | messages.ClusterSeen
    | messages.HostsJoined
    | messages.RoomFound
)


class Newcomers(Protocol):
    """Looks for room while replicas run; what it finds comes as ``HostsJoined`` and ``RoomFound``."""

    def consider(self, seen: messages.ClusterSeen, placed: Sequence[ReplicaSpec]) -> None:
        """Returns at once.

        Args:
            seen: the nodes that there are.
            placed: the replicas that have their place, or will have it again.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """Says how replicas are looked after once they run."""

    #: A replica that holds work and has been silent for so long after the scheduler noticed is lost.
    silence_timeout_s: float = SILENCE_TIMEOUT_S
    #: A head that says nothing for so long is gone.
    head_timeout_s: float = HEAD_TIMEOUT_S
    #: ``None`` leaves hosts alone that join later.
    newcomers: Newcomers | None = None
    #: ``None`` asks for no hosts.
    demand: Demand | None = None


class Phase(Enum):
    """Says how far a replica is in its present life."""

    WAITING = "waiting"  # for cores that a dismissed one gives back
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # finishes what it holds; its host is about to leave, or it is dismissed
    DOWN = "down"


@dataclass(slots=True, kw_only=True)
class _Followed:
    """What is known of one replica."""

    start: ReplicaStart
    phase: Phase = Phase.STARTING
    #: Counted from 0.
    life: int = 0
    #: While it starts: when it is given up.
    start_ends_s: float = math.inf
    silent_since_s: float | None = None
    #: Wanted no more; is forgotten when it has ended.
    is_dismissed: bool = False


class ReplicaSet:
    """Knows every replica that was asked for, and what became of it."""

    def __init__(
        self,
        transport: Transport,
        clock: Callable[[], float] = time.monotonic,
        upkeep: Upkeep | None = None,
    ) -> None:
        """Stores; ``start`` acts.

        Args:
            transport: starts and ends processes.
            clock: seconds, on any clock that does not go back.
            upkeep: how replicas are looked after; ``None`` is as by default.
        """
        self._transport = transport
        self._clock = clock
        self._upkeep = upkeep or Upkeep()
        #: Those that are wanted in the order in which they were asked for, then those that were dismissed.
        self._followed: dict[ReplicaId, _Followed] = {}
        #: The lives of those that were forgotten, which others of the same name continue.
        self._past_lives: dict[ReplicaId, int] = {}
        self._reports: dict[ReplicaId, ReplicaReport] = {}
        #: Of those that are down, why.
        self._failures: dict[ReplicaId, Exception] = {}
        self._restarts = Restarts()
        #: Those that were started on cores that had been missing.
        self._on_found_cores: set[ReplicaId] = set()
        #: What Ray said last; ``None`` where nobody watches it.
        self._seen: messages.ClusterSeen | None = None
        self._seen_s = 0.0
        self._looked_s = clock()
        #: When the first replica was ready.
        self.first_ready_s: float | None = None

    @property
    def starting(self) -> tuple[ReplicaId, ...]:
        """Replicas that have not said yet whether they can start."""
        phases = (Phase.WAITING, Phase.STARTING)
        return tuple(id for id, replica in self._followed.items() if replica.phase in phases)

    @property
    def reports(self) -> Mapping[ReplicaId, ReplicaReport]:
        """What replicas turned out to be; also of those that were lost later."""
        return self._reports

    @property
    def failures(self) -> Mapping[ReplicaId, Exception]:
        """Why replicas that were wanted do not take part, or have left."""
        return self._failures

    @property
    def running(self) -> frozenset[ReplicaId]:
        """Replicas that have started and are not known to have ended."""
        phases = (Phase.READY, Phase.DRAINING)
        return frozenset(id for id, replica in self._followed.items() if replica.phase in phases)

    @property
    def given_up(self) -> Mapping[ReplicaId, Exception]:
        """Why replicas are down that will not be started again."""
        planned = set(self._restarts.planned)
        return {
            id: self._failures[id]
            for id, replica in self._followed.items()
            if replica.phase is Phase.DOWN and id not in planned
        }

    def life(self, replica: ReplicaId) -> int:
        """Counts the starts of a replica that was asked for, from 0."""
        return self._followed[replica].life

    @property
    def specs(self) -> tuple[ReplicaSpec, ...]:
        """Where every replica that was asked for is, or was to be; dismissed ones until they have ended."""
        return tuple(replica.start.spec for replica in self._followed.values())

    @property
    def present(self) -> Present:
        """Replicas that hold something, or will as soon as they can."""
        given_up = self.given_up
        followed = [replica for id, replica in self._followed.items() if id not in given_up]
        return Present(
            staying=tuple(replica.start.spec for replica in followed if not replica.is_dismissed),
            leaving=tuple(replica.start.spec for replica in followed if replica.is_dismissed),
        )

    @property
    def dismissed(self) -> tuple[ReplicaId, ...]:
        """Replicas that are wanted no more and have not ended."""
        return tuple(id for id, replica in self._followed.items() if replica.is_dismissed)

    @property
    def has_forgotten_some(self) -> bool:
        """Says whether there were replicas that are wanted no more and have ended."""
        return bool(self._past_lives)

    def start(self, wanted: Iterable[ReplicaStart]) -> None:
        """Starts replicas, side by side."""
        for start in wanted:
            self._begin(start, self._next_life(start.spec.id))

    def rearrange(self, wanted: Sequence[ReplicaStart], upkeep: Upkeep | None = None) -> list[events.Event]:
        """Has these replicas and no others: starts those that are missing, dismisses those that are left out.

        Replicas that are there already go on, whatever ``wanted`` says of their cores; what was given up is tried
        again.  A dismissed one finishes what it holds; whoever is to have its cores starts after its end.

        Args:
            wanted: in the order in which they are preferred.
            upkeep: how replicas are looked after from now on; ``None`` is as before.
        """
        self._upkeep = upkeep or self._upkeep
        self._on_found_cores.clear()
        ids, given_up = {start.spec.id for start in wanted}, set(self.given_up)
        told = [event for id in list(self._followed) if id not in ids for event in self._dismiss(id)]
        before, self._followed = self._followed, {}
        for start in wanted:
            known = before.pop(start.spec.id, None)
            if known is not None and known.is_dismissed:  # its name is wanted for another
                told += self._end_dismissed(known)
                known = None
            if known is not None:
                known.start = replace(known.start, spec=replace(known.start.spec, rank=start.spec.rank))
                self._followed[start.spec.id] = known
            if known is None or start.spec.id in given_up:
                life = self._next_life(start.spec.id) - 1
                self._forget_past(start.spec.id)
                self._followed[start.spec.id] = _Followed(start=start, phase=Phase.WAITING, life=life)
        self._followed |= before
        self._begin_waiting()
        return told

    def take(self, message: LifeMessage) -> list[events.Event]:
        """Takes in what was heard of a replica, or of the cluster."""
        match message:
            case messages.ClusterSeen():
                return self._take_look(message)
            case messages.HostsJoined() | messages.RoomFound():
                if message.seen_by is self._upkeep.newcomers:
                    self._take_room(message)
                return []
        replica = self._followed.get(message.replica)
        if replica is None or replica.life != message.life or replica.phase is Phase.DOWN:
            return []  # the last words of a life that is over
        match message:
            case messages.Started():
                return self._take_start(replica, message.report)
            case messages.StartFailed():
                self._give_up(replica, message.error)
                return []
            case messages.ProbePassed():
                return [self._ready(replica)]
            case messages.ProbeRefused():
                return [events.ProbeFailed(replica=message.replica, message=str(message.error))]
            case messages.Gone():
                return self._lose(replica, message.reason)

    def look_after(self, snapshot: Snapshot) -> list[events.Event]:
        """Gives up replicas that did not start in time, or hold work and say nothing; starts those anew whose time
        has come."""
        now_s = self._clock()
        self._forgive_own_absence(now_s)
        lost: list[events.Event] = []
        for replica in self._followed.values():
            if replica.phase is Phase.STARTING and now_s > replica.start_ends_s:
                self._give_up(replica, ReplicaError(f"was not ready after {START_TIMEOUT_S:g} s"))
        for standing in snapshot.replicas:
            if standing.id not in self._followed:
                continue  # was lost, and is not wanted back
            replica = self._followed[standing.id]
            if not standing.is_stalled:
                replica.silent_since_s = None
            elif replica.silent_since_s is None:
                replica.silent_since_s = now_s
            elif now_s - replica.silent_since_s > self._upkeep.silence_timeout_s:
                lost += self._lose(replica, f"held work and was silent for {self._upkeep.silence_timeout_s:g} s")
        for due in self._restarts.due(now_s):
            replica = self._followed[due]
            if self._may_start_on(replica.start.spec.node_id):
                self._begin(replica.start, life=replica.life + 1)
        return lost

    def released(self, replica_id: ReplicaId) -> None:
        """Ends a replica that holds nothing and gets nothing any more."""
        replica = self._followed[replica_id]
        if replica.is_dismissed:
            self._transport.stop(replica_id)
            self._forget(replica)
            self._begin_waiting()
            return
        is_leaving = replica.phase is Phase.DRAINING
        reason = (
            f"host {replica.start.spec.host} is leaving the cluster" if is_leaving else "a better device serves"
        )
        replica.phase = Phase.DOWN
        self._failures[replica_id] = ReplicaError(reason)
        _log.info("replica leaves", extra=fields(replica=replica_id, life=replica.life, reason=reason))
        self._transport.stop(replica_id)

    def close(self) -> None:
        """Asks for no hosts any more; whoever has this set ends its replicas."""
        if self._upkeep.demand is not None:
            self._upkeep.demand.withdraw()

    def error_if_none_is_left(self, snapshot: Snapshot) -> OvrayError | None:
        """Says why nobody works, nor is going to; ``None`` where somebody does."""
        head_timeout_s = max(self._upkeep.head_timeout_s, _HEAD_TIMEOUT_MIN_S)
        if self._seen is not None and self._clock() - self._seen_s > head_timeout_s:
            return ReplicaError(
                f"the head of the Ray cluster has not answered for {head_timeout_s:g} s; replicas"
                " were given up; start the same command again when it is back"
            )
        phases = {replica.phase for replica in self._followed.values()}
        if (
            phases & {Phase.WAITING, Phase.STARTING, Phase.DRAINING}
            or snapshot.has_live_replica
            or self._will_start_one()
        ):
            return None
        reasons = "; ".join(f"{replica}: {error}" for replica, error in self._failures.items())
        if (
            self.first_ready_s is None
            and self._failures
            and all(isinstance(error, CompileError) for error in self._failures.values())
        ):
            return ConfigError(f"no device can run the model: {reasons}")
        return ReplicaError(f"no replica is left: {reasons}")

    # --- starts ---------------------------------------------------------------------------------------------

    def _begin(self, start: ReplicaStart, life: int) -> None:
        self._restarts.started(start.spec.id)
        ends_s = self._clock() + START_TIMEOUT_S
        self._followed[start.spec.id] = _Followed(start=start, life=life, start_ends_s=ends_s)
        _log.info("replica starts", extra=fields(replica=start.spec.id, life=life))
        self._transport.start(start.spec, start.properties, life)

    def _next_life(self, replica: ReplicaId) -> int:
        known = self._followed.get(replica)
        return (self._past_lives.get(replica, -1) if known is None else known.life) + 1

    def _begin_waiting(self) -> None:
        """Starts replicas whose cores nobody holds any more that is about to end."""
        held = {
            (replica.start.spec.node_id, core)
            for replica in self._followed.values()
            if replica.is_dismissed
            for core in replica.start.spec.cores
        }
        for replica in list(self._followed.values()):
            spec = replica.start.spec
            if replica.phase is Phase.WAITING and held.isdisjoint((spec.node_id, core) for core in spec.cores):
                self._begin(replica.start, replica.life + 1)

    def _take_start(self, replica: _Followed, report: ReplicaReport) -> list[events.Event]:
        if replica.phase is not Phase.STARTING:
            return []
        spec = replica.start.spec
        replica.phase = Phase.READY
        self._reports[spec.id] = report
        self._failures.pop(spec.id, None)
        self._restarts.ready(spec.id, self._clock())
        if self.first_ready_s is None:
            self.first_ready_s = self._clock()
        _log.info(
            "replica is ready",
            extra=fields(replica=spec.id, life=replica.life, replica_pid=report.pid, nireq=report.engine.nireq),
        )
        return [self._ready(replica)]

    def _ready(self, replica: _Followed) -> events.ReplicaReady:
        spec, engine = replica.start.spec, self._reports[replica.start.spec.id].engine
        return events.ReplicaReady(
            replica=spec.id,
            device=f"{spec.host}/{spec.device}",
            request_window=request_window(engine.nireq, engine.rate_rows_per_s),
            chunk_window=WORK_THREADS,
            nireq=engine.nireq,
            rate_rows_per_s=engine.rate_rows_per_s,
        )

    def _take_room(self, found: messages.HostsJoined | messages.RoomFound) -> None:
        """Starts what can run on hosts that joined or cores that became free, as far as something is missing."""
        phases = (Phase.WAITING, Phase.STARTING, Phase.READY)
        for start in found.starts:
            present = [id for id, replica in self._followed.items() if replica.phase in phases]
            if isinstance(found, messages.RoomFound):
                is_missing = len(present) < found.replicas_max
            else:
                # Those that took up cores one by one stand for none of the replicas that were planned.
                is_missing = sum(id not in self._on_found_cores for id in present) < found.replicas_wanted
            known = self._followed.get(start.spec.id)
            if is_missing and (known is None or known.phase is Phase.DOWN):
                if isinstance(found, messages.RoomFound):
                    self._on_found_cores.add(start.spec.id)
                self.start([start])

    @property
    def _placed(self) -> tuple[ReplicaSpec, ...]:
        """Where replicas are or will be again; all but those for which there were no cores."""
        return tuple(
            replica.start.spec
            for id, replica in self._followed.items()
            if not isinstance(self._failures.get(id), CoresTakenError) or replica.phase is not Phase.DOWN
        )

    def _will_start_one(self) -> bool:
        return any(self._may_start_on(self._followed[id].start.spec.node_id) for id in self._restarts.planned)

    def _may_start_on(self, node_id: str) -> bool:
        return self._seen is None or node_id in self._seen.alive - self._seen.draining

    # --- ends -----------------------------------------------------------------------------------------------

    def _dismiss(self, replica_id: ReplicaId) -> list[events.Event]:
        """Has a replica finish what it holds and leave for good."""
        replica = self._followed[replica_id]
        if replica.is_dismissed:
            return []
        replica.is_dismissed = True
        if replica.phase is Phase.DRAINING:
            return []
        if replica.phase is Phase.READY:
            replica.phase = Phase.DRAINING
            return [events.ReplicaDraining(replica=replica_id)]
        if replica.phase is Phase.STARTING:
            self._transport.stop(replica_id)
        self._forget(replica)
        return []

    def _end_dismissed(self, replica: _Followed) -> list[events.Event]:
        """Ends a dismissed replica although it may hold something, which others then get."""
        spec = replica.start.spec
        self._transport.stop(spec.id)
        self._past_lives[spec.id] = replica.life
        return [events.ReplicaLost(replica=spec.id, reason="another replica was given its name")]

    def _forget(self, replica: _Followed) -> None:
        """Knows a dismissed replica no more."""
        replica_id = replica.start.spec.id
        self._forget_past(replica_id)
        self._past_lives[replica_id] = replica.life
        del self._followed[replica_id]

    def _forget_past(self, replica_id: ReplicaId) -> None:
        self._restarts.forget(replica_id)
        self._failures.pop(replica_id, None)
        self._reports.pop(replica_id, None)

    def _give_up(self, replica: _Followed, error: Exception) -> None:
        """Ends a start that came to nothing."""
        if replica.phase is not Phase.STARTING:
            return
        spec = replica.start.spec
        replica.phase = Phase.DOWN
        self._failures[spec.id] = error
        self._restarts.could_not_start(spec.id, error, self._clock())
        _log.info("replica could not start", extra=fields(replica=spec.id, life=replica.life, reason=error))
        self._transport.stop(spec.id)

    def _forgive_own_absence(self, now_s: float) -> None:
        """Counts no silence of others in which it was this process that did not listen: stopped, or starved."""
        away_s, self._looked_s = now_s - self._looked_s, now_s
        if away_s > _ABSENCE_S:
            self._seen_s += away_s
            for replica in self._followed.values():
                if replica.silent_since_s is not None:
                    replica.silent_since_s += away_s

    def _lose(self, replica: _Followed, reason: str) -> list[events.Event]:
        if replica.phase is Phase.STARTING:
            self._give_up(replica, ReplicaLostError(reason))
            return []
        if replica.phase in (Phase.DOWN, Phase.WAITING):
            return []
        spec = replica.start.spec
        self._transport.stop(spec.id)
        if replica.is_dismissed:
            self._forget(replica)
            self._begin_waiting()
            return [events.ReplicaLost(replica=spec.id, reason=reason)]
        replica.phase = Phase.DOWN
        self._failures[spec.id] = ReplicaLostError(reason)
        self._restarts.lost(spec.id, self._clock())
        _log.info("replica is lost", extra=fields(replica=spec.id, life=replica.life, reason=reason))
        return [events.ReplicaLost(replica=spec.id, reason=reason)]

    def _take_look(self, seen: messages.ClusterSeen) -> list[events.Event]:
        """Loses replicas whose host is gone, and lets those go whose host is about to be."""
        self._seen, self._seen_s = seen, self._clock()
        if self._upkeep.newcomers is not None:
            self._upkeep.newcomers.consider(seen, self._placed)
        if self._upkeep.demand is not None:
            self._upkeep.demand.look(seen.alive - seen.draining, self._placed)
        followed: list[events.Event] = []
        for replica in list(self._followed.values()):
            spec = replica.start.spec
            if spec.node_id not in seen.alive:
                followed += self._lose(replica, f"host {spec.host} is gone, says Ray")
            elif spec.node_id in seen.draining and replica.phase is Phase.READY:
                replica.phase = Phase.DRAINING
                followed.append(events.ReplicaDraining(replica=spec.id))
        return followed


def request_window(nireq: int, rate_rows_per_s: float | None) -> int:
    ahead = math.ceil((rate_rows_per_s or 0.0) * PREFETCH_S)
    return nireq + min(max(nireq, ahead), _WINDOW_MAX)
