"""One request as its caller sees it: what was asked, and how it ended.

May not enter: scheduling, threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ovray.core.events import RequestSubmitted
from ovray.core.ids import ReplicaId
from ovray.replica.envelope import TensorShape

Tensors = tuple[NDArray[Any], ...]


class Caller(Enum):
    """Says what the thread that submits a request does next."""

    #: Whatever it likes: somebody else hears of the answer.
    GOES_ON = "goes on"
    #: It waits for the answer where the pool can use it for that; nobody has to be woken for it then.
    WAITS = "waits"


class Ended(NamedTuple):
    """Says how one request ended: with outputs, or with one error."""

    #: In the order of the model's ports, memory of their own; ``None`` where there is an error.
    outputs: Tensors | None
    error: Exception | None
    #: Where it was inferred last; ``None`` where it never got that far.
    replica: ReplicaId | None
    #: Seconds from submission to here.
    total_s: float
    #: What of it went by in the driver's queue, in the replica's, and in the inference; the rest is transport.
    queued_s: float
    replica_queued_s: float
    infer_s: float
    #: Rows of the tensor in which it was inferred, other requests' rows included; 0 where it was not.
    batch_rows: int
    #: As in ``Reply.shapes``.
    shapes: tuple[TensorShape, ...] | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """One request between its submission and its end."""

    asked: RequestSubmitted
    tensors: Tensors
    #: Called once, on the driver thread.
    ended: Callable[[Ended], None]
    submitted_s: float
    #: As in ``Request.shapes``.
    shapes: tuple[TensorShape, ...] | None = None
    #: Its callers' requests: several where it is a bundle.
    requests: int = 1
    #: What its span is to be a child of, where Ray's tracing is on.
    context: Any = None
    #: Not where it was in a bundle that failed.
    may_be_joined: bool = True
    #: Of the last sending.
    sent_s: float | None = None
    replica: ReplicaId | None = None
