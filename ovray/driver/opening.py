"""Opens a pool of replicas for requests: connects to Ray, lays out, starts.

May not enter: requests, OpenVINO's objects other than the model to pack.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import openvino as ov

from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler
from ovray.core.settings import SchedulerSettings
from ovray.devices.records import Hint, Plan, ReplicaSpec
from ovray.driver.messages import ReplicaStart
from ovray.driver.placement import PlacementOptions, place
from ovray.driver.pool import RequestPool
from ovray.driver.room import Room
from ovray.driver.session import held_session
from ovray.driver.transport import Inbox, RayTransport
from ovray.replica.model import pack
from ovray.replica.properties import compile_properties
from ovray.replica.workload import Batching, Merging, RequestWorkload

#: Requests that may wait or run at once before submitters wait, and the bytes of their inputs.
MAX_REQUESTS = 10_000
MAX_BYTES = 1 << 30


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
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES


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
        plan = place(options.placement)
        inbox: Inbox = Inbox()
        transport = RayTransport(
            inbox,
            owner=f"ovray pool of {model.get_friendly_name()}, driver pid {os.getpid()}",
            lease_timeout_s=options.placement.lease_timeout_s,
        )
        transport.put(workload, None)
    except BaseException:
        held_session.let_go()
        raise
    pool = RequestPool(
        # Who submits waits for room before the scheduler hears of it, so its own bound never comes into play.
        Scheduler(
            policy=options.policy, settings=SchedulerSettings(max_waiting_requests=2 * options.max_requests)
        ),
        transport,
        inbox,
        Room(max_requests=options.max_requests, max_bytes=options.max_bytes),
        held_session.let_go,
    )
    try:
        pool.start(
            ReplicaStart(
                spec=spec, properties=compile_properties(spec, {**options.config, **_for_device(spec, options)})
            )
            for spec in plan.replicas
        )
    except BaseException:
        pool.close()
        raise
    return OpenPool(pool=pool, plan=plan)


def _batching(options: PoolOptions) -> Batching:
    """Turns joining off where every request is to be answered as soon as it can be."""
    if options.placement.hint is Hint.LATENCY and options.batching == Batching():
        return Batching(merging=Merging.NEVER)
    return options.batching


def _for_device(spec: ReplicaSpec, options: PoolOptions) -> dict[str, str]:
    names = (spec.openvino_device.split(".")[0], spec.openvino_device, spec.device, f"{spec.host}/{spec.device}")
    merged: dict[str, str] = {}
    for name in names:
        merged |= options.device_config.get(name, {})
    return merged
