"""Answers requests on one OpenVINO device: compile, warm up where shapes allow it, infer, and find faults' causes.

May not enter: ray, queues, placement.  Whoever makes an engine has pinned the process before (pinning.py).

How inputs reach OpenVINO: request_inputs.py.  Outputs are copied out of the infer request's own tensors.
"""

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ovray.errors import ConfigError, DataError, ReplicaError
from ovray.replica.compiling import (
    compile_for,
    plain_property,
    requests_wanted,
    text_property,
    whole_number,
)
from ovray.replica.element_types import PACKED_TYPES, TEXT, packed_bytes, to_text
from ovray.replica.engine import EngineInfo
from ovray.replica.envelope import Request, TensorShape
from ovray.replica.graph_check import GraphCheck
from ovray.replica.joinable import Opened, open_for_joining
from ovray.replica.joining import Joining, split_rows
from ovray.replica.joining_trial import TRIAL_ROWS, joining_pays
from ovray.replica.model import describe, last_line, unpack
from ovray.replica.request_check import check, shape_of, zeros_for
from ovray.replica.request_engine import InferenceFailedError, Inferred, Lane, Outputs
from ovray.replica.request_inputs import RequestInputs
from ovray.replica.signature import Signature
from ovray.replica.workload import Batching, Merging, RequestWorkload

#: Warm-up: inferences one at a time, then as many rounds of all lanes at once; each part ends at this time, too.
_WARM_UP_ROUNDS = 3
_WARM_UP_LIMIT_S = 2.0

#: A model that took longer to compile is not compiled once more only to be a little faster.
_COMPILED_TWICE_BELOW_S = 10.0

#: Inputs that are kept for probes have no more bytes than this.
_SAMPLE_BYTES = 16 << 20


