"""Stands in for a device that one does not have: takes the time it would take, burns no CPU, answers with zeros.

May not enter: ray, openvino devices.  Settings: ``SIM?ms=5&nireq=2&compile_s=3&jitter=0.1``; what ``answer`` and
``trouble`` mean: sim_behaviour.py.
"""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ovray.errors import ConfigError, ReplicaError
from ovray.replica.element_types import zeros
from ovray.replica.engine import Answer, EngineInfo, Slot, Tensors
from ovray.replica.signature import Port, Signature
from ovray.replica.sim_behaviour import SimAnswer, Trouble, check_summable, filled, row_sums
from ovray.replica.sim_pace import Pace
from ovray.replica.slots import SLOTS_AHEAD, SlotPool


@dataclass(frozen=True, slots=True, kw_only=True)
class SimSettings:
    """Says how fast a simulated device is."""

    #: Time per row; a request of n rows takes n times that.
    ms: float = 1.0
    #: Requests that run side by side; the rate is 1000 * nireq / ms rows per second.
    nireq: int = 1
    compile_s: float = 0.0
    #: Standard deviation of the times over their mean.
    jitter: float = 0.0
    answer: SimAnswer = SimAnswer.ZEROS
    #: The file that says what troubles the device; see ``Trouble``.
    trouble: Path | None = None

    @staticmethod
    def parse(properties: Mapping[str, str]) -> "SimSettings":
        """Reads the settings of a device entry.

        Raises:
            ConfigError: a setting is unknown or is no number in its range.
        """
        known = {
            "ms": float,
            "nireq": int,
            "compile_s": float,
            "jitter": float,
            "answer": SimAnswer,
            "trouble": Path,
        }
        values: dict[str, Any] = {}
        for key, text in properties.items():
            if key not in known:
                raise ConfigError(f"SIM has no setting {key!r}; it has {', '.join(known)}")
            try:
                values[key] = known[key](text)
            except ValueError as error:
                raise ConfigError(f"SIM?{key}={text}: {text!r} is none of its values") from error
            if key in ("answer", "trouble"):
                continue
            if values[key] < 0 or (key in ("ms", "nireq") and values[key] == 0):
                raise ConfigError(f"SIM?{key}={text}: must be positive")
        return SimSettings(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SimSlot:
    inputs: Tensors


class SimEngine:
    """Is a device that sleeps; see ``Engine``."""

    def __init__(self, signature: Signature, settings: SimSettings, batch_rows: int, seed: str) -> None:
        """Takes its start-up time.

        Args:
            signature: of a model with static shapes.
            settings: how fast to be.
            batch_rows: rows that one inference takes at the most.
            seed: decides the jitter.
        """
        if settings.answer is SimAnswer.SUM:
            check_summable(signature)
        time.sleep(settings.compile_s)
        self._settings = settings
        self._trouble = Trouble(settings.trouble)
        self._ports = signature.outputs
        self._random = random.Random(seed)
        self._outputs = {port.name: _zeros(port) for port in signature.outputs}
        slots = [
            _SimSlot(inputs={port.name: _zeros(port) for port in signature.inputs})
            for _ in range(settings.nireq + SLOTS_AHEAD)
        ]
        self._slots = SlotPool(slots)
        self._threads = ThreadPoolExecutor(max_workers=settings.nireq, thread_name_prefix="sim")
        #: Of each thread, which plays an infer request.
        self._paces: defaultdict[int, Pace] = defaultdict(Pace)
        self._info = EngineInfo(
            nireq=settings.nireq,
            batch_rows=batch_rows,
            streams=settings.nireq,
            threads=0,
            precision="f32",
            execution_devices=("SIM",),
            compile_s=settings.compile_s,
            first_inference_ms=settings.ms * batch_rows,
            rate_rows_per_s=1000 * settings.nireq / settings.ms,
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    def acquire(self, timeout_s: float | None = None) -> Slot:
        return self._slots.acquire(timeout_s)

    def give_back(self, slot: Slot) -> None:
        assert isinstance(slot, _SimSlot)
        self._slots.give_back(slot)

    def start(self, slot: Slot, rows: int, answer: Answer) -> None:
        assert isinstance(slot, _SimSlot)
        factor = max(0.0, self._random.gauss(1.0, self._settings.jitter))
        self._slots.started()
        self._threads.submit(self._infer, slot, answer, rows * self._settings.ms / 1000 * factor)

    def busy_s(self) -> float:
        return self._slots.busy_s()

    def close(self) -> None:
        self._slots.wait_all_idle()
        self._threads.shutdown()

    def _infer(self, slot: _SimSlot, answer: Answer, seconds: float) -> None:
        outputs: Tensors | None = None
        failure: Exception | None = None
        try:
            seconds /= self._trouble.speed()
            now_s = time.monotonic()
            time.sleep(max(0.0, self._paces[threading.get_ident()].done_at_s(now_s, seconds) - now_s))
            outputs = self._outputs_of(slot)
        except ReplicaError as error:
            failure = error
        self._slots.ended()
        try:
            answer(outputs, failure)
        finally:
            self._slots.give_back(slot)

    def _outputs_of(self, slot: _SimSlot) -> Tensors:
        if self._settings.answer is SimAnswer.ZEROS:
            return self._outputs
        sums = row_sums(list(slot.inputs.values()), self._info.batch_rows)
        return {port.name: filled(port, self._outputs[port.name].shape, sums) for port in self._ports}


def _zeros(port: Port) -> NDArray[Any]:
    shape = tuple(1 if dimension is None else dimension for dimension in port.shape or ())
    return zeros(port.element_type, shape)
