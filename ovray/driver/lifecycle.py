"""Follows replicas from start to end, and turns what they say of themselves into the scheduler's events.

May not enter: work, decisions about it (core), Ray (transport.py).  Callers: job.py and pool.py, each from the one
thread that also feeds the scheduler.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ovray.core import events
from ovray.core.ids import ReplicaId
from ovray.core.snapshot import Snapshot
from ovray.devices.records import ReplicaSpec
from ovray.driver import messages
from ovray.driver.transport import Transport
from ovray.errors import CompileError, ConfigError, OvrayError, ReplicaError
from ovray.replica.actor import WORK_THREADS
from ovray.replica.workload import ReplicaReport

#: A replica that takes longer to take its cores, read, compile and warm up is given up.
START_TIMEOUT_S = 900.0

#: A replica that holds work and has been silent for this long after the scheduler noticed is given up.
SILENCE_TIMEOUT_S = 120.0

#: Requests that a replica holds beyond those that run: as many again, or what it does in this time, which is
#: several round trips of a Ray actor call (1.4 to 2 ms, field measurement on two cores).
PREFETCH_S = 0.01

#: And never more than this: what a lost replica gives back is done again.
_WINDOW_MAX = 4096

LifeMessage = (
    messages.Started | messages.StartFailed | messages.ProbePassed | messages.ProbeRefused | messages.Gone
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStart:
    """Says which replica is wanted and with which OpenVINO properties."""

    spec: ReplicaSpec
    properties: Mapping[str, str]


class ReplicaSet:
    """Knows every replica that was asked for: those starting, those that reported, those that failed."""

    def __init__(self, transport: Transport, clock: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._clock = clock
        self._specs: dict[ReplicaId, ReplicaSpec] = {}
        #: Asked for and not yet heard of, with the time at which they are given up.
        self._starting: dict[ReplicaId, float] = {}
        self._reports: dict[ReplicaId, ReplicaReport] = {}
        self._failures: dict[ReplicaId, Exception] = {}
        self._silent_since_s: dict[ReplicaId, float] = {}
        #: When the first replica was ready.
        self.first_ready_s: float | None = None

    @property
    def starting(self) -> tuple[ReplicaId, ...]:
        """Replicas that have not said yet whether they can start."""
        return tuple(self._starting)

    @property
    def reports(self) -> Mapping[ReplicaId, ReplicaReport]:
        """What replicas turned out to be; also of those that were lost later."""
        return self._reports

    @property
    def failures(self) -> Mapping[ReplicaId, Exception]:
        """Why replicas that were wanted did not take part, or left."""
        return self._failures

    def spec(self, replica: ReplicaId) -> ReplicaSpec:
        """Says where a replica that was asked for is, or was to be."""
        return self._specs[replica]

    def start(self, wanted: Iterable[ReplicaStart]) -> None:
        """Starts replicas, side by side."""
        for start in wanted:
            self._specs[start.spec.id] = start.spec
            self._starting[start.spec.id] = self._clock() + START_TIMEOUT_S
            self._transport.start(start.spec, start.properties)

    def take(self, message: LifeMessage) -> list[events.Event]:
        """Takes in what was heard of a replica."""
        match message:
            case messages.Started():
                if self._starting.pop(message.replica, None) is None:
                    return []  # given up meanwhile
                self._reports[message.replica] = message.report
                if self.first_ready_s is None:
                    self.first_ready_s = self._clock()
                return [self._ready(message.replica)]
            case messages.StartFailed():
                self._give_up(message.replica, message.error)
                return []
            case messages.ProbePassed():
                return [self._ready(message.replica)]
            case messages.ProbeRefused():
                return [events.ProbeFailed(replica=message.replica, message=str(message.error))]
            case messages.Gone():
                return self._lose(message.replica, message.reason)

    def look_for_the_silent(self, snapshot: Snapshot) -> list[events.Event]:
        """Gives up replicas that did not start in time, or hold work and say nothing."""
        now_s = self._clock()
        lost: list[events.Event] = []
        for replica, end_s in list(self._starting.items()):
            if now_s > end_s:
                self._give_up(replica, ReplicaError(f"was not ready after {START_TIMEOUT_S:g} s"))
        for standing in snapshot.replicas:
            if not standing.is_stalled:
                self._silent_since_s.pop(standing.id, None)
            elif now_s - self._silent_since_s.setdefault(standing.id, now_s) > SILENCE_TIMEOUT_S:
                lost += self._lose(standing.id, f"held work and was silent for {SILENCE_TIMEOUT_S:g} s")
        return lost

    def error_if_none_is_left(self, snapshot: Snapshot) -> OvrayError | None:
        """Says why nobody works, nor is going to; ``None`` where somebody does."""
        if self._starting or snapshot.has_live_replica:
            return None
        reasons = "; ".join(f"{replica}: {error}" for replica, error in self._failures.items())
        if self._failures and all(isinstance(error, CompileError) for error in self._failures.values()):
            return ConfigError(f"no device can run the model: {reasons}")
        return ReplicaError(f"no replica is left: {reasons}")

    def _ready(self, replica: ReplicaId) -> events.ReplicaReady:
        spec, engine = self._specs[replica], self._reports[replica].engine
        return events.ReplicaReady(
            replica=replica,
            device=f"{spec.host}/{spec.device}",
            request_window=request_window(engine.nireq, engine.rate_rows_per_s),
            chunk_window=WORK_THREADS,
            nireq=engine.nireq,
            rate_rows_per_s=engine.rate_rows_per_s,
        )

    def _give_up(self, replica: ReplicaId, error: Exception) -> None:
        if self._starting.pop(replica, None) is not None:
            self._failures[replica] = error
            self._transport.stop(replica)

    def _lose(self, replica: ReplicaId, reason: str) -> list[events.Event]:
        if replica in self._failures:
            return []
        self._failures[replica] = ReplicaError(reason)
        self._transport.stop(replica)
        return [events.ReplicaLost(replica=replica, reason=reason)]


def request_window(nireq: int, rate_rows_per_s: float | None) -> int:
    ahead = math.ceil((rate_rows_per_s or 0.0) * PREFETCH_S)
    return nireq + min(max(nireq, ahead), _WINDOW_MAX)
