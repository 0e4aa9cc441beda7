"""What answers requests inside a replica, behind one small protocol: lanes, each of which is one infer request.

May not enter: ray, openvino, queues.  Behind it: openvino_requests.py (devices), sim_requests.py (rehearsal).
In front of it: serving.py.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from ovray.replica.engine import EngineInfo
from ovray.replica.envelope import Request, TensorShape
from ovray.replica.joining import Joining


class Outputs(NamedTuple):
    """Is what one request gets."""

    #: One array for each output, which nobody else holds.
    tensors: tuple[NDArray[Any], ...]
    #: As in ``Reply.shapes``.
    shapes: tuple[TensorShape, ...] | None = None


class Inferred(NamedTuple):
    """Is what one inference gave."""

    #: In the order of the requests.
    outputs: list[Outputs]
    infer_s: float


class InferenceFailedError(Exception):
    """One inference failed; whose fault it is, ``Lane.blame`` finds out."""


class Lane(Protocol):
    """Is one infer request.  One thread uses it."""

    def infer(self, requests: Sequence[Request]) -> Inferred:
        """Runs these requests as one inference; more than one only where the engine joins.

        Raises:
            InferenceFailedError: OpenVINO refused them or failed.
        """
        ...

    def blame(self, request: Request, failure: InferenceFailedError) -> Exception:
        """Says whose fault a failure was, for a request that ran alone.

        Returns:
            ``DataError`` if the input is to blame, ``ReplicaError`` if the device is.
        """
        ...


class RequestEngine(Protocol):
    """Owns one compiled model.  ``check`` may be called from any thread."""

    @property
    def info(self) -> EngineInfo:
        """Says what the engine turned out to be."""
        ...

    @property
    def joining(self) -> Joining | None:
        """Says how requests are joined; ``None`` if they are not."""
        ...

    @property
    def lanes(self) -> Sequence[Lane]:
        """Gives the ``info.nireq`` lanes."""
        ...

    def check(self, request: Request) -> None:
        """Holds a request against the model's inputs, before it waits with others.

        Raises:
            DataError: it can not be an input of this model.
        """
        ...

    def sample(self) -> Request:
        """Gives a request that a device in good order answers."""
        ...

    def read_property(self, name: str) -> Any:
        """Reads a property of the compiled model; see ``compiling.plain_property``."""
        ...

    def export_model(self) -> bytes:
        """Exports the compiled model, as ``openvino.CompiledModel.export_model``.

        Raises:
            ConfigError: there is none, or the device cannot.
        """
        ...
