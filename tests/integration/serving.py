"""Serves requests in this process, with real OpenVINO and no Ray, for tests of what a replica does with them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import openvino as ov

from ovray.replica.envelope import Envelope, Reply, Request
from ovray.replica.model import pack
from ovray.replica.openvino_requests import OpenVINORequests
from ovray.replica.request_engine import Inferred, Lane, RequestEngine
from ovray.replica.serving import RequestServer
from ovray.replica.workload import Batching, Merging, RequestWorkload
from tests.waiting import DEADLINE_S

#: No batches, and the same numbers on every machine.
ALONE = Batching(merging=Merging.NEVER)
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def an_engine(model: ov.Model, batching: Batching = ALONE, **properties: str) -> OpenVINORequests:
    return OpenVINORequests(RequestWorkload(model=pack(model), batching=batching), "CPU", {**F32, **properties})


@contextmanager
def a_server(engine: RequestEngine, batching: Batching = ALONE) -> Iterator[RequestServer]:
    server = RequestServer(engine, batching)
    server.start()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def serving(model: ov.Model, batching: Batching = ALONE, **properties: str) -> Iterator[RequestServer]:
    with a_server(an_engine(model, batching, **properties), batching) as server:
        yield server


class HeldEngine:
    """A real engine whose inferences begin only once ``let_go`` was called."""

    def __init__(self, engine: OpenVINORequests) -> None:
        self._engine = engine
        self._gate = threading.Event()
        self.lanes = [_HeldLane(lane, self._gate) for lane in engine.lanes]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def let_go(self) -> None:
        self._gate.set()


class _HeldLane:
    def __init__(self, lane: Lane, gate: threading.Event) -> None:
        self._lane = lane
        self._gate = gate
        self.blame = lane.blame

    def infer(self, requests: Sequence[Request]) -> Inferred:
        assert self._gate.wait(DEADLINE_S), "nobody let go"
        return self._lane.infer(requests)


def an_envelope(inputs: Sequence[Sequence[Any]], client: str = "a driver", first: int = 0) -> Envelope:
    """One request for each list of input arrays, numbered from ``first``."""
    return Envelope(
        client=client,
        requests=tuple(
            Request(dispatch=number, tensors=tuple(np.asarray(array) for array in arrays))
            for number, arrays in enumerate(inputs, first)
        ),
    )


class Answers:
    """Collects replies as they come, from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._replies: list[Reply] = []

    def __call__(self, replies: Sequence[Reply]) -> None:
        with self._changed:
            self._replies += replies
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[Reply]:
        """Waits for so many replies and returns them as they came."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._replies) >= count, DEADLINE_S), "no answer in time"
            return list(self._replies)


def plain_openvino(model: ov.Model, **properties: str) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Returns what answers one request as plain OpenVINO does."""
    compiled = ov.Core().compile_model(model, "CPU", {**F32, **properties})
    request = compiled.create_infer_request()

    def infer(tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        results = request.infer(list(tensors))
        return [results[index].copy() for index in range(len(model.outputs))]

    return infer


def alone(model: ov.Model, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What plain OpenVINO gives for one request."""
    return plain_openvino(model)(tensors)
