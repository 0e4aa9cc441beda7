"""Opens a pool of replicas for requests: connects to Ray, lays out, starts.

May not enter: requests, OpenVINO's objects other than the model to pack.  Pools that other processes can find:
named_pools.py.
"""

import logging
import os
import threading
from contextlib import ExitStack
from dataclasses import replace

import openvino as ov

from ovray.devices.records import Hint
from ovray.driver.assembly import OpenPool, make_pool, start_of
from ovray.driver.named_pools import open_named
from ovray.driver.newcomers import upkeep_of
from ovray.driver.placement import place
from ovray.driver.pool import RequestPool
from ovray.driver.pool_options import Carriers, PoolOptions, serving_order
from ovray.driver.session import held_session
from ovray.driver.transport import Outlet, RayTransport
from ovray.replica.model import pack
from ovray.replica.workload import Batching, Merging, RequestWorkload

_log = logging.getLogger(__name__)

__all__ = ["Carriers", "OpenPool", "PoolOptions", "open_pool"]


def open_pool(model: ov.Model, options: PoolOptions) -> OpenPool:
    """Starts replicas of a model and returns when the first of them is ready; the others join as they come.

    Args:
        model: is packed as it is now; what its owner does to it later changes nothing.
        options: which devices, and how.  With a name, other processes can use the replicas, too: ``attach_pool``.

    Raises:
        ConfigError: the device string is wrong or means nothing here, Ray has too few CPUs, no device can run the
            model, or there is a pool of that name already.
        ReplicaError: no replica could start.
    """
    workload = RequestWorkload(model=pack(model), batching=_batching(options))
    if options.name is not None:
        return open_named(options.name, workload, model.get_friendly_name(), options)
    with ExitStack() as undo:
        held_session.take(options.address)
        undo.callback(held_session.let_go)
        placed = place(options.placement)
        pool = make_pool(
            options,
            lambda outlet, client: _own_replicas(outlet, client, workload, options),
            lambda inbox: upkeep_of(options.placement, placed, start_of(options), inbox),
            model.get_friendly_name(),
        )
        undo.pop_all()
    for warning in placed.plan.warnings:
        _log.warning("%s", warning)
    with ExitStack() as undo:
        undo.callback(pool.close)
        pool.start(map(start_of(options), placed.plan.replicas))
        undo.pop_all()
    return OpenPool(pool=pool, plan=placed.plan, set_devices=_Rearranging(pool, options))


class _Rearranging:
    """Gives a pool of this process's own other devices, one change at a time."""

    def __init__(self, pool: RequestPool, options: PoolOptions) -> None:
        self._pool = pool
        self._options = options
        self._changing = threading.Lock()

    def __call__(self, devices: str) -> None:
        with self._changing:
            placement = self._options.placement.with_devices(devices)
            placed = place(placement, self._pool.snapshot().present)
            options = replace(self._options, placement=placement)
            start = start_of(options)
            self._pool.rearrange(
                tuple(map(start, placed.plan.replicas)),
                serving_order(options),
                lambda inbox: upkeep_of(placement, placed, start, inbox),
            )
            self._options = options
        for warning in placed.plan.warnings:
            _log.warning("%s", warning)


def _own_replicas(outlet: Outlet, client: str, workload: RequestWorkload, options: PoolOptions) -> RayTransport:
    transport = RayTransport(
        outlet,
        owner=f"ovray pool, driver pid {os.getpid()}",
        lease_timeout_s=options.placement.lease_timeout_s,
        client=client,
    )
    transport.put(workload, None)
    return transport


def _batching(options: PoolOptions) -> Batching:
    """Turns joining off where every request is to be answered as soon as it can be."""
    if options.placement.hint is Hint.LATENCY:
        return Batching(merging=Merging.NEVER)
    return options.batching
