"""What travels to a replica that serves requests, and back: plain records that any transport can carry.

May not enter: openvino, ray, threads.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Asks for one inference."""

    dispatch: int
    #: The inputs in the order of the model's ports, C-contiguous; text as objects of type ``str``.
    tensors: tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Carries requests that travel in one message."""

    #: Which driver asks: a pool that several share serves them in turn.
    client: str
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Says how one request ended at a replica."""

    dispatch: int
    #: The outputs in the order of the model's ports, memory of their own; ``None`` where there is an error.
    outputs: tuple[NDArray[Any], ...] | None
    #: A ``DataError`` where the input is to blame, another where the device is.
    error: Exception | None
    #: From the arrival here to the start of the inference.
    queued_s: float
    infer_s: float
    #: Rows of the tensor in which it was inferred, other requests' rows included.
    batch_rows: int
