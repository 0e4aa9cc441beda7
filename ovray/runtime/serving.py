"""Joins what all requests of one compiled model share: the pool of replicas, the ports, the callback threads.

May not enter: forms of input, results, OpenVINO's names.
"""

import difflib
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ovray.core.ids import ReplicaId, RequestId
from ovray.core.ledger import ReplicaState
from ovray.core.snapshot import ReplicaSnapshot
from ovray.devices.records import ReplicaSpec
from ovray.driver.calls import Caller, Ended
from ovray.driver.interrupts import DRAIN_TIMEOUT_S
from ovray.driver.lifecycle import request_window
from ovray.driver.opening import OpenPool, PoolOptions
from ovray.driver.pool import PoolSnapshot, RequestPool
from ovray.errors import ConfigError, OvrayError, ReplicaError
from ovray.replica.envelope import TensorShape
from ovray.runtime.callbacks import CallbackThreads
from ovray.runtime.plain_inputs import NoPlainInputs, PlainInputs
from ovray.runtime.ports import Ports

_log = logging.getLogger(__name__)

#: For how long what replicas said of themselves is good enough to count and to find them by.
_SEEN_FOR_S = 0.5

#: The pools of this process; those that were closed are still among them for a while.
_here: "weakref.WeakSet[Serving]" = weakref.WeakSet()

#: In flight for the sake of slow replicas, at the most: each holds its inputs, and each waits for those before it.
_WORTH_MAX = 1024

