"""Is OpenVINO's ``AsyncInferQueue``: a bounded number of requests in flight, and one callback for all of them.

May not enter: forms of input, the pool's inner life.

A slot is free again only after its callback has returned.  A callback that submits more work while no slot is free
leaves it to its own slot, which takes it up when the callback has returned; so a chain of callbacks never waits
for itself, and at most one further request for each slot waits that way.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

from ovray.driver.calls import Ended
from ovray.driver.small_requests import Joined, Kind
from ovray.errors import RequestError
from ovray.runtime.compiled_model import CompiledModel
from ovray.runtime.request import InferRequest
from ovray.runtime.run import Run
from ovray.runtime.serving import Serving, Terms
from ovray.runtime.tensors import Sharing

Callback = Callable[[InferRequest, Any], Any]

#: How often one who waits for a slot looks whether replicas have joined, where the number of slots follows them.
_LOOK_S = 0.25

#: For how long slots are gathered for one who waits, at least and at most, and how many.  Of several requests that
#: are started in a row all but the first are cheaper: an inference on the same core leaves nothing of what that
#: touches in the caches.
_GATHER_S = 0.001
_GATHER_MAX_S = 0.02
_GATHERED = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class _Successor:
    """Work that a callback left to its own slot; its inputs lie in the request's tensors."""

    request: InferRequest
    terms: Terms


class _Ends:
    """Hears how a queue's small requests ended, on the thread that drives the pool.

    Runs that are under way hold their queue; a queue that holds this one is held by nobody else.
    """

    def ended_together(self, runs: Sequence[Run], places: Sequence[int], whole: Joined) -> None:
        queue: AsyncInferQueue = runs[0].holder
        if runs[0].callback is not None:
            queue._serving.callbacks.run_each(queue._call_placed, zip(runs, repeat(whole), places))
            return
        for run, place in zip(runs, places, strict=True):
            run.take_place(whole, place)
            run.finish()
        queue._free(*[run.slot for run in runs])

    def ended(self, run: Run, how: Ended) -> None:
        queue: AsyncInferQueue = run.holder
        run.take_end(how)
        if how.error is None and run.callback is not None:
            queue._serving.callbacks.run_each(queue._call_small, (run,))
        else:
            run.finish()
            queue._over(run.slot, run)


class _Errors:
    """Keeps the first of several errors and counts the others, for whoever asks next."""

    def __init__(self) -> None:
        self._first: Exception | None = None
        self._others = 0

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, error: Exception | None) -> None:
        if error is None:
            return
        if self._first is None:
            self._first = error
        else:
            self._others += 1

    def raise_first(self) -> None:
        """Raises the first, once."""
        error, others = self._first, self._others
        self._first, self._others = None, 0
        if error is None:
            return
        if others and hasattr(error, "add_note"):  # Python 3.11
            error.add_note(f"{others} more failed since the last call that waited")
        raise error


