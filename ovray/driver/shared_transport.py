"""Reaches the replicas of a named pool: asks its keeper for them, and never ends one of them.

May not enter: decisions, starting replicas (pool_keeper.py).  Requests travel as they do to replicas of one's own.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from ovray.core.ids import ReplicaId
from ovray.devices.records import ReplicaSpec
from ovray.driver.messages import (
    HostsJoined,
    PoolEnded,
    PoolRearranged,
    ReplicaStart,
    Started,
    StartFailed,
)
from ovray.driver.pool_options import Lifetime, PoolOptions, serving_order
from ovray.driver.pool_record import KeptReplica, PoolRecord, PoolView
from ovray.driver.transport import Outlet, RayTransport
from ovray.errors import OvrayError, ReplicaError

#: How often the keeper is asked: while replicas are awaited, and else.  An answer costs it a millisecond.
AWAITING_LOOK_S = 0.1
LOOK_S = 1.0

#: How long a keeper may take to answer before this driver looks again; a busy host is no reason to give up.
ANSWER_TIMEOUT_S = 10.0

#: A replica that this driver gave up and the keeper did not is used again after this time, in which a keeper hears
#: of a process that has ended: work must not be sent to one that is dead twice.
USE_AGAIN_AFTER_S = 10.0


class SharedTransport(RayTransport):
    """Is ``Transport`` for replicas that a keeper owns."""

    def __init__(
        self,
        inbox: Outlet,
        client: str,
        keeper: Any,
        record: PoolRecord,
        options: PoolOptions,
        let_go: Callable[[], None],
    ) -> None:
        """Begins to watch the keeper.

        Args:
            inbox: where answers go.
            client: what replicas know this driver by.
            keeper: Ray's handle of the keeper.
            record: what the pool is.
            options: how this driver uses it.
            let_go: is called when the transport is closed.
        """
        super().__init__(inbox, owner="", lease_timeout_s=0.0, client=client)
        self._outlet = inbox
        self._keeper = keeper
        self._record = record
        self._options = options
        self._let_go = let_go
        self._changes = record.changes
        #: Guards what follows.
        self._changing = threading.Lock()
        #: Replicas that are to be used as soon as they are there, with the life that this driver counts.
        self._awaited: dict[ReplicaId, int] = {}
        #: Those that this driver has heard of.
        self._known = {spec.id for spec in record.placed.plan.replicas}
        #: Which of its lives, as the keeper counts them, was used last, and when it was given up.
        self._used_life: dict[ReplicaId, int] = {}
        self._given_up_s: dict[ReplicaId, float] = {}
        #: Something is put in to have the watcher look at once.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_closed = False
        self._watch_on_cluster.start()
        threading.Thread(target=self._watch_keeper, name="ovray-pool-watch", daemon=True).start()

    def start(self, spec: ReplicaSpec, properties: Mapping[str, str], life: int = 0) -> None:
        """Uses a replica of the pool as soon as it is there."""
        with self._changing:
            self._awaited[spec.id] = life
            self._lives[spec.id] = life
        self._wake.put(None)

    def stop(self, replica: ReplicaId) -> None:
        """Uses a replica no more."""
        with self._changing:
            self._awaited.pop(replica, None)
            if self._actors.pop(replica, None) is not None:
                self._given_up_s[replica] = time.monotonic()

    def close(self) -> None:
        self._watch_on_cluster.stop()
        self._is_closed = True
        self._wake.put(None)
        self._actors.clear()
        self._let_go()

    def explain(self, error: OvrayError) -> OvrayError:
        """Says why the pool ended for this driver: replicas that are gone may be gone with the pool."""
        try:
            view: PoolView = ray.get(self._keeper.look.remote(), timeout=ANSWER_TIMEOUT_S)
        except RayError as lost:
            return self._ended() if isinstance(lost, RayActorError) else error
        return self._ended() if view.is_ending else error

    def _watch_keeper(self) -> None:
        while not self._is_closed:
            try:
                view: PoolView = ray.get(self._keeper.look.remote(), timeout=ANSWER_TIMEOUT_S)
            except RayActorError:
                self._outlet.put(PoolEnded(error=self._ended()))
                return
            except RayError:
                pass  # a late answer, or a head that is restarting: the next look may be luckier
            else:
                if view.is_ending:
                    self._outlet.put(PoolEnded(error=self._ended()))
                    return
                self._take(view)
            self._wait()

    def look_now(self) -> None:
        """Has the keeper asked at once."""
        self._wake.put(None)

    def _take(self, view: PoolView) -> None:
        if view.changes != self._changes:
            self._rearrange(view)
        new = tuple(
            ReplicaStart(spec=kept.spec, properties={})
            for kept in view.replicas
            if kept.spec.id not in self._known and kept.failure is None and not kept.is_leaving
        )
        if new:
            self._known |= {start.spec.id for start in new}
            # The keeper has counted already how many are wanted.
            self._outlet.put(HostsJoined(starts=new, replicas_wanted=len(self._known)))
        for kept in view.replicas:
            self._adopt(kept)

    def _rearrange(self, view: PoolView) -> None:
        """Tells that the pool was given other devices."""
        self._changes = view.changes
        wanted = tuple(
            ReplicaStart(spec=kept.spec, properties={}) for kept in view.replicas if not kept.is_leaving
        )
        self._known = {start.spec.id for start in wanted}
        placement = self._options.placement.with_devices(view.devices)
        order = serving_order(replace(self._options, placement=placement))
        self._outlet.put(PoolRearranged(wanted=wanted, order=order))

    def _adopt(self, kept: KeptReplica) -> None:
        replica = kept.spec.id
        with self._changing:
            life = self._awaited.get(replica)
            if life is None:
                return
            if kept.report is not None and self._may_use(kept):
                self._actors[replica] = kept.actor
                self._used_life[replica] = kept.life
                news: Started | StartFailed = Started(replica=replica, report=kept.report, life=life)
            elif kept.failure is not None:
                news = StartFailed(replica=replica, error=kept.failure, life=life)
            else:
                return
            del self._awaited[replica]
        self._outlet.put(news)

    def _may_use(self, kept: KeptReplica) -> bool:
        if kept.life != self._used_life.get(kept.spec.id):
            return True
        return time.monotonic() - self._given_up_s.get(kept.spec.id, 0.0) > USE_AGAIN_AFTER_S

    def _wait(self) -> None:
        with self._changing:
            pause_s = AWAITING_LOOK_S if self._awaited else LOOK_S
        try:
            self._wake.get(timeout=pause_s)
        except queue.Empty:
            return

    def _ended(self) -> ReplicaError:
        name, opened_by = self._record.name, self._record.opened_by
        if self._record.options.lifetime is Lifetime.DETACHED:
            why = f"somebody stopped it (`ovray stop {name}`), or the host of its keeper is gone"
        else:
            why = f"its owner, {opened_by}, closed it or has ended, or somebody stopped it (`ovray stop {name}`)"
        return ReplicaError(f"the pool {name!r} has ended: {why}; compile the model again, or attach to another")
