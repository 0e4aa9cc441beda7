"""Puts the parts of a pool together: scheduler, carriers, bounds.

May not enter: where replicas come from (opening.py, named_pools.py), starting anything.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

from ovray.core.scheduler import Scheduler
from ovray.core.settings import SchedulerSettings
from ovray.devices.records import Plan, ReplicaSpec
from ovray.driver.arena import Arena, ArenaStorage, ProcessStorage
from ovray.driver.carriage import Carriage
from ovray.driver.host_transport import HostTransport
from ovray.driver.lifecycle import Upkeep
from ovray.driver.messages import ReplicaStart
from ovray.driver.meter import Figures
from ovray.driver.pool import RequestPool
from ovray.driver.pool_options import Carriers, PoolOptions, replica_properties, serving_order
from ovray.driver.reporter import Reporter
from ovray.driver.room import Room
from ovray.driver.session import held_session
from ovray.driver.spans import spans_if_traced
from ovray.driver.status_board import Board
from ovray.driver.telling import Telling
from ovray.driver.trace import Trace
from ovray.driver.transport import Inbox, Outlet, RayTransport

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPool:
    """Is a pool that serves, and the plan that it was started by."""

    pool: RequestPool
    plan: Plan
    #: Gives the pool another device string; raises ``ConfigError`` where that means nothing, and changes nothing.
    set_devices: Callable[[str], None]


def start_of(options: PoolOptions) -> Callable[[ReplicaSpec], ReplicaStart]:
    """Says how to start a replica, by its place.

    Raises:
        ConfigError: on calling the answer, where a property has no such value.
    """
    return lambda spec: ReplicaStart(spec=spec, properties=replica_properties(spec, options))


def make_pool(
    options: PoolOptions,
    make_transport: Callable[[Outlet, str], RayTransport],
    make_upkeep: Callable[[Outlet], Upkeep],
    model_name: str,
) -> RequestPool:
    """Makes a pool that lets the session go when it is closed; its ``start`` acts.

    Args:
        options: how it is to serve.
        make_transport: makes what reaches the replicas, with an inbox and the name of this client.
        make_upkeep: says how replicas are looked after, with the same inbox.
        model_name: how figures call the model.

    Raises:
        ConfigError: a property has no such value.
    """
    order = serving_order(options)
    inbox: Inbox = Inbox()
    client = f"{os.uname().nodename}:{os.getpid()}:{next(_numbers)}"
    if options.carriers is Carriers.RAY:
        carriage = Carriage(
            client=client, inbox=inbox, transport=make_transport(inbox, client), storage=ProcessStorage()
        )
    else:
        arena = Arena(options.max_bytes)
        transport = HostTransport(inbox, arena, client, lambda outlet: make_transport(outlet, client))
        carriage = Carriage(client=client, inbox=inbox, transport=transport, storage=ArenaStorage(arena))
    pool = RequestPool(
        # Who submits waits for room before the scheduler hears of it, so its own bound never comes into play.
        Scheduler(
            policy=options.policy, settings=SchedulerSettings(max_waiting_requests=2 * options.max_requests)
        ),
        carriage,
        Room(max_requests=options.max_requests, max_bytes=options.max_bytes),
        held_session.let_go,
        order,
        make_upkeep(inbox),
    )
    pool.telling = Telling(
        Reporter(lambda: Board(model_name, "requests")) if options.figures is Figures.ON else None,
        None if options.trace is None else Trace(options.trace, model_name),
        spans_if_traced(model_name),
    )
    return pool
