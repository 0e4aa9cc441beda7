"""Opens a pool of replicas for requests: connects to Ray, lays out, starts.

May not enter: requests, OpenVINO's objects other than the model to pack.
"""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import openvino as ov

from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler
from ovray.core.settings import SchedulerSettings
from ovray.devices.records import Hint, Plan, ReplicaSpec
from ovray.driver.arena import Arena, ArenaStorage, ProcessStorage
from ovray.driver.host_transport import HostTransport
from ovray.driver.messages import ReplicaStart
from ovray.driver.newcomers import upkeep_of
from ovray.driver.placement import PlacementOptions, place
from ovray.driver.pool import Carriage, RequestPool
from ovray.driver.room import Room
from ovray.driver.session import held_session
from ovray.driver.transport import Inbox, Outlet, RayTransport
from ovray.errors import ConfigError
from ovray.replica.model import pack
from ovray.replica.properties import compile_properties
from ovray.replica.workload import Batching, Merging, RequestWorkload

#: Requests that may wait or run at once before submitters wait, and the bytes of their inputs.
MAX_REQUESTS = 10_000
MAX_BYTES = 1 << 30


class Carriers(Enum):
    """Says what may carry requests to replicas of the driver's own host; those of others get them through Ray."""

    SOCKET = "socket"  # and Ray, where there is none
    RAY = "ray"

    @staticmethod
    def parse(environment: Mapping[str, str]) -> "Carriers":
        """Reads ``OVRAY_TRANSPORT``.

        Raises:
            ConfigError: it is neither ``socket`` nor ``ray``.
        """
        wanted = environment.get("OVRAY_TRANSPORT") or Carriers.SOCKET.value
        if wanted not in {carriers.value for carriers in Carriers}:
            raise ConfigError(f"OVRAY_TRANSPORT is {wanted!r}; set it to 'socket' or 'ray', or not at all")
        return Carriers(wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Says which replicas are wanted, and how they are to serve."""

    placement: PlacementOptions = field(default_factory=PlacementOptions)
    #: OpenVINO properties for every replica.
    config: Mapping[str, str] = field(default_factory=dict)
    #: And for those of one device, by OpenVINO's name or ``host/device``; the more exact name counts more.
    device_config: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    policy: SchedulePolicy = SchedulePolicy.FASTEST_COMPLETION
    batching: Batching = field(default_factory=Batching)
    address: str | None = None
    carriers: Carriers = field(default_factory=lambda: Carriers.parse(os.environ))
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES


_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPool:
    """Is a pool that serves, and the plan that it was started by."""

    pool: RequestPool
    plan: Plan


def open_pool(model: ov.Model, options: PoolOptions) -> OpenPool:
    """Starts replicas of a model and returns when the first of them is ready; the others join as they come.

    Args:
        model: is packed as it is now; what its owner does to it later changes nothing.
        options: which devices, and how.

    Raises:
        ConfigError: the device string is wrong or means nothing here, Ray has too few CPUs, or no device can run
            the model.
        ReplicaError: no replica could start.
    """
    workload = RequestWorkload(model=pack(model), batching=_batching(options))
    held_session.take(options.address)
    try:
        placed = place(options.placement)
        carriage = _carriage(workload, options)
    except BaseException:
        held_session.let_go()
        raise

    def start_of(spec: ReplicaSpec) -> ReplicaStart:
        properties = compile_properties(spec, {**options.config, **_for_device(spec, options)})
        return ReplicaStart(spec=spec, properties=properties)

    pool = RequestPool(
        # Who submits waits for room before the scheduler hears of it, so its own bound never comes into play.
        Scheduler(
            policy=options.policy, settings=SchedulerSettings(max_waiting_requests=2 * options.max_requests)
        ),
        carriage,
        Room(max_requests=options.max_requests, max_bytes=options.max_bytes),
        held_session.let_go,
        upkeep_of(options.placement, placed.found, start_of, carriage.inbox),
    )
    try:
        pool.start(map(start_of, placed.plan.replicas))
    except BaseException:
        pool.close()
        raise
    return OpenPool(pool=pool, plan=placed.plan)


def _carriage(workload: RequestWorkload, options: PoolOptions) -> Carriage:
    inbox: Inbox = Inbox()
    client = f"{os.uname().nodename}:{os.getpid()}:{next(_numbers)}"

    def through_ray(outlet: Outlet) -> RayTransport:
        transport = RayTransport(
            outlet,
            owner=f"ovray pool, driver pid {os.getpid()}",
            lease_timeout_s=options.placement.lease_timeout_s,
            client=client,
        )
        transport.put(workload, None)
        return transport

    if options.carriers is Carriers.RAY:
        return Carriage(client=client, inbox=inbox, transport=through_ray(inbox), storage=ProcessStorage())
    arena = Arena(options.max_bytes)
    transport = HostTransport(inbox, arena, client, through_ray)
    return Carriage(client=client, inbox=inbox, transport=transport, storage=ArenaStorage(arena))


def _batching(options: PoolOptions) -> Batching:
    """Turns joining off where every request is to be answered as soon as it can be."""
    if options.placement.hint is Hint.LATENCY:
        return Batching(merging=Merging.NEVER)
    return options.batching


def _for_device(spec: ReplicaSpec, options: PoolOptions) -> dict[str, str]:
    names = (spec.openvino_device.split(".")[0], spec.openvino_device, spec.device, f"{spec.host}/{spec.device}")
    merged: dict[str, str] = {}
    for name in names:
        merged |= options.device_config.get(name, {})
    return merged