class OpenVINORequests:
    """Owns one compiled model; see ``RequestEngine``."""

    def __init__(self, workload: RequestWorkload, device: str, properties: Mapping[str, str]) -> None:
        """Compiles and warms up.

        Args:
            workload: the model as the user gave it, and how requests are joined.  Where they are, one request may
                have any number of rows, as a joined one has; whoever is in front holds users to their own shapes.
            device: OpenVINO's name, ``CPU`` or ``GPU.0``.
            properties: OpenVINO properties by name.

        Raises:
            CompileError: OpenVINO refused the model or a property.
        """
        model = unpack(workload.model)
        # Requests are joined for the sake of throughput; one that asks for latency is run at once and alone.
        wants_latency = properties.get("PERFORMANCE_HINT") == "LATENCY"
        batching = replace(workload.batching, merging=Merging.NEVER) if wants_latency else workload.batching
        opened = open_for_joining(model, batching)
        self._graph = GraphCheck(workload.model)
        self._device = device
        #: One that was answered once; before that, zeros of the least shapes.
        self._sample = zeros_for(describe(model).inputs, _least_shapes(model))
        self._sample_was_answered = False
        self._compile(opened, properties)
        if self._may_join_in_vain(opened, model, batching) and not self._joining_pays():
            opened = Opened(model, None, opened.verdict)
            self._compile(opened, properties)
        first_inference_ms, rate_rows_per_s = self._warm_up(model)
        self._info = EngineInfo(
            nireq=len(self._lanes),
            batch_rows=1,
            streams=whole_number(self._compiled, "NUM_STREAMS"),
            threads=whole_number(self._compiled, "INFERENCE_NUM_THREADS"),
            precision=text_property(self._compiled, "INFERENCE_PRECISION_HINT"),
            execution_devices=tuple(self._compiled.get_property("EXECUTION_DEVICES")),
            compile_s=self._compile_s,
            first_inference_ms=first_inference_ms,
            rate_rows_per_s=rate_rows_per_s,
            model_name=text_property(self._compiled, "NETWORK_NAME"),
            max_joined_rows=1 if self._joining is None else self._joining.max_rows,
            batch=opened.verdict,
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def joining(self) -> Joining | None:
        return self._joining

    @property
    def lanes(self) -> Sequence[Lane]:
        return self._lanes

    @property
    def signature(self) -> Signature:
        """Describes the model as it was compiled: where requests are joined, its batch dimension is open."""
        return self._signature

    def check(self, request: Request) -> None:
        check(request, self._signature)

    def sample(self) -> Request:
        return self._sample

    def note_good(self, request: Request) -> None:
        """Keeps a copy of the first request that was answered, if it is not large."""
        if self._sample_was_answered or sum(array.nbytes for array in request.tensors) > _SAMPLE_BYTES:
            return
        self._sample_was_answered = True
        self._sample = request._replace(tensors=tuple(array.copy() for array in request.tensors))

    def refusal(self, request: Request) -> str | None:
        """Says why the graph cannot take a request's shapes on any device; ``None`` if it can."""
        return self._graph.refusal(tuple(shape_of(request, index) for index in range(len(request.tensors))))

    def read_property(self, name: str) -> Any:
        return plain_property(self._compiled, name)

    def export_model(self) -> bytes:
        try:
            exported = self._compiled.export_model()
        except RuntimeError as error:
            raise ConfigError(f"the device cannot export the model ({last_line(error)})") from error
        return bytes(exported.getbuffer())

    def _compile(self, opened: Opened, properties: Mapping[str, str]) -> None:
        self._signature = describe(opened.model)
        self._joining = opened.joining
        self._compiled, self._compile_s = compile_for(self._device, opened.model, properties)
        nireq = requests_wanted(self._compiled, properties)
        self.has_one_stream = whole_number(self._compiled, "NUM_STREAMS") == 1
        self._lanes = [
            _OpenVINOLane(self, self._compiled.create_infer_request(), may_lend=self._device == "CPU")
            for _ in range(nireq)
        ]

    def _may_join_in_vain(self, opened: Opened, model: ov.Model, batching: Batching) -> bool:
        """Tells whether requests could be left alone, and the model as fixed as it was."""
        return (
            batching.batch_size == "auto"
            and opened.joining is not None
            and opened.joining.max_rows >= TRIAL_ROWS
            and all(port.get_partial_shape().is_static for port in model.inputs)
            and self._compile_s < _COMPILED_TWICE_BELOW_S
        )

    def _joining_pays(self) -> bool:
        def infer(rows: int) -> float:
            before_s = time.process_time()
            took_s = self._lanes[0].infer([self._sample] * rows).infer_s
            # Of a CPU, neighbours cannot disturb the time that it works.
            return time.process_time() - before_s if self._device == "CPU" else took_s

        try:
            return joining_pays(infer)
        except InferenceFailedError:
            return False

    def _warm_up(self, model: ov.Model) -> tuple[float | None, float | None]:
        """Returns the milliseconds of one inference, and the rows per second of all lanes; each of one request."""
        if not _has_one_shape_a_row(model):
            return None, None
        request = self.sample()
        rows = (self._joining.rows_of(request) if self._joining else None) or 1
        try:
            alone_s = [self._lanes[0].infer([request]).infer_s]
            end_s = time.monotonic() + _WARM_UP_LIMIT_S
            while len(alone_s) < _WARM_UP_ROUNDS and time.monotonic() < end_s:
                alone_s.append(self._lanes[0].infer([request]).infer_s)
            return statistics.median(alone_s) * 1000, rows * self._warm_up_all(request)
        except InferenceFailedError:
            # Zeros need not be legal, as where they are counted or divided by.  Real requests are still to come.
            return None, None

    def _warm_up_all(self, request: Request) -> float:
        """Returns inferences per second with every lane busy."""
        done = []
        began_s = time.monotonic()

        def run(lane: Lane) -> None:
            for _ in range(_WARM_UP_ROUNDS):
                lane.infer([request])
                done.append(lane)
                if time.monotonic() - began_s > _WARM_UP_LIMIT_S:
                    break

        with ThreadPoolExecutor(max_workers=len(self._lanes), thread_name_prefix="warm-up") as threads:
            for running in [threads.submit(run, lane) for lane in self._lanes]:
                running.result()
        return len(done) / max(time.monotonic() - began_s, 1e-9)


class _OpenVINOLane:
    """Is one infer request; see ``Lane``."""

    def __init__(self, engine: OpenVINORequests, request: ov.InferRequest, *, may_lend: bool) -> None:
        self._engine = engine
        self._infer_request = request
        types = {port.element_type for port in engine.signature.outputs}
        self._has_plain_outputs = not types & {TEXT, *PACKED_TYPES}
        self._runs_here = engine.has_one_stream and TEXT not in types
        self._inputs = RequestInputs(request, engine.signature.inputs, may_lend=may_lend)

    def infer(self, requests: Sequence[Request]) -> Inferred:
        try:
            return self._infer(requests)
        except InferenceFailedError:
            self._forget_shapes()
            raise

    def _forget_shapes(self) -> None:
        """Runs other shapes after an inference that failed.

        OpenVINO's CPU plugin (2026.4.1) keeps part of the shapes that did not go together, and then refuses those
        of the last good inference as well, in every infer request, until one of other shapes has run.
        """
        inputs = self._engine.signature.inputs
        if all(port.shape is not None and None not in port.shape for port in inputs):
            return
        for length in (1, 2):
            shapes = tuple(
                tuple(length if size is None else size for size in port.shape or (None,)) for port in inputs
            )
            with contextlib.suppress(InferenceFailedError):
                self._infer([zeros_for(inputs, shapes)])

    def _infer(self, requests: Sequence[Request]) -> Inferred:
        try:
            self._fill(requests)
            began_s = time.monotonic()
            results = self._run()
            infer_s = time.monotonic() - began_s
        except (RuntimeError, TypeError, ValueError) as error:
            # RuntimeError is OpenVINO's; the others come of elements that are no texts, or no UTF-8.
            reason = last_line(error) if isinstance(error, RuntimeError) else str(error)
            raise InferenceFailedError(reason) from error
        if results is not None and len(requests) == 1 and self._has_plain_outputs:
            self._engine.note_good(requests[0])
            return Inferred([Outputs(tensors=tuple([array.copy() for array in results.values()]))], infer_s)
        return Inferred(self._split(requests), infer_s)

    def _run(self) -> dict[Any, NDArray[Any]] | None:
        """Runs the inference; gives its results, as they lie in OpenVINO's memory, where they are known already.

        With one stream, OpenVINO can do so on this thread, which saves two wake-ups.  With several it hands it to
        a thread of the stream's own either way, and ``infer`` only makes a dictionary of the results besides; of
        texts, it makes them twice.
        """
        if self._runs_here:
            # What is above this in OpenVINO only looks for inputs to be set: 15 us.
            base: Any = super(ov.InferRequest, self._infer_request)
            results: dict[Any, NDArray[Any]] = base.infer({}, share_outputs=True, decode_strings=False)
            return results
        self._infer_request.start_async()
        self._infer_request.wait()
        return None

    def blame(self, request: Request, failure: InferenceFailedError) -> Exception:
        """Asks the graph, which needs no device, whether it can take the shapes; then tries the device.

        OpenVINO raises the same RuntimeError for both.
        """
        refusal = self._engine.refusal(request)
        if refusal is not None:
            return _input_error(request, self._engine.signature, refusal)
        try:
            self.infer([self._engine.sample()])
        except InferenceFailedError as second:
            return ReplicaError(
                f"the inference failed ({failure}), and so did one after it that should not ({second}); the device"
                " is taken to be at fault"
            )
        return _input_error(request, self._engine.signature, str(failure))

    def _fill(self, requests: Sequence[Request]) -> None:
        if len(requests) == 1:
            self._inputs.fill(requests[0])
            return
        assert self._engine.joining is not None, "only engines that join get several requests"
        self._inputs.fill_joined(requests, self._engine.joining.input_axes)

    def _split(self, requests: Sequence[Request]) -> list[Outputs]:
        tensors = [
            self._infer_request.get_output_tensor(index) for index in range(len(self._engine.signature.outputs))
        ]
        self._engine.note_good(requests[0])
        if len(requests) == 1:
            return [self._alone(tensors)]
        joining = self._engine.joining
        assert joining is not None, "only engines that join get several requests"
        rows = [joining.rows_of(request) or 0 for request in requests]
        columns = []
        for tensor, axis in zip(tensors, joining.output_axes, strict=True):
            shape = tuple(tensor.shape)
            if len(shape) <= axis or shape[axis] != sum(rows):
                raise InferenceFailedError(
                    f"an output of the shape {list(shape)} for {sum(rows)} rows cannot be split by rows"
                )
            columns.append(split_rows(_contents(tensor), rows, axis))
        return [Outputs(tensors=tuple(parts)) for parts in zip(*columns, strict=True)]

    def _alone(self, tensors: Sequence[ov.Tensor]) -> Outputs:
        if self._has_plain_outputs:
            return Outputs(tensors=tuple(tensor.data.copy() for tensor in tensors))
        packed = any(tensor.element_type.get_type_name() in PACKED_TYPES for tensor in tensors)
        return Outputs(
            tensors=tuple(_contents(tensor).copy() for tensor in tensors),
            shapes=tuple(tuple(tensor.shape) for tensor in tensors) if packed else None,
        )


def _input_error(request: Request, signature: Signature, reason: str) -> DataError:
    inputs = ", ".join(
        f"{port.name!r} {list(shape_of(request, index))}" for index, port in enumerate(signature.inputs)
    )
    return DataError(
        f"the model cannot take these inputs: {inputs} ({reason}); the replica is in good order; change the inputs"
    )


def _contents(tensor: ov.Tensor) -> NDArray[Any]:
    """Returns what a tensor holds: its own memory, but for text."""
    if tensor.element_type == ov.Type.string:
        shape = tuple(tensor.shape)
        return to_text(tensor.bytes_data, shape) if tensor.size else np.empty(shape, dtype=np.object_)
    contents: NDArray[Any] = tensor.data
    name = tensor.element_type.get_type_name()
    if name in PACKED_TYPES:
        # OpenVINO's CPU plugin (2026.4.1) hands u1 out with a byte for each element, most of them unset.
        return contents[: packed_bytes(name, tuple(tensor.shape))]
    return contents


def _least_shapes(model: ov.Model) -> tuple[TensorShape, ...]:
    """Returns the least shapes that the inputs may have, with at least 1 where that is open."""
    return tuple(_least_shape(port.get_partial_shape()) for port in model.inputs)


def _least_shape(shape: ov.PartialShape) -> TensorShape:
    if shape.rank.is_dynamic:
        return (1,)
    return tuple(
        dimension.get_length() if dimension.is_static else max(1, dimension.get_min_length())
        for dimension in shape
    )


def _has_one_shape_a_row(model: ov.Model) -> bool:
    """Tells whether nothing but the first dimension of inputs is open."""
    shapes = [port.get_partial_shape() for port in model.inputs]
    return all(
        shape.rank.is_static and all(dimension.is_static for dimension in list(shape)[1:]) for shape in shapes
    )
