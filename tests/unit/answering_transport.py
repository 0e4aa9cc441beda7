"""A transport whose replicas are threads of the test: each answers requests with their tensors doubled.

It carries what it is given and loses what it is told to lose; it decides nothing.
"""

import queue
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

from ovray.core.ids import DispatchId, ReplicaId
from ovray.devices.records import ReplicaSpec
from ovray.driver.messages import Gone, Replied, Started, StartFailed
from ovray.driver.transport import Inbox
from ovray.errors import DataError, OvrayError, ReplicaError
from ovray.replica.engine import BatchVerdict, EngineInfo
from ovray.replica.envelope import Envelope, Reply, Request
from ovray.replica.workload import ReplicaReport
from tests import waiting


class AnsweringTransport:
    """Is ``Transport`` for requests."""

    def __init__(self, inbox: Inbox, seed: int = 0) -> None:
        self.inbox = inbox
        self.chance = random.Random(seed)
        self.is_closed = False
        #: Replicas that cannot start, and why.
        self.refusing: dict[ReplicaId, Exception] = {}
        #: Replicas whose device fails at everything.
        self.broken: set[ReplicaId] = set()
        #: Held back while set.
        self.hold = threading.Event()
        #: Whatever holds this value ends the replica that gets it.
        self.poison: float | None = None
        #: What replicas say of themselves.
        self.report = a_report()
        self.received: list[tuple[ReplicaId, Request]] = []
        self.cancelled: list[DispatchId] = []
        #: Which start of a replica was the last, counted from 0.
        self.lives: dict[ReplicaId, int] = {}
        self._mail: dict[ReplicaId, queue.SimpleQueue[Envelope | None]] = {}

    def start(self, spec: ReplicaSpec, properties: Mapping[str, str], life: int = 0) -> None:
        self.lives[spec.id] = life
        if spec.id in self.refusing:
            self.inbox.put(StartFailed(replica=spec.id, error=self.refusing[spec.id], life=life))
            return
        self._mail[spec.id] = queue.SimpleQueue()
        threading.Thread(target=self._serve, args=(spec.id,), daemon=True).start()
        self.inbox.put(Started(replica=spec.id, report=self.report, life=life))

    def send_requests(self, replica: ReplicaId, envelope: Envelope) -> None:
        self.received += [(replica, request) for request in envelope.requests]
        if replica in self._mail:
            self._mail[replica].put(envelope)
        else:
            self.inbox.put(Gone(replica=replica, reason="is gone", life=self.lives[replica]))

    def send(self, replica: ReplicaId, dispatch: DispatchId, job: int, piece: Any) -> None:
        raise AssertionError("requests only")

    def cancel(self, replica: ReplicaId, dispatch: DispatchId) -> None:
        self.cancelled.append(dispatch)

    def probe(self, replica: ReplicaId) -> None:
        return

    def ask(self, replica: ReplicaId, question: str, *arguments: Any) -> Future[Any]:
        raise AssertionError("nobody asks")

    def stop(self, replica: ReplicaId) -> None:
        mail = self._mail.pop(replica, None)
        if mail is not None:
            mail.put(None)

    def explain(self, error: OvrayError) -> OvrayError:
        return error

    def close(self) -> None:
        self.is_closed = True
        for replica in list(self._mail):
            self.stop(replica)

    def kill(self, replica: ReplicaId) -> None:
        """Ends a replica with all that it holds, as the kernel would."""
        self.stop(replica)
        self.inbox.put(Gone(replica=replica, reason="was killed", life=self.lives[replica]))

    def _serve(self, replica: ReplicaId) -> None:
        mail = self._mail[replica]
        while (envelope := mail.get()) is not None:
            waiting.until(lambda: self._mail.get(replica) is not mail or not self.hold.is_set())
            time.sleep(self.chance.random() * 0.001)
            if any(
                request.tensors[0].size and (request.tensors[0] == self.poison).any()
                for request in envelope.requests
            ):
                self.kill(replica)
            elif self._mail.get(replica) is mail:
                replies = [self._reply(replica, request) for request in envelope.requests]
                self.inbox.put(Replied(replica=replica, replies=replies))

    def _reply(self, replica: ReplicaId, request: Request) -> Reply:
        error: Exception | None = None
        if replica in self.broken:
            error = ReplicaError("the device is broken")
        elif np.isnan(request.tensors[0]).any():
            error = DataError("the input holds a NaN")
        return Reply(
            dispatch=request.dispatch,
            outputs=None if error else tuple(2 * tensor for tensor in request.tensors),
            error=error,
            queued_s=0.0,
            infer_s=0.0,
            batch_rows=len(request.tensors[0]),
        )


def a_report(*, max_joined_rows: int = 1) -> ReplicaReport:
    axes = (0,) if max_joined_rows > 1 else None
    engine = EngineInfo(
        nireq=2,
        batch_rows=1,
        streams=2,
        threads=1,
        precision="f32",
        execution_devices=("CPU",),
        compile_s=0.0,
        first_inference_ms=1.0,
        rate_rows_per_s=1000.0 * max_joined_rows,
        max_joined_rows=max_joined_rows,
        batch=BatchVerdict(reason="so the test says", input_axes=axes, output_axes=axes),
    )
    return ReplicaReport(pid=0, engine=engine, memory_policy=None, rss_mb=0.0)
