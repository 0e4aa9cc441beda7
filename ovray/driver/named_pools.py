"""Opens pools under a name, finds them from other processes, lists and stops them.

Ray's names are the register: the keeper of a pool is an actor with the pool's name in the namespace ``ovray``, so
a name is given once, and is free again as soon as the keeper is gone.

May not enter: requests, what a keeper does (pool_keeper.py), OpenVINO.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray._private.worker import global_worker
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ovray.core.policies import SchedulePolicy
from ovray.driver.assembly import OpenPool, make_pool, start_of
from ovray.driver.lifecycle import Upkeep
from ovray.driver.placement import place
from ovray.driver.pool import RequestPool
from ovray.driver.pool_keeper import STOP_TIMEOUT_S, PoolKeeperActor
from ovray.driver.pool_options import MAX_BYTES, MAX_REQUESTS, Carriers, Lifetime, PoolOptions, replica_properties
from ovray.driver.pool_record import PoolChange, PoolRecord, PoolView
from ovray.driver.session import has_ray, held_session, ray_session
from ovray.driver.shared_transport import SharedTransport
from ovray.driver.transport import Outlet
from ovray.errors import ConfigError, OvrayError, ReplicaError
from ovray.logs import settings
from ovray.replica.orphans import this_process
from ovray.replica.signature import PackedModel
from ovray.replica.workload import RequestWorkload

_log = logging.getLogger(__name__)

#: Of all that ovray names in a cluster.
NAMESPACE = "ovray"

#: Before the name of a pool, so that other actors of the namespace are not taken for keepers.
_PREFIX = "pool:"

#: What a keeper may take to start, and to answer: a new worker process needs a second or two.
KEEPER_TIMEOUT_S = 60.0
LOOK_TIMEOUT_S = 10.0

#: What a keeper may take to plan anew, beyond what it waits for cores that others hold: it asks every host.
SCALE_TIMEOUT_S = 90.0

#: What Ray may take to forget a keeper that was ended.
FORGET_TIMEOUT_S = 10.0
_POLL_S = 0.02

#: The resource that only a head node has, as Ray Serve asks for it: a detached keeper belongs where the cluster's
#: own records are.
_ON_HEAD = {"node:__internal_head__": 0.001}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachOptions:
    """Says how an attached driver is to use a pool."""

    address: str | None = None
    #: ``None``: as the pool was opened.
    policy: SchedulePolicy | None = None
    carriers: Carriers | None = None
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedPool(OpenPool):
    """Is a pool that somebody opened and this process uses, too; closing it ends no replica."""

    #: As it was compiled; ``replica.model.unpack`` makes an ``openvino.Model`` of it.
    model: PackedModel
    #: As the pool was opened, with what this driver wants otherwise.
    options: PoolOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolListing:
    """Says what a pool is and how it stands."""

    record: PoolRecord
    view: PoolView
    #: Since the replicas started, from all drivers; ``None`` where one of them did not say.
    requests_served: int | None

    @property
    def ready(self) -> int:
        """Counts the replicas that work."""
        return sum(
            kept.report is not None and kept.failure is None and not kept.is_leaving for kept in self.view.replicas
        )

    @property
    def state(self) -> str:
        """Says ``ready`` (all that will come are there), ``starting``, ``failed`` (none works) or ``ending``."""
        if self.view.is_ending:
            return "ending"
        if any(kept.report is None and kept.failure is None for kept in self.view.replicas):
            return "starting"
        return "ready" if self.ready else "failed"


def open_named(name: str, workload: RequestWorkload, model_name: str, options: PoolOptions) -> OpenPool:
    """Opens a pool that other processes can find.

    Raises:
        ConfigError: as ``open_pool``; the name is taken; the Ray of a detached pool would end with this process.
        ReplicaError: no replica could start.
    """
    with ExitStack() as undo:
        held_session.take(options.address)
        undo.callback(held_session.let_go)
        if options.lifetime is Lifetime.DETACHED:
            _check_that_ray_stays(name)
        if _find(name) is not None:
            raise _taken(name)
        placed = place(options.placement)
        for spec in placed.plan.replicas:
            replica_properties(spec, options)  # refuses here what would fail in the keeper
        record = PoolRecord(
            name=name,
            model_name=model_name,
            opened_by=f"{os.uname().nodename}:{os.getpid()}",
            opened_s=time.time(),
            options=replace(options, trace=None),
            placed=placed,
        )
        keeper = _start_keeper(record, workload)
        undo.pop_all()
    for warning in placed.plan.warnings:
        _log.warning("%s", warning)
    at_close = _AtClose(keeper, _end)
    pool, set_devices = _use(record, options, at_close)
    if options.lifetime is Lifetime.DETACHED:
        at_close.what = _leave
    return OpenPool(pool=pool, plan=placed.plan, set_devices=set_devices)


def attach_pool(name: str, options: AttachOptions | None = None) -> AttachedPool:
    """Uses the replicas of a pool that somebody else opened, beside its other drivers.

    This driver has a scheduler and queue of its own.  Replicas serve their drivers in turns, a request of each, so
    that none can push another aside; how fast they are for this one is learnt from their answers.

    Args:
        name: of the pool.
        options: how to use it; ``None``: as it was opened, in the Ray of this process or the one that runs here.

    Raises:
        ConfigError: there is no such pool; the message lists those that there are.
        ReplicaError: the pool has no replica left.

    Example:
        >>> attached = attach_pool("resnet")  # doctest: +SKIP
    """
    options = options or AttachOptions()
    if not has_ray(options.address):
        raise _no_cluster()
    with ExitStack() as undo:
        held_session.take(options.address)
        undo.callback(held_session.let_go)
        keeper, record = _existing(name)
        opened = record.options
        wanted = replace(
            opened,
            address=options.address,
            policy=options.policy or opened.policy,
            carriers=options.carriers or Carriers.parse(os.environ),
            max_requests=options.max_requests,
            max_bytes=options.max_bytes,
        )
        (where,) = _ask(keeper.workload.remote(), name)
        workload: RequestWorkload = ray.get(where, timeout=KEEPER_TIMEOUT_S)
        undo.pop_all()
    pool, set_devices = _use(record, wanted, _AtClose(keeper, _leave))
    return AttachedPool(
        pool=pool, plan=record.placed.plan, set_devices=set_devices, model=workload.model, options=wanted
    )


def require_cluster(address: str | None = None) -> None:
    """Refuses to look where nothing can be found.

    Raises:
        ConfigError: no Ray runs here, and none was named.
    """
    if not has_ray(address):
        raise _no_cluster()


def list_pools(address: str | None = None) -> tuple[PoolListing, ...]:
    """Returns every pool of a cluster, by name.

    Raises:
        ConfigError: no Ray runs here, or none answers at the address.
        ReplicaError: the keeper of a pool does not answer.
    """
    with _cluster(address):
        return tuple(listing for name in _names() if (listing := _listing(name)) is not None)


def stop_pool(name: str, address: str | None = None) -> None:
    """Ends a pool, whoever opened it, and returns when its replicas have ended and their cores are free.

    Raises:
        ConfigError: there is no such pool; the message lists those that there are.
    """
    with _cluster(address):
        keeper = _find(name)
        if keeper is None:
            raise _unknown(name)
        _end(keeper)
        end_s = time.monotonic() + FORGET_TIMEOUT_S
        while name in _names():
            if time.monotonic() > end_s:
                raise ReplicaError(f"Ray still lists the pool {name!r} {FORGET_TIMEOUT_S:g} s after its end")
            time.sleep(_POLL_S)


def scale_pool(name: str, devices: str, address: str | None = None) -> PoolChange:
    """Gives a pool another device string, whoever opened it; all its drivers follow.

    Returns as soon as it is settled who stays, starts and leaves: those that leave finish what they hold first.

    Raises:
        ConfigError: there is no such pool, or the device string is wrong, means nothing here, or what it means is
            taken; nothing was changed.
        ReplicaError: the pool is ending, or does not answer.
    """
    with _cluster(address):
        keeper, record = _existing(name)
        return _scale(keeper, record, devices)


# --- keepers ------------------------------------------------------------------------------------------------


def _start_keeper(record: PoolRecord, workload: RequestWorkload) -> Any:
    common = {"name": _PREFIX + record.name, "namespace": NAMESPACE}
    try:
        if record.options.lifetime is Lifetime.DETACHED:
            keeper = PoolKeeperActor.options(**common, lifetime="detached", resources=_ON_HEAD).remote(
                record, None, settings()
            )
        else:
            own_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            keeper = PoolKeeperActor.options(**common, scheduling_strategy=own_node).remote(
                record, this_process(), settings()
            )
    except ValueError as error:  # somebody was faster
        raise _taken(record.name) from error
    with ExitStack() as undo:
        undo.callback(ray.kill, keeper, no_restart=True)
        try:
            ray.get(keeper.start.remote(workload), timeout=KEEPER_TIMEOUT_S)
        except RayError as error:
            raise ReplicaError(f"the keeper of the pool {record.name!r} did not start: {error}") from error
        undo.pop_all()
    return keeper


@dataclass(slots=True)
class _AtClose:
    """Says what closing a pool does to its keeper."""

    keeper: Any
    what: Callable[[Any], None]

    def __call__(self) -> None:
        self.what(self.keeper)


def _scale(keeper: Any, record: PoolRecord, devices: str) -> PoolChange:
    name, timeout_s = record.name, SCALE_TIMEOUT_S + record.options.placement.lease_timeout_s
    try:
        change: PoolChange = ray.get(keeper.set_devices.remote(devices), timeout=timeout_s)
    except RayTaskError as error:
        if isinstance(error.cause, OvrayError):
            raise error.cause from None
        raise ReplicaError(f"the keeper of the pool {name!r} failed: {error.cause}; see its log") from error
    except RayError as error:
        raise ReplicaError(f"the keeper of the pool {name!r} does not answer: {error}") from error
    return change


def _use(
    record: PoolRecord, options: PoolOptions, at_close: _AtClose
) -> tuple[RequestPool, Callable[[str], None]]:
    """Makes a pool of a keeper's replicas, and waits for the first of them; also what gives it other devices."""
    transports: list[SharedTransport] = []

    def transport(outlet: Outlet, client: str) -> SharedTransport:
        transports.append(SharedTransport(outlet, client, at_close.keeper, record, options, at_close))
        return transports[-1]

    def set_devices(devices: str) -> None:
        for warning in _scale(at_close.keeper, record, devices).warnings:
            _log.warning("%s", warning)
        for each in transports:
            each.look_now()

    with ExitStack() as undo:
        undo.callback(held_session.let_go)
        undo.callback(at_close)
        pool = make_pool(options, transport, lambda _: _upkeep(options), record.model_name)
        undo.pop_all()
    with ExitStack() as undo:
        undo.callback(pool.close)
        pool.start(map(start_of(options), record.placed.plan.replicas))
        undo.pop_all()
    return pool, set_devices


