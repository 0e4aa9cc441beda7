"""Carries requests to replicas of the driver's own host over sockets, and all else through Ray.

May not enter: decisions, what a message says.  Where no socket comes about, Ray carries the requests, too: nobody
above notices but by the clock.
"""

import logging
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import ray

from ovray.core.ids import DispatchId, ReplicaId
from ovray.devices.records import ReplicaSpec
from ovray.driver.arena import Arena
from ovray.driver.local_link import Doorway, LocalLink
from ovray.driver.mailbox import Mailbox
from ovray.driver.messages import Started
from ovray.driver.transport import RayTransport
from ovray.errors import OvrayError
from ovray.replica.envelope import Envelope

_log = logging.getLogger(__name__)


class HostTransport:
    """Is ``Transport`` for requests."""

    def __init__(
        self,
        inbox: Mailbox,
        arena: Arena,
        client: str,
        make_ray_transport: Callable[["StartedTap"], RayTransport],
    ) -> None:
        """Stores.

        Args:
            inbox: where answers go, and whose taker's thread does what is done here.
            arena: where tensors lie that need not travel; is closed with the transport.
            client: what replicas know this driver by.
            make_ray_transport: makes what starts replicas, with this inbox.
        """
        self._inbox = inbox
        self._arena = arena
        self._client = client
        self._ray = make_ray_transport(StartedTap(inbox, self._connect))
        self._own_node: str = ray.get_runtime_context().get_node_id()
        self._specs: dict[ReplicaId, ReplicaSpec] = {}
        self._lives: dict[ReplicaId, int] = {}
        self._doorways: dict[ReplicaId, Doorway] = {}
        self._links: dict[ReplicaId, LocalLink] = {}

    def start(self, spec: ReplicaSpec, properties: Mapping[str, str], life: int = 0) -> None:
        self._specs[spec.id] = spec
        self._lives[spec.id] = life
        self._ray.start(spec, properties, life)

    def send(self, replica: ReplicaId, dispatch: DispatchId, job: int, piece: Any) -> None:
        self._ray.send(replica, dispatch, job, piece)

    def send_requests(self, replica: ReplicaId, envelope: Envelope) -> None:
        link = self._links.get(replica)
        if link is None:
            self._ray.send_requests(replica, envelope)
        else:
            link.send_requests(envelope)

    def cancel(self, replica: ReplicaId, dispatch: DispatchId) -> None:
        link = self._links.get(replica)
        if link is None:
            self._ray.cancel(replica, dispatch)
        else:
            link.cancel(self._client, dispatch)

    def probe(self, replica: ReplicaId) -> None:
        self._ray.probe(replica)

    def ask(self, replica: ReplicaId, question: str, *arguments: Any) -> Future[Any]:
        return self._ray.ask(replica, question, *arguments)

    def stop(self, replica: ReplicaId) -> None:
        self._close_door(replica)
        link = self._links.pop(replica, None)
        if link is not None:
            link.close()
        self._ray.stop(replica)

    def explain(self, error: OvrayError) -> OvrayError:
        return self._ray.explain(error)

    def close(self) -> None:
        for replica in [*self._doorways, *self._links]:
            self._close_door(replica)
            link = self._links.pop(replica, None)
            if link is not None:
                link.close()
        self._ray.close()
        self._arena.close()

    def _connect(self, replica: ReplicaId, life: int) -> None:
        """Opens a door for a replica that has started on this host, and asks it in."""
        if self._specs[replica].node_id != self._own_node or self._lives[replica] != life:
            return
        try:
            doorway = Doorway(self._inbox, lambda connection: self._link(replica, connection))
        except OSError as error:
            _log.warning("no socket for %s (%s); its requests travel through Ray", replica, error)
            return
        self._doorways[replica] = doorway
        self._ray.connect(
            replica, doorway.path, lambda error: self._inbox.put(lambda: self._refuse(replica, error))
        )

    def _link(self, replica: ReplicaId, connection: socket.socket) -> None:
        del self._doorways[replica]
        try:
            self._links[replica] = LocalLink(replica, self._lives[replica], connection, self._inbox, self._arena)
        except OSError as error:
            connection.close()
            _log.warning("no socket for %s (%s); its requests travel through Ray", replica, error)

    def _refuse(self, replica: ReplicaId, error: Exception) -> None:
        if replica in self._doorways:
            self._close_door(replica)
            _log.warning("no socket for %s (%s); its requests travel through Ray", replica, error)

    def _close_door(self, replica: ReplicaId) -> None:
        doorway = self._doorways.pop(replica, None)
        if doorway is not None:
            doorway.close()


class StartedTap:
    """Is an inbox that also tells of replicas that have started."""

    def __init__(self, inbox: Mailbox, on_started: Callable[[ReplicaId, int], None]) -> None:
        self._inbox = inbox
        self._on_started = on_started

    def put(self, note: Any) -> None:
        if isinstance(note, Started):
            # On the driver thread, like all that touches sockets.
            self._inbox.put(lambda: self._on_started(note.replica, note.life))
        self._inbox.put(note)
