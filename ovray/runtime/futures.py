"""Is Python's own way in: futures, and a lazy map.

May not enter: OpenVINO's request objects, the pool's inner life.
"""

import queue
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from enum import Enum
from functools import partial
from itertools import repeat
from typing import Any

from ovray.core.ids import RequestId
from ovray.driver.calls import Ended
from ovray.driver.small_requests import Joined
from ovray.runtime.results import OVDict, fresh, results_of
from ovray.runtime.run import Run
from ovray.runtime.serving import ANY_TERMS, Serving, Terms
from ovray.runtime.tensors import InputTensors, Sharing


class RequestFuture(Future[OVDict]):
    """Is the future of one request.  ``cancel`` works until it has ended: it takes the request back."""

    def __init__(self, serving: Serving) -> None:
        super().__init__()
        self._serving = serving
        self._number: RequestId | None = None
        #: What it is to the pool where it is a small request.
        self._run: Run | None = None

    def cancel(self) -> bool:
        """Takes the request back, unless it has ended; says whether it did."""
        is_cancelled = super().cancel()
        if is_cancelled and self._run is not None:
            self._serving.pool.cancel_small(self._run)
        elif is_cancelled and self._number is not None:
            self._serving.pool.cancel(self._number)
        return is_cancelled

    def start(self, inputs: Any, terms: Terms) -> None:
        """Sends the request on its way."""
        packed = self._serving.plain_inputs.take(inputs) if terms is ANY_TERMS else None
        if packed is not None:
            run = Run(request=self)
            run.kind, run.packed = packed
            run.ends = _SMALL_ENDS
            self._run = run
            self._serving.pool.submit_small(run)
            return
        tensors = InputTensors(self._serving.ports, self._serving.pool.storage)
        # Nothing is copied here, because the pool takes the bytes before it returns.
        tensors.take(inputs, Sharing.SHARE)
        self._number = self._serving.submit(tensors.arrays(), terms, self._ended, tensors.shapes())

    def _ended(self, how: Ended) -> None:
        # Whoever waits for a future may have left a function to be called, which may take long.
        self._serving.callbacks.run(partial(self._settle, how))

    def _settle(self, how: Ended) -> None:
        if not self.set_running_or_notify_cancel():
            return
        if how.outputs is None:
            self.set_exception(how.error)
        else:
            self.set_result(results_of(how.outputs, self._serving.ports))

    def _settle_placed(self, whole: Joined, place: int) -> None:
        if self.set_running_or_notify_cancel():
            self.set_result(fresh(whole.outputs(place), self._serving.ports))


class _SmallEnds:
    """Hears how futures of small requests ended, on the thread that drives the pool."""

    def ended(self, run: Run, how: Ended) -> None:
        future: RequestFuture = run.request
        run.finish()
        future._ended(how)

    def ended_together(self, runs: Sequence[Run], places: Sequence[int], whole: Joined) -> None:
        serving: Serving = runs[0].request._serving
        serving.callbacks.run_each(_settle_placed, zip(runs, repeat(whole), places))


_SMALL_ENDS = _SmallEnds()


def _settle_placed(ended: tuple[Run, Joined, int]) -> None:
    run, whole, place = ended
    future: RequestFuture = run.request
    run.finish()
    future._settle_placed(whole, place)


class Order(Enum):
    """Says in which order a map hands out its results."""

    AS_GIVEN = "as given"
    AS_DONE = "as done"


def submit(serving: Serving, inputs: Any, terms: Terms) -> RequestFuture:
    """Starts one inference; see ``CompiledModel.submit``."""
    future = RequestFuture(serving)
    future.start(inputs, terms)
    return future


def mapped(
    serving: Serving, inputs: Iterable[Any], terms: Terms, order: Order, look_ahead: int | None
) -> Iterator[OVDict]:
    """Infers one input after the other, several at once; see ``CompiledModel.map``."""
    waiting = _InOrder() if order is Order.AS_GIVEN else _AsDone()
    try:
        for item in inputs:
            while len(waiting) >= (look_ahead or serving.wanted_in_flight()):
                yield waiting.next_result()
            waiting.add(submit(serving, item, terms))
        while len(waiting):
            yield waiting.next_result()
    finally:
        waiting.cancel()


class _InOrder:
    """Holds futures whose results are wanted first come first served."""

    def __init__(self) -> None:
        self._futures: deque[RequestFuture] = deque()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: RequestFuture) -> None:
        self._futures.append(future)

    def next_result(self) -> OVDict:
        return self._futures.popleft().result()

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()


class _AsDone:
    """Holds futures whose results are wanted as they come."""

    def __init__(self) -> None:
        self._futures: set[Future[OVDict]] = set()
        self._done: queue.SimpleQueue[Future[OVDict]] = queue.SimpleQueue()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: RequestFuture) -> None:
        self._futures.add(future)
        future.add_done_callback(self._done.put)

    def next_result(self) -> OVDict:
        future = self._done.get()
        self._futures.discard(future)
        return future.result()

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()
