"""What runs inside a replica, behind one small protocol: slots that are filled with rows, started, and answer.

May not enter: ray, openvino, files.  Behind it: openvino_engine.py (devices), sim_engine.py (rehearsal).
In front of it: whoever has rows, such as scoring's chunks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchVerdict:
    """Says whether each row of a model's outputs depends on the same row of its inputs and on no other."""

    #: For people: what shows that rows are independent, or what joins them.
    reason: str
    #: The dimension of each input that counts the rows; ``None`` where rows may depend on each other.
    input_axes: tuple[int, ...] | None = None
    #: The same of each output.
    output_axes: tuple[int, ...] | None = None

    @property
    def is_independent(self) -> bool:
        """Tells whether rows of several requests may share an inference."""
        return self.input_axes is not None and self.output_axes is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Says what an engine turned out to be, read back from OpenVINO after compiling."""

    #: Infer requests that may run side by side.
    nireq: int
    #: Rows that one inference takes.
    batch_rows: int
    streams: int | None
    threads: int | None
    #: OpenVINO's INFERENCE_PRECISION_HINT, such as ``f32``; empty where the device does not say.
    precision: str
    #: OpenVINO's EXECUTION_DEVICES.
    execution_devices: tuple[str, ...]
    compile_s: float
    #: The warm-up inferences' median, one at a time; ``None`` where open shapes leave nothing to warm up with.
    first_inference_ms: float | None
    #: Rows per second that the warm-up reached with every slot busy; ``None`` as above.
    rate_rows_per_s: float | None
    #: OpenVINO's NETWORK_NAME.
    model_name: str = ""
    #: Rows of several requests that one inference may take; 1 where requests are not joined.
    max_joined_rows: int = 1
    #: Where rows lie, and whether they depend on each other; ``None`` where nobody asked.
    batch: BatchVerdict | None = None


class Slot(Protocol):
    """Is one infer request that nobody else uses between ``acquire`` and its answer."""

    @property
    def inputs(self) -> Tensors:
        """Gives the input tensors by port name; write rows here, from the start of the batch dimension."""
        ...


#: Takes the whole output tensors by port name, views that are valid during the call only; or the error instead.
Answer = Callable[[Tensors | None, Exception | None], None]


class Engine(Protocol):
    """Runs inferences on one device.  Safe to use from many threads."""

    @property
    def info(self) -> EngineInfo:
        """Says what the engine turned out to be."""
        ...

    def acquire(self, timeout_s: float | None = None) -> Slot:
        """Waits for an idle slot and takes it.

        Raises:
            TimeoutError: there was none for ``timeout_s``.
        """
        ...

    def start(self, slot: Slot, rows: int, answer: Answer) -> None:
        """Infers a slot, of which ``rows`` rows count; then calls ``answer``, once, on another thread."""
        ...

    def give_back(self, slot: Slot) -> None:
        """Returns a slot that was acquired and is not going to be started."""
        ...

    def busy_s(self) -> float:
        """Says for how many seconds so far at least one inference ran."""
        ...

    def close(self) -> None:
        """Waits for what runs and lets the device go."""
        ...