class AsyncInferQueue:
    """Keeps up to ``jobs`` requests in flight over all replicas of a model.  Safe to use from many threads.

    Behaves as OpenVINO's, and where that one breaks, goes on: an exception of a callback surfaces, once and as it
    is, at the next ``start_async``, ``get_idle_request_id`` or ``wait_all``; an inference that failed surfaces at
    ``wait_all``; the queue stays usable after both.

    Args:
        model: the compiled model.
        jobs: how many requests may be in flight, which also bounds memory; 0 takes as many as keep all replicas
            busy, those on their way included, and follows replicas that join.

    Raises:
        TypeError: no compiled model, or no number from 0.

    Example:
        >>> queue = ov.AsyncInferQueue(compiled, jobs=4)
        >>> totals = {}
        >>> queue.set_callback(lambda request, row: totals.update({row: request.results["total"].shape}))
        >>> for row in range(6):
        ...     queue.start_async(np.full((1, 32), row, np.float32), userdata=row)
        >>> queue.wait_all()
        >>> sorted(totals), totals[5]
        ([0, 1, 2, 3, 4, 5], (1, 1))
    """

    def __init__(self, model: CompiledModel, jobs: int = 0) -> None:
        if not isinstance(model, CompiledModel):
            raise TypeError(f"incompatible model of type {type(model).__name__}; give an ovray CompiledModel")
        if not isinstance(jobs, int) or jobs < 0:
            raise TypeError(f"jobs is {jobs!r}; give a whole number from 0")
        self._serving: Serving = model.serving
        self._plain_inputs = self._serving.plain_inputs
        self._follows_replicas = jobs == 0
        #: Guards what a thread changes and others wait for; slots come and go without it.
        self._changed = threading.Condition()
        #: Those who wait for slots, and from when on they want to hear of each one.
        self._waiting = 0
        self._hear_from_s = 0.0
        #: Those who wait for all slots to be free.
        self._waiting_for_all = 0
        self._ends = _Ends()
        self._requests: list[InferRequest] = []
        self._idle: deque[int] = deque()
        self._callback: Callback | None = None
        #: The slot whose callback a thread is running.
        self._slot_of_thread: dict[int, int] = {}
        #: Slots whose callbacks wait for a free slot.
        self._stuck: set[int] = set()
        self._successors: dict[int, _Successor] = {}
        self._callback_errors = _Errors()
        self._failures = _Errors()
        self._add_slots(jobs or self._serving.wanted_in_flight())

    def start_async(
        self,
        inputs: Any = None,
        userdata: Any = None,
        share_inputs: bool = False,  # noqa: FBT001, FBT002 (OpenVINO's own flag)
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        device: str | None = None,
    ) -> None:
        """Starts an inference in the next free slot; waits for one.

        Args:
            inputs: as for ``InferRequest``; their bytes are taken before this returns.
            userdata: any object; handed to the callback as it is.
            share_inputs: as for ``InferRequest.infer``.
            priority: as for ``InferRequest.infer``.
            deadline_s: as for ``InferRequest.infer``.
            device: as for ``InferRequest.infer``.

        Raises:
            As ``InferRequest.infer``, where it can be known before the inference; or what an earlier callback
            raised. Then nothing was started, and the slot is free.
        """
        if share_inputs or priority or deadline_s is not None or device is not None:
            small = None
        else:
            small = self._plain_inputs.take(inputs)
        slot = self._take_slot()
        if slot is not None and small is not None and self._start_small(slot, *small, userdata):
            return
        terms = Terms.of(priority, deadline_s, device)
        sharing = Sharing.of(share_inputs)
        if slot is None:
            self._leave_to_own_slot(inputs, sharing, terms, userdata)
        else:
            self._start(slot, inputs, sharing, terms, userdata)

    def wait_all(self) -> None:
        """Waits until every request that was started, and its callback, are over.

        Raises:
            What a callback raised, or why an inference failed since the last ``wait_all``: the first of several.
            RequestError: a callback of this queue asks, which would wait for itself.
        """
        with self._changed:
            if threading.get_ident() in self._slot_of_thread:
                raise RequestError(
                    "a callback of this queue called wait_all(), which would wait for that callback; call it"
                    " outside"
                )
            self._waiting_for_all += 1
            try:
                self._changed.wait_for(lambda: len(self._idle) == len(self._requests))
            finally:
                self._waiting_for_all -= 1
            self._callback_errors.raise_first()
            self._failures.raise_first()

    def set_callback(self, callback: Callback) -> None:
        """Has ``callback(request, userdata)`` called after each inference that succeeds.

        It runs on a thread of its own, beside others.  It may take long, read ``request.results``, and submit.

        Raises:
            TypeError: the callback cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"incompatible callback of type {type(callback).__name__}; give f(request, userdata)")
        self._callback = callback

    def is_ready(self) -> bool:
        """Says whether a slot is free."""
        return bool(self._idle)

    def get_idle_request_id(self) -> int:
        """Waits for a free slot and returns its index; another thread may take it meanwhile.

        Raises:
            What a callback raised.
        """
        self._wait_for_idle()
        with self._changed:
            self._callback_errors.raise_first()
            return self._idle[0] if self._idle else 0

    @property
    def userdata(self) -> list[Any]:
        """What each slot was last given; ``None`` where nothing was."""
        return [request.userdata for request in self._requests]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[InferRequest]:
        return iter(tuple(self._requests))

    def __getitem__(self, index: int) -> InferRequest:
        """Returns the request of a slot, to look at.

        Raises:
            IndexError: there are not so many.
            TypeError: no number from 0.
        """
        if not isinstance(index, int) or index < 0:
            raise TypeError(f"incompatible index {index!r}; give a whole number from 0")
        if index >= len(self._requests):
            raise IndexError(f"request {index} of a queue that has {len(self._requests)}")
        return self._requests[index]

    def __repr__(self) -> str:
        return f"<AsyncInferQueue: {len(self)} jobs>"

    # --- slots ----------------------------------------------------------------------------------------------

    def _add_slots(self, wanted: int) -> None:
        with self._changed:
            for slot in range(len(self._requests), wanted):
                self._requests.append(InferRequest(self._serving))
                self._idle.append(slot)
            self._changed.notify_all()

    def _take_slot(self) -> int | None:
        """Waits for a free slot and takes it; ``None`` is the caller's own, once its callback has returned."""
        if not self._callback_errors and (slot := self._an_idle_slot()) is not None:
            return slot
        own = self._slot_of_thread.get(threading.get_ident())
        while True:
            with self._changed:
                self._callback_errors.raise_first()
                if (slot := self._an_idle_slot()) is not None:
                    return slot
                if own is not None and own not in self._successors:
                    return None
            self._wait_for_idle()

    def _an_idle_slot(self) -> int | None:
        try:
            return self._idle.popleft()
        except IndexError:
            return None

    def _wait_for_idle(self) -> None:
        """Returns when a slot is free, or was a moment ago."""
        self._serving.pool.check_open()
        own = self._slot_of_thread.get(threading.get_ident())
        look_s = 1.5 * self._gather_s
        while not self._idle:
            # Asked outside of the lock: the driver thread, which answers, may be waiting for it.
            if self._follows_replicas and self._serving.wanted_in_flight() > len(self._requests):
                self._add_slots(self._serving.wanted_in_flight())
            with self._changed:
                self._callback_errors.raise_first()
                self._wait_a_little(own, look_s)
            look_s = _LOOK_S

    @property
    def _gather_s(self) -> float:
        """How long slots are gathered: longer with as many as keep the replicas busy, while they are."""
        spare_s = self._serving.spare_s if self._follows_replicas else 0.0
        return min(max(_GATHER_S, spare_s), _GATHER_MAX_S)

    def _wait_a_little(self, own: int | None, look_s: float) -> None:
        if own is not None:
            self._stuck.add(own)
        try:
            if len(self._stuck) == len(self._requests):
                raise RequestError(
                    f"each of the {len(self._requests)} slots is held by a callback that waits for a free one, so"
                    " none would ever be; submit less from callbacks, or give the queue more jobs"
                )
            self._waiting += 1
            # At first some slots are gathered: to be woken for each costs more than a quick request.  What was
            # gathered in vain is found when the first look, which is short, has passed.
            self._hear_from_s = time.monotonic() + (0.0 if look_s == _LOOK_S else self._gather_s)
            self._changed.wait_for(lambda: self._idle, look_s)
        finally:
            self._waiting -= 1
            if self._waiting and self._idle:
                self._changed.notify()
            if own is not None:
                self._stuck.discard(own)

    def _start(self, slot: int, inputs: Any, sharing: Sharing, terms: Terms, userdata: Any) -> None:
        request, is_started = self._requests[slot], False
        try:
            request.remember(userdata)
            request.start(
                inputs,
                sharing,
                terms,
                callback=None if self._callback is None else partial(self._call, slot, self._callback, request),
                then=partial(self._over, slot),
            )
            is_started = True
        finally:
            if not is_started:
                self._free(slot)

    def _leave_to_own_slot(self, inputs: Any, sharing: Sharing, terms: Terms, userdata: Any) -> None:
        request = InferRequest(self._serving)
        request.prepare(inputs, sharing)
        request.remember(userdata)
        own = self._slot_of_thread[threading.get_ident()]
        with self._changed:
            self._successors[own] = _Successor(request=request, terms=terms)

    def _call(self, slot: int, callback: Callback, request: InferRequest) -> None:
        self._slot_of_thread[threading.get_ident()] = slot
        try:
            callback(request, request.userdata)
        finally:
            del self._slot_of_thread[threading.get_ident()]

    def _over(self, slot: int, run: Run) -> None:
        """Hears that a slot's inference and callback are over; without a callback, on the driver thread."""
        with self._changed:
            self._failures.add(run.error)
            self._callback_errors.add(run.callback_error)
            successor = self._successors.pop(slot, None)
        if successor is None:
            self._free(slot)
            return
        self._requests[slot] = successor.request
        try:
            self._start(slot, None, Sharing.COPY, successor.terms, successor.request.userdata)
        except Exception as error:  # noqa: BLE001 (who submitted has gone; wait_all tells)
            with self._changed:
                self._failures.add(error)

    def _free(self, *slots: int) -> None:
        # In this order: who begins to wait looks for a slot after it has said so.
        self._idle.extend(slots)
        if (self._waiting_for_all and len(self._idle) == len(self._requests)) or (
            self._waiting
            and (
                len(self._idle) >= min(_GATHERED, len(self._requests) // 2)
                or time.monotonic() >= self._hear_from_s
            )
        ):
            self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # --- small requests -------------------------------------------------------------------------------------

    def _start_small(self, slot: int, kind: Kind, packed: tuple[bytes, ...], userdata: Any) -> bool:
        request = self._requests[slot]
        run = Run(self._callback, None, slot, request)
        run.ends = self._ends
        run.holder = self
        is_over = False
        try:
            request.remember(userdata)
            is_started = request.start_small(run, kind, packed)
            is_over = True
        finally:
            if not (is_over or run.is_taken):
                self._free(slot)
        return is_started

    def _call_placed(self, ended: tuple[Run, Joined, int]) -> None:
        """Has the callback called of a small request that has a place in the answer of a bundle."""
        run, whole, place = ended
        run.take_place(whole, place)
        self._call_small(run)

    def _call_small(self, run: Run) -> None:
        """Has the callback called of a small request that ended well; on a callback thread."""
        assert run.callback is not None
        thread = threading.get_ident()
        self._slot_of_thread[thread] = run.slot
        run.callback_thread = thread
        try:
            run.callback(run.request, run.request.userdata)
        except Exception as error:  # noqa: BLE001 (the caller's own; it is told to whoever waits)
            run.callback_error = error
        finally:
            run.callback_thread = None
            del self._slot_of_thread[thread]
        run.finish()
        if run.callback_error is None and run.slot not in self._successors:
            self._free(run.slot)
        else:
            self._over(run.slot, run)