def _upkeep(options: PoolOptions) -> Upkeep:
    """Looks after replicas for this driver only: hosts that join are the keeper's to look at."""
    silence_s = options.placement.replica_timeout_s
    return Upkeep(silence_timeout_s=silence_s, head_timeout_s=silence_s)


def _end(keeper: Any) -> None:
    """Ends a keeper after its replicas; one that is gone already does no harm."""
    try:
        ray.get(keeper.stop.remote(), timeout=STOP_TIMEOUT_S + LOOK_TIMEOUT_S)
    except RayActorError:
        return
    except RayError:
        pass  # it hangs, and so ends without a word; its replicas end with it
    ray.kill(keeper, no_restart=True)


def _leave(keeper: Any) -> None:
    """Ends nothing: the keeper and its replicas are others', too."""


def _find(name: str) -> Any:
    try:
        return ray.get_actor(_PREFIX + name, namespace=NAMESPACE)
    except ValueError:
        return None


def _existing(name: str) -> tuple[Any, PoolRecord]:
    keeper = _find(name)
    if keeper is None:
        raise _unknown(name)
    return keeper, _ask(keeper.record.remote(), name)


def _ask(answer: Any, name: str) -> Any:
    try:
        return ray.get(answer, timeout=KEEPER_TIMEOUT_S)
    except RayError as error:
        raise ReplicaError(f"the keeper of the pool {name!r} does not answer: {error}") from error


