"""Runs a model on one OpenVINO device: compile, warm up, check what was got, infer.

May not enter: ray, placement.  Whoever makes an engine has pinned the process before (pinning.py): OpenVINO's CPU
plugin reads the process's affinity once, when it is first touched.

Every model runs with static shapes and every request with tensors of its own, filled in place.  That is one copy
in, and it stays clear of a fault of dynamic CPU models, which write a copied input into the array that an earlier
inference had shared.
"""

import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ovray.errors import ReplicaError
from ovray.replica.compiling import compile_for, requests_wanted, text_property, whole_number
from ovray.replica.engine import Answer, EngineInfo, Slot, Tensors
from ovray.replica.model import describe, last_line
from ovray.replica.signature import Port, Signature
from ovray.replica.slots import SLOTS_AHEAD, SlotPool

#: Warm-up: inferences one at a time, then as many rounds of all slots at once; each part ends at this time, too.
_WARM_UP_ROUNDS = 3
_WARM_UP_LIMIT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _RequestSlot:
    request: ov.InferRequest
    inputs: Tensors


class OpenVINOEngine:
    """Owns one compiled model; see ``Engine``."""

    def __init__(self, model: ov.Model, device: str, properties: Mapping[str, str], batch_rows: int) -> None:
        """Compiles and warms up.

        Args:
            model: with static inputs whose first dimension is ``batch_rows``, unless one inference takes one row.
            device: OpenVINO's name, ``CPU`` or ``GPU.0``.
            properties: OpenVINO properties by name.
            batch_rows: rows that one inference takes.

        Raises:
            CompileError: OpenVINO refused the model or a property.
        """
        self._signature = describe(model)
        self._text_inputs = [
            index for index, port in enumerate(self._signature.inputs) if port.element_type == "string"
        ]
        self._compiled, compile_s = compile_for(device, model, properties)
        nireq = requests_wanted(self._compiled, properties)
        # More slots than requests that run, so that the next are filled meanwhile.
        self._slots = SlotPool([self._make_slot() for _ in range(nireq + SLOTS_AHEAD)])
        # A thread a request waits for its end.  OpenVINO's callback would not do: it is never called for an
        # inference that failed, and the slot would be gone.
        self._threads = ThreadPoolExecutor(max_workers=nireq, thread_name_prefix="infer")
        first_inference_ms = self._warm_up_alone()
        self._info = EngineInfo(
            nireq=nireq,
            batch_rows=batch_rows,
            streams=whole_number(self._compiled, "NUM_STREAMS"),
            threads=whole_number(self._compiled, "INFERENCE_NUM_THREADS"),
            precision=text_property(self._compiled, "INFERENCE_PRECISION_HINT"),
            execution_devices=tuple(self._compiled.get_property("EXECUTION_DEVICES")),
            compile_s=compile_s,
            first_inference_ms=first_inference_ms,
            rate_rows_per_s=self._warm_up_full(nireq, batch_rows),
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def signature(self) -> Signature:
        """Describes the compiled model, batch included."""
        return self._signature

    def acquire(self, timeout_s: float | None = None) -> Slot:
        return self._slots.acquire(timeout_s)

    def give_back(self, slot: Slot) -> None:
        assert isinstance(slot, _RequestSlot)
        self._slots.give_back(slot)

    def start(self, slot: Slot, rows: int, answer: Answer) -> None:
        assert isinstance(slot, _RequestSlot)
        for index in self._text_inputs:
            name = self._signature.inputs[index].name
            slot.request.get_input_tensor(index).str_data = slot.inputs[name].tolist()
        self._slots.started()
        self._threads.submit(self._infer, slot, answer)

    def busy_s(self) -> float:
        return self._slots.busy_s()

    def close(self) -> None:
        self._slots.wait_all_idle()
        self._threads.shutdown()

    def _make_slot(self) -> _RequestSlot:
        request = self._compiled.create_infer_request()
        inputs: dict[str, NDArray[Any]] = {}
        for index, port in enumerate(self._signature.inputs):
            tensor = request.get_input_tensor(index)
            # The tensor's own memory, but for text, whose layout NumPy does not share.
            inputs[port.name] = (
                np.empty(tuple(tensor.shape), dtype=object) if port.element_type == "string" else tensor.data
            )
            inputs[port.name].fill("" if port.element_type == "string" else 0)
        return _RequestSlot(request=request, inputs=inputs)

    def _infer(self, slot: _RequestSlot, answer: Answer) -> None:
        outputs: Tensors | None = None
        failure: Exception | None = None
        try:
            slot.request.start_async()
            slot.request.wait()
            outputs = {
                port.name: _contents(slot.request.get_output_tensor(index), port)
                for index, port in enumerate(self._signature.outputs)
            }
        except RuntimeError as error:
            failure = ReplicaError(f"the inference failed: {last_line(error)}")
        self._slots.ended()
        try:
            answer(outputs, failure)
        finally:
            self._slots.give_back(slot)

    def _warm_up_alone(self) -> float:
        slot = self._slots.acquire()
        times_s: list[float] = []
        end_s = time.monotonic() + _WARM_UP_LIMIT_S
        for _ in range(_WARM_UP_ROUNDS):
            began_s = time.monotonic()
            slot.request.infer()
            times_s.append(time.monotonic() - began_s)
            if time.monotonic() > end_s:
                break
        self._slots.give_back(slot)
        return statistics.median(times_s) * 1000

    def _warm_up_full(self, nireq: int, batch_rows: int) -> float:
        began_s = time.monotonic()
        done = 0
        while done < _WARM_UP_ROUNDS * nireq and time.monotonic() - began_s < _WARM_UP_LIMIT_S:
            self.start(self.acquire(), batch_rows, _ignore)
            done += 1
        self._slots.wait_all_idle()
        return done * batch_rows / max(time.monotonic() - began_s, 1e-9)


def _contents(tensor: ov.Tensor, port: Port) -> NDArray[Any]:
    contents: NDArray[Any] = tensor.str_data if port.element_type == "string" else tensor.data
    return contents


def _ignore(outputs: Tensors | None, failure: Exception | None) -> None:
    if failure is not None:
        # The same failure meets the first real inference, where somebody hears of it.
        return
