"""Requests of so few bytes that what counts is the Python that each takes: taken as bytes, joined as bytes.

May not enter: threads, scheduling, transport.  Who joins them: bundles.py.  Who makes them: the runtime.

A small request is one object from its submission to its end.  Its outputs are cut out of those of its bundle only
when somebody looks at them.
"""

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ovray.core.events import RequestSubmitted
from ovray.core.ids import RequestId
from ovray.driver.calls import Call, Ended, Tensors

#: Inputs of one request; more bytes than this are better copied once, into shared memory.
SMALL_BYTES = 4 << 10

#: Outputs of one bundle that are kept whole as long as one of its requests may be looked at.
_KEPT_WHOLE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """Says what the bytes of a request are; requests of one kind share one object."""

    dtypes: tuple[np.dtype[Any], ...]
    shapes: tuple[tuple[int, ...], ...]
    #: How much work a request is, for the scheduler.
    rows: int
    size_bytes: int

    def rows_along(self, axes: Sequence[int]) -> int | None:
        """Counts the rows of a request; ``None`` where the inputs have none, or do not agree."""
        if any(len(shape) <= axis for shape, axis in zip(self.shapes, axes, strict=True)):
            return None
        rows = {shape[axis] for shape, axis in zip(self.shapes, axes, strict=True)}
        return (rows.pop() or None) if len(rows) == 1 else None


class SmallRequest(ABC):
    """Is one request of plain arrays.  A base, so that its holder's own notes stand in the same object."""

    __slots__ = ("ends", "is_over", "is_taken", "kind", "number", "packed", "submitted_s")

    #: The inputs, each as its bytes in C order.
    packed: tuple[bytes, ...]
    kind: Kind
    submitted_s: float
    #: Hears of the end; may let go of it then.
    ends: "Ends | None"
    #: Whether its end was told, or is not to be any more.
    is_over: bool
    #: Whether the pool has it, and will tell its end, whatever else whoever submitted it hears (Ctrl-C).
    is_taken: bool
    #: By which the scheduler knows it, where it travels alone.
    number: RequestId | None

    def tensors(self) -> Tensors:
        """Gives the inputs, read-only."""
        return tuple(
            np.frombuffer(packed, dtype).reshape(shape)
            for packed, dtype, shape in zip(self.packed, self.kind.dtypes, self.kind.shapes, strict=True)
        )

    def alone(self, number: RequestId, ended: Callable[[Ended], None], *, kills: int = 0) -> Call:
        """Gives the request as one that is scheduled by itself."""
        self.number = number
        return Call(
            asked=RequestSubmitted(request=number, rows=self.kind.rows, kills=kills),
            tensors=self.tensors(),
            ended=ended,
            submitted_s=self.submitted_s,
            may_be_joined=False,
        )

    def end(self, how: Ended) -> bool:
        """Tells its end, and says whether it was not told before."""
        if self.is_over:
            return False
        self.is_over = True
        assert self.ends is not None, "only its end takes them away"
        self.ends.ended(self, how)
        return True


class Ends(Protocol):
    """Hears how small requests ended, on the thread that drives the pool: it must be quick and must not wait."""

    def ended(self, request: Any, how: Ended) -> None:
        """Hears of one."""
        ...

    def ended_together(self, requests: Sequence[Any], places: Sequence[int], whole: "Joined") -> None:
        """Hears of those of one bundle that ended well: ``whole`` has their results, at these places."""
        ...


class Joined:
    """Holds what a bundle of small requests of one kind came to."""

    __slots__ = ("_axes", "_how", "_only", "_rows", "_submitted_s")

    def __init__(self, how: Ended, axes: Sequence[int], rows: int, submitted_s: float) -> None:
        """Takes the outputs over.

        Args:
            how: of the whole.
            axes: which dimension of each output counts the rows.
            rows: of each request.
            submitted_s: when the request was submitted whose times are those of the whole.
        """
        assert how.outputs is not None, "what failed is told to each by itself"
        self._how = how
        #: The output of a model with one, where rows come first: most models.
        self._only = how.outputs[0] if tuple(axes) == (0,) else None
        self._axes = axes
        self._rows = rows
        self._submitted_s = submitted_s

    def outputs(self, place: int) -> Tensors:
        """Copies the outputs of one request: who keeps one must not keep them all."""
        start, stop = place * self._rows, (place + 1) * self._rows
        if self._only is not None:
            return (self._only[start:stop].copy(),)
        assert self._how.outputs is not None
        return tuple(
            output[start:stop].copy()
            if axis == 0
            else output[(slice(None),) * axis + (slice(start, stop),)].copy()
            for output, axis in zip(self._how.outputs, self._axes, strict=True)
        )

    def total_s(self, submitted_s: float) -> float:
        """Says how long a request took that was submitted then."""
        return self._how.total_s + self._submitted_s - submitted_s

    def ended(self, place: int, submitted_s: float) -> Ended:
        """Gives the end of one request as that of any other."""
        how = self._how
        earlier_s = self._submitted_s - submitted_s
        return Ended(
            outputs=self.outputs(place),
            error=None,
            replica=how.replica,
            total_s=how.total_s + earlier_s,
            queued_s=how.queued_s + earlier_s,
            replica_queued_s=how.replica_queued_s,
            infer_s=how.infer_s,
            batch_rows=how.batch_rows,
        )


def tell(requests: Sequence[SmallRequest], whole: Joined, outputs: Sequence[NDArray[Any]]) -> int:
    """Tells the requests of a bundle, in its order, that it ended well; returns how many were not told before."""
    if sum(output.nbytes for output in outputs) > _KEPT_WHOLE_BYTES:
        return sum(
            not request.is_over and request.end(whole.ended(place, request.submitted_s))
            for place, request in enumerate(requests)
        )
    waiting = [(place, request) for place, request in enumerate(requests) if not request.is_over]
    for _, request in waiting:
        request.is_over = True
    # Most bundles are of one queue's requests.
    for ends in {request.ends for _, request in waiting}:
        theirs = [(place, request) for place, request in waiting if request.ends is ends]
        assert ends is not None, "only its end takes them away"
        ends.ended_together([request for _, request in theirs], [place for place, _ in theirs], whole)
    return len(waiting)


def joined_tensors(requests: Sequence[SmallRequest], axes: Sequence[int]) -> Tensors:
    """Lays the inputs of requests of one kind end to end."""
    kind = requests[0].kind
    return tuple(
        _joined([request.packed[index] for request in requests], dtype, shape, axis)
        for index, (dtype, shape, axis) in enumerate(zip(kind.dtypes, kind.shapes, axes, strict=True))
    )


def _joined(packed: Sequence[bytes], dtype: np.dtype[Any], shape: tuple[int, ...], axis: int) -> NDArray[Any]:
    stacked: NDArray[Any] = np.frombuffer(b"".join(packed), dtype).reshape((len(packed), *shape))
    if axis:
        return np.concatenate(list(stacked), axis=axis)
    return stacked.reshape((len(packed) * shape[0], *shape[1:]))