def _names() -> list[str]:
    found: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    return sorted(
        actor["name"].removeprefix(_PREFIX)
        for actor in found
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(_PREFIX)
    )


def _listing(name: str) -> PoolListing | None:
    """Asks a keeper; ``None`` where it has ended meanwhile."""
    keeper = _find(name)
    if keeper is None:
        return None
    try:
        record: PoolRecord = ray.get(keeper.record.remote(), timeout=LOOK_TIMEOUT_S)
        view: PoolView = ray.get(keeper.look.remote(), timeout=LOOK_TIMEOUT_S)
        served = [kept.actor.served.remote() for kept in view.replicas if kept.report and kept.actor]
        return PoolListing(record=record, view=view, requests_served=_sum(served))
    except RayActorError:
        return None
    except RayError as error:
        raise ReplicaError(f"the keeper of the pool {name!r} does not answer: {error}") from error


def _sum(counts: list[Any]) -> int | None:
    try:
        told: list[int] = ray.get(counts, timeout=LOOK_TIMEOUT_S)
    except RayError:
        return None
    return sum(told)


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connects to a cluster that is there; starts none, for one that was just started has no pools."""
    if not has_ray(address):
        raise _no_cluster()
    with ray_session(address):
        yield


def _check_that_ray_stays(name: str) -> None:
    node = global_worker.node
    if node is not None and node.is_head():
        raise ConfigError(
            f"the pool {name!r} is to be detached, but the Ray of this process ends with it; nothing was started;"
            " start one with `ray start --head` and give its address, or leave the lifetime out"
        )


def _no_cluster() -> ConfigError:
    return ConfigError(
        "no Ray runs on this machine, and no address was given: there are no pools; give the HOST:PORT of the"
        " cluster's head with --address or in RAY_ADDRESS"
    )


def _taken(name: str) -> ConfigError:
    return ConfigError(
        f"there is a pool {name!r} already; nothing was started; use its replicas with ovray.attach({name!r}),"
        f" take another name, or end it with `ovray stop {name}`"
    )


def _unknown(name: str) -> ConfigError:
    there = ", ".join(map(repr, _names())) or "none"
    return ConfigError(
        f"there is no pool {name!r} in this cluster; there are: {there}; `ovray pools` shows them, and"
        " compile_model(..., name=...) opens one"
    )