_READY = ReplicaState.READY.value
_FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Says how one request is to be served."""

    #: Higher goes first.
    priority: int = 0
    #: Seconds from submission after which it is not started any more; ``None`` is no deadline.
    deadline_s: float | None = None
    #: A replica's id or ``host/device``; ``None`` is any.
    device: str | None = None

    @staticmethod
    def of(priority: int, deadline_s: float | None, device: str | None) -> "Terms":
        """Says how to serve what a caller asked for; most ask for nothing, and get ``ANY_TERMS`` itself."""
        if priority == 0 and deadline_s is None and device is None:
            return ANY_TERMS
        return Terms(priority=priority, deadline_s=deadline_s, device=device)

    def __post_init__(self) -> None:
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ConfigError(
                f"deadline_s is {self.deadline_s:g}; give seconds from now, above 0, or None for no deadline"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaInfo:
    """Says what one replica is and how it stands."""

    #: ``host/CPU.0#0``
    id: ReplicaId
    host: str
    #: As ovray names it: ``CPU.0`` is the first NUMA node.
    device: str
    #: ``ready``, ``evicted``, ``draining``, ``lost``; ``starting`` or ``failed`` before it ever was ready.
    state: str
    pid: int | None
    #: Logical CPUs that it may run on; empty where it is not pinned.
    cpus: tuple[int, ...]
    #: Infer requests that run side by side.
    nireq: int
    precision: str
    compile_s: float | None
    #: Requests with it now, and rows that it has done; a request without an open batch dimension is one row.
    requests_outstanding: int
    rows_done: int
    #: As learnt; ``None`` where nothing is known yet.
    rows_per_s: float | None
    #: Seconds in which it had work, as seen from here.
    busy_s: float

    @property
    def place(self) -> str:
        """``host/device``, by which requests are pinned and priorities given."""
        return f"{self.host}/{self.device}"


#: What most requests ask for.
ANY_TERMS = Terms()


class Serving:
    """Takes requests to the pool.  Ends the pool when nobody needs it any more.  Safe to use from many threads."""

    def __init__(self, opened: OpenPool, ports: Ports, options: PoolOptions) -> None:
        """Takes over a pool that serves."""
        self.options = options
        self.pool: RequestPool = opened.pool
        self.ports = ports
        self.plain_inputs: PlainInputs | NoPlainInputs = (
            PlainInputs(ports) if self.pool.telling.spans is None else NoPlainInputs()
        )
        self.callbacks = CallbackThreads("ovray-callback")
        #: What the caller set; ``None`` is the order of the device string.
        self._priorities: tuple[str, ...] | None = None
        self._give_devices = opened.set_devices
        self._looking = threading.Lock()
        self._seen: tuple[ReplicaInfo, ...] = ()
        #: Requests in flight that keep these busy where none are joined: asked for whenever a queue is full.
        self._seen_worth = 1
        #: For how long half of what these hold in advance keeps them busy.
        self._seen_spare_s = 0.0
        self._seen_until_s = 0.0
        # Whoever drops the last reference may be the driver thread or a destructor; the pool ends on its own
        # thread.
        weakref.finalize(self, self.pool.close).atexit = False
        _here.add(self)

    @staticmethod
    def is_any_open() -> bool:
        """Says whether a model of this process is being served."""
        return any(serving.is_open for serving in list(_here))

    @property
    def is_open(self) -> bool:
        """Says whether requests are taken."""
        try:
            self.pool.check_open()
        except OvrayError:
            return False
        return True

    def submit(
        self,
        arrays: Sequence[NDArray[Any]],
        terms: Terms,
        ended: Callable[[Ended], None],
        shapes: tuple[TensorShape, ...] | None = None,
        caller: Caller = Caller.GOES_ON,
    ) -> RequestId:
        """Takes a request; waits while the pool has no room for it.

        Args:
            arrays: in the order of the model's inputs; their bytes are taken before this returns.
            terms: how to serve it.
            ended: is called exactly once, on the driver thread: it must be quick and must not wait.
            shapes: in elements, where an input's type takes less than a byte; ``None``: the arrays' own.
            caller: one that waits has to call the pool's ``wait_for`` next.

        Raises:
            ConfigError: there is no such device.
            ReplicaError: the model is closed, there was no room before the deadline, or the device has lost its
                replicas.
        """
        return self.pool.submit(
            arrays,
            ended=ended,
            rows=self.ports.rows(shapes or [array.shape for array in arrays]),
            priority=terms.priority,
            deadline_s=terms.deadline_s,
            pinned_to=None if terms.device is None else self._pin(terms.device),
            shapes=shapes,
            caller=caller,
        )

    def snapshot(self) -> PoolSnapshot:
        """Says how the pool stands."""
        return self.pool.snapshot()

    def replicas(self) -> tuple[ReplicaInfo, ...]:
        """Says how every replica stands that was asked for."""
        seen = self.pool.snapshot()
        standing = {replica.id: replica for replica in seen.scheduler.replicas}
        return tuple(self._info(spec, seen, standing.get(spec.id)) for spec in seen.specs)

    def optimal_requests(self) -> int:
        """Adds up the infer requests of the replicas that are alive."""
        return sum(replica.nireq for replica in self.replicas() if replica.state == _READY)

    def wanted_in_flight(self) -> int:
        """Says how many requests in flight keep every live replica busy, those on their way included."""
        self._lately()
        return max(self._seen_worth, self.pool.joined_in_flight)

    @property
    def spare_s(self) -> float:
        """Says for how long nobody need send anything to replicas that hold all they may, in seconds."""
        return self._seen_spare_s

    def _lately(self) -> tuple[ReplicaInfo, ...]:
        """Says how replicas stood a moment ago: for those who ask at every request."""
        with self._looking:
            if time.monotonic() > self._seen_until_s:
                self._seen = self.replicas()
                self._seen_worth, self._seen_spare_s = _worth_in_flight(self._seen), _spare_s(self._seen)
                self._seen_until_s = time.monotonic() + _SEEN_FOR_S
            return self._seen

    def execution_devices(self) -> list[str]:
        """Lists the devices that have a live replica, as ``host/device``, in the order of the device string."""
        return _places_of(replica for replica in self.replicas() if replica.state == _READY)

    @property
    def priorities(self) -> tuple[str, ...]:
        """Devices as ``host/device``, first is best."""
        return self._priorities or tuple(_places_of(self.replicas()))

    def set_priorities(self, devices: Sequence[str]) -> None:
        """Gives devices a new order, first is best; those left out get no new work.

        Args:
            devices: each ``host/device`` or, for all of its kind in the order of the device string, ``GPU``.

        Raises:
            ConfigError: there is no such device.
        """
        known = self.replicas()
        places = tuple(dict.fromkeys(place for device in devices for place in _meant(device, known)))
        if not places:
            raise ConfigError(
                f"no device was named; legal are {', '.join(_places_of(known))}; nothing was changed"
            )
        self.pool.set_priorities(places)
        self._priorities = places

    def set_devices(self, devices: str) -> None:
        """Gives the model another device string; priorities are those of the string again.

        Raises:
            ConfigError: it is wrong, means nothing here, or what it means is taken; nothing was changed.
            ReplicaError: the model is closed.
        """
        self.pool.check_open()
        self._give_devices(devices)
        self._priorities = None
        with self._looking:
            self._seen_until_s = 0.0

    def finish_held(self) -> None:
        """Lets replicas finish what they hold, at an interruption, and says what was not run."""
        try:
            unfinished = self.pool.finish_held(DRAIN_TIMEOUT_S)
        except ReplicaError:
            return  # closed already, or broken: whoever waits was told
        _log.warning(
            "interrupted: replicas have finished what they held; %d requests end with an error", unfinished
        )

    def _pin(self, device: str) -> str:
        """Finds what the scheduler calls the replica or device that a caller names."""
        known = self._lately()
        if not _is_known(device, known):
            known = self.replicas()  # a host may have joined just now
        places = [device] if any(device == replica.id for replica in known) else _meant(device, known)
        if len(places) > 1:
            raise ConfigError(
                f"device={device!r} is several: {', '.join(places)}; name one; the request was not taken"
            )
        if all(replica.state == _FAILED for replica in known if places[0] in (replica.id, replica.place)):
            raise ReplicaError(
                f"device={device!r} has no replica that could start; the request was not taken; leave device out,"
                " or see compiled.stats()"
            )
        return places[0]

    def _info(self, spec: ReplicaSpec, seen: PoolSnapshot, standing: ReplicaSnapshot | None) -> ReplicaInfo:
        report = seen.reports.get(spec.id)
        state = "starting" if spec.id in seen.starting else _FAILED
        return ReplicaInfo(
            id=spec.id,
            host=spec.host,
            device=spec.device,
            state=standing.state.value if standing else state,
            pid=report.pid if report else None,
            cpus=spec.cpus,
            nireq=report.engine.nireq if report else 0,
            precision=report.engine.precision if report else spec.precision,
            compile_s=report.engine.compile_s if report else None,
            requests_outstanding=standing.requests_outstanding if standing else 0,
            rows_done=standing.rows_done if standing else 0,
            rows_per_s=standing.rows_per_s if standing else None,
            busy_s=standing.busy_s if standing else 0.0,
        )


def _worth_in_flight(replicas: Iterable[ReplicaInfo]) -> int:
    """Says how many requests in flight keep every live replica busy."""
    ready = [replica for replica in replicas if replica.state == _READY]
    windows = [request_window(replica.nireq, replica.rows_per_s) for replica in ready]
    return max(1, sum(windows), _worth_for_the_slowest(ready, windows))


def _spare_s(replicas: Iterable[ReplicaInfo]) -> float:
    """Says for how long each replica is kept busy by half of what it may hold beyond what runs."""
    ready = [replica for replica in replicas if replica.state == _READY]
    in_advance = [request_window(replica.nireq, replica.rows_per_s) - replica.nireq for replica in ready]
    return min(
        (ahead / 2 / (replica.rows_per_s or math.inf) for ahead, replica in zip(in_advance, ready, strict=True)),
        default=0.0,
    )


def _worth_for_the_slowest(replicas: Sequence[ReplicaInfo], windows: Sequence[int]) -> int:
    """Says how many requests must be there for the slowest replica to be worth its time.

    A replica is given nothing that the others would have done before it: as many must be waiting, or with others,
    as all of them do in the time in which it works off its window.  For equal replicas that is their windows' sum.
    """
    rates = [replica.rows_per_s for replica in replicas if replica.rows_per_s]
    if len(rates) < len(replicas) or not rates:
        return 0
    slowest_s = max(window / rate for window, rate in zip(windows, rates, strict=True))
    return min(math.ceil(sum(rates) * slowest_s), _WORTH_MAX)


def _places_of(replicas: Iterable[ReplicaInfo]) -> list[str]:
    return list(dict.fromkeys(replica.place for replica in replicas))


def _is_known(device: str, replicas: Iterable[ReplicaInfo]) -> bool:
    return any(device == replica.id or _is_meant(device, replica.place) for replica in replicas)


def _meant(device: str, replicas: Sequence[ReplicaInfo]) -> list[str]:
    """Lists the places that a name means: ``host/GPU.0`` itself, or all of ``GPU`` or ``host/GPU``."""
    places = _places_of(replicas)
    found = [place for place in places if _is_meant(device, place)]
    if not found:
        known = [*places, *(replica.id for replica in replicas)]
        near = difflib.get_close_matches(device, known, n=1)
        raise ConfigError(
            f"device {device!r} is none of this model's; legal are {', '.join(known)}; nothing was done"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return found


def _is_meant(device: str, place: str) -> bool:
    """Says whether ``GPU``, ``GPU.1`` or ``host/GPU`` means the device ``host/GPU.1``."""
    return any(name == device or name.startswith(f"{device}.") for name in (place, place.partition("/")[2]))
