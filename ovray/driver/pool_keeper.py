"""Keeps a named pool: the Ray actor that starts its replicas, knows them, and ends them.

Every driver of the pool, also the one that opened it, asks the keeper for the replicas and sends its requests to
them directly.  Replicas are the keeper's children: whatever ends it ends them, and so nothing holds cores that
nobody could find.  A detached keeper lives until it is stopped or the cluster ends; others end with their driver.

May not enter: requests, scheduling.  Who finds keepers: named_pools.py.
"""

import contextlib
import logging
import queue
import threading
import time
from dataclasses import replace
from typing import Any

import ray

from ovray.core.snapshot import Snapshot
from ovray.devices.records import ReplicaSpec
from ovray.driver.assembly import start_of
from ovray.driver.lifecycle import ReplicaSet
from ovray.driver.messages import Started
from ovray.driver.newcomers import upkeep_of
from ovray.driver.placement import place
from ovray.driver.pool_record import KeptReplica, PoolChange, PoolRecord, PoolView
from ovray.driver.retirement import Retirement
from ovray.driver.transport import Inbox, RayTransport
from ovray.errors import ReplicaError
from ovray.logs import LogSettings, follow
from ovray.replica.orphans import ProcessIdentity, end_with
from ovray.replica.workload import RequestWorkload

_log = logging.getLogger(__name__)

#: How often replicas are looked for that do not start in time, or are to be started again.
TICK_S = 0.25

#: What ending the replicas may take: they say that their cores are free, and Ray that their CPUs are.
STOP_TIMEOUT_S = 20.0

#: The keeper gives no work, so no replica can be silent over any.
_NO_WORK = Snapshot(now_s=0.0, replicas=(), jobs=(), requests_waiting=0, submitters_waiting=0, counters={})


class PoolKeeper:
    """Owns the replicas of one pool.  ``PoolKeeperActor`` is its remote form."""

    def __init__(self, record: PoolRecord, owner: ProcessIdentity | None, logs: LogSettings | None = None) -> None:
        """Stores; ``start`` acts.

        Args:
            record: what the pool is.
            owner: the process to end with; ``None`` for a detached pool.
            logs: how the driver that opened it logs; ``None`` leaves logging as Ray has it.
        """
        if logs is not None:
            follow(replace(logs, fields={"process": f"pool {record.name}"}))
        if owner is not None:
            end_with(owner)
        self._record = record
        self._workload: Any = None
        self._inbox: Inbox = Inbox()
        self._transport = RayTransport(
            self._inbox,
            owner=f"ovray pool {record.name!r}",
            lease_timeout_s=record.options.placement.lease_timeout_s,
        )
        start = start_of(record.options)
        self._starts = tuple(map(start, record.placed.plan.replicas))
        upkeep = upkeep_of(record.options.placement, record.placed, start, self._inbox)
        self._replicas = ReplicaSet(self._transport, upkeep=upkeep)
        self._retirement = Retirement(
            lambda replica: self._transport.ask(replica, "retire"), record.options.placement.replica_timeout_s
        )
        #: Guards the replicas, and the end.
        self._changing = threading.Lock()
        self._is_ending = False
        self._thread = threading.Thread(target=self._follow, name="ovray-keeper", daemon=True)

    @ray.method(concurrency_group="life")
    def start(self, workload: RequestWorkload) -> None:
        """Starts the replicas; returns before they are ready.

        The model is put into the object store by this process and stays there for as long as it lives; hosts get
        it once each.
        """
        with self._changing:
            self._workload = self._transport.put(workload, None)
            self._replicas.start(self._starts)
        self._thread.start()

    @ray.method(concurrency_group="changes")
    def set_devices(self, devices: str) -> PoolChange:
        """Gives the pool another device string: starts what is missing, and leads out what is wanted no more.

        Raises:
            ConfigError: it is wrong, means nothing here, or what it means is taken; nothing was changed.
            ReplicaError: the pool is ending.
        """
        with self._changing:
            present = self._replicas.present
        placement = self._record.options.placement.with_devices(devices)
        placed = place(placement, present)
        options = replace(self._record.options, placement=placement)
        start = start_of(options)
        starts = tuple(map(start, placed.plan.replicas))
        upkeep = upkeep_of(placement, placed, start, self._inbox)
        with self._changing:
            if self._is_ending:
                raise ReplicaError(f"the pool {self._record.name!r} is ending; nothing was changed")
            self._replicas.rearrange(starts, upkeep)
            self._record = replace(self._record, options=options, placed=placed, changes=self._record.changes + 1)
        for warning in placed.plan.warnings:
            _log.warning("%s", warning)
        before = {spec.id for spec in present.staying}
        wanted = [spec.id for spec in placed.plan.replicas]
        return PoolChange(
            stay=tuple(id for id in wanted if id in before),
            start=tuple(id for id in wanted if id not in before),
            leave=tuple(spec.id for spec in present.staying if spec.id not in wanted),
            warnings=placed.plan.warnings,
        )

    @ray.method(concurrency_group="looks")
    def record(self) -> PoolRecord:
        """Says what the pool is."""
        return self._record

    @ray.method(concurrency_group="looks")
    def workload(self) -> "list[ray.ObjectRef[RequestWorkload]]":
        """Returns where the model is; in a list, so that it does not travel with the answer."""
        return [self._workload]

    @ray.method(concurrency_group="looks")
    def look(self) -> PoolView:
        """Says how the replicas stand."""
        with self._changing:
            return PoolView(
                replicas=tuple(map(self._kept, self._replicas.specs)),
                is_ending=self._is_ending,
                changes=self._record.changes,
                devices=self._record.options.placement.devices,
            )

    @ray.method(concurrency_group="life")
    def stop(self) -> None:
        """Ends the replicas, and returns when what they held is free.  The caller ends the keeper itself."""
        with self._changing:
            self._is_ending = True
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def _follow(self) -> None:
        """Is the life of the keeper's thread."""
        while not self._is_ending:
            message = None
            with contextlib.suppress(queue.Empty):
                message = self._inbox.get(timeout=TICK_S)
            with self._changing:
                if message is not None:
                    self._replicas.take(message)
                    if isinstance(message, Started) and message.replica in self._replicas.running:
                        self._transport.attend(message.replica)
                self._replicas.look_after(_NO_WORK)
                for replica in self._retirement.look(self._replicas.dismissed, time.monotonic()):
                    self._replicas.released(replica)
        self._replicas.close()
        self._transport.close()

    def _kept(self, spec: ReplicaSpec) -> KeptReplica:
        runs = spec.id in self._replicas.running
        return KeptReplica(
            spec=spec,
            actor=self._transport.actor(spec.id) if runs else None,
            life=self._replicas.life(spec.id),
            report=self._replicas.reports[spec.id] if runs else None,
            failure=self._replicas.given_up.get(spec.id),
            is_leaving=spec.id in self._replicas.dismissed,
        )


# Ray's annotations do not know concurrency_groups.
_remote: Any = ray.remote
PoolKeeperActor: Any = _remote(
    concurrency_groups={"life": 1, "looks": 4, "changes": 1}, num_cpus=0, max_restarts=0, max_task_retries=0
)(PoolKeeper)
