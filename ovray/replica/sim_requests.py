"""Answers requests as a device that one does not have: takes the time it would take, and gives zeros or sums.

May not enter: ray, openvino devices.  Settings: sim_engine.py.  Requests are not joined: a simulated row takes its
time in every company.
"""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

from ovray.errors import ConfigError, ReplicaError
from ovray.replica.element_types import PACKED_TYPES, zeros
from ovray.replica.engine import EngineInfo
from ovray.replica.envelope import Request, TensorShape
from ovray.replica.joining import Joining
from ovray.replica.request_check import check, shape_of, zeros_for
from ovray.replica.request_engine import InferenceFailedError, Inferred, Lane, Outputs
from ovray.replica.signature import Port, Signature
from ovray.replica.sim_behaviour import SimAnswer, Trouble, check_summable, filled, row_sums
from ovray.replica.sim_engine import SimSettings
from ovray.replica.sim_pace import Pace


class SimRequests:
    """Is a device that sleeps; see ``RequestEngine``."""

    def __init__(self, signature: Signature, settings: SimSettings, seed: str) -> None:
        """Takes its start-up time.

        Args:
            signature: of the model.  Where the first dimension of an output is open it has the request's rows;
                other open dimensions are 1.
            settings: how fast to be.
            seed: decides the jitter.
        """
        if settings.answer is SimAnswer.SUM:
            check_summable(signature)
        time.sleep(settings.compile_s)
        self._signature = signature
        self._settings = settings
        self._trouble = Trouble(settings.trouble)
        self._random = random.Random(seed)
        self._drawing = threading.Lock()
        self._lanes = [_SimLane(self) for _ in range(settings.nireq)]
        self._info = EngineInfo(
            nireq=settings.nireq,
            batch_rows=1,
            streams=settings.nireq,
            threads=0,
            precision="f32",
            execution_devices=("SIM",),
            compile_s=settings.compile_s,
            first_inference_ms=settings.ms,
            rate_rows_per_s=1000 * settings.nireq / settings.ms,
            model_name=signature.name,
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def joining(self) -> Joining | None:
        return None

    @property
    def lanes(self) -> Sequence[Lane]:
        return self._lanes

    def check(self, request: Request) -> None:
        check(request, self._signature)

    def sample(self) -> Request:
        shapes = tuple(_shape(port, rows=1) for port in self._signature.inputs)
        return zeros_for(self._signature.inputs, shapes)

    def read_property(self, name: str) -> Any:
        known = {
            "NETWORK_NAME": self._signature.name,
            "EXECUTION_DEVICES": ["SIM"],
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS": self._settings.nireq,
        }
        if name not in known:
            raise ConfigError(f"a simulated device has no property {name!r}; it has {', '.join(known)}")
        return known[name]

    def export_model(self) -> bytes:
        raise ConfigError("a simulated device compiles nothing that could be exported; ask a real one")

    def seconds_for(self, rows: int) -> float:
        """Draws how long an inference of so many rows takes; does not return while the device hangs.

        Raises:
            InferenceFailedError: the device fails just now.
        """
        try:
            speed = self._trouble.speed()
        except ReplicaError as error:
            raise InferenceFailedError(str(error)) from error
        with self._drawing:
            factor = max(0.0, self._random.gauss(1.0, self._settings.jitter))
        return rows * self._settings.ms / 1000 * factor / speed

    def rows_of(self, request: Request) -> int:
        """Counts the rows of a request: the length of an input's first dimension where that is open."""
        for index, port in enumerate(self._signature.inputs):
            shape = shape_of(request, index)
            if shape and (not port.shape or port.shape[0] is None):
                return shape[0]
        return 1

    def outputs_of(self, request: Request, rows: int) -> Outputs:
        """Makes what answers a request of so many rows."""
        ports = self._signature.outputs
        shapes = tuple(_shape(port, rows) for port in ports)
        if self._settings.answer is SimAnswer.SUM:
            sums = row_sums(request.tensors, rows)
            return Outputs(tuple(filled(port, shape, sums) for port, shape in zip(ports, shapes, strict=True)))
        packed = any(port.element_type in PACKED_TYPES for port in ports)
        return Outputs(
            tensors=tuple(zeros(port.element_type, shape) for port, shape in zip(ports, shapes, strict=True)),
            shapes=shapes if packed else None,
        )


class _SimLane:
    """Sleeps for one request at a time; see ``Lane``."""

    def __init__(self, engine: SimRequests) -> None:
        self._engine = engine
        self._pace = Pace()

    def infer(self, requests: Sequence[Request]) -> Inferred:
        rows = [self._engine.rows_of(request) for request in requests]
        infer_s = self._engine.seconds_for(sum(rows))
        now_s = time.monotonic()
        time.sleep(max(0.0, self._pace.done_at_s(now_s, infer_s) - now_s))
        outputs = [self._engine.outputs_of(*each) for each in zip(requests, rows, strict=True)]
        return Inferred(outputs, infer_s)

    def blame(self, request: Request, failure: InferenceFailedError) -> Exception:
        return ReplicaError(str(failure))


def _shape(port: Port, rows: int) -> TensorShape:
    dimensions = port.shape if port.shape is not None else (None,)
    return tuple(
        (rows if index == 0 else 1) if dimension is None else dimension
        for index, dimension in enumerate(dimensions)
    )
