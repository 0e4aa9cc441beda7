"""Serves requests inside a replica: they arrive in envelopes, wait, run alone or joined, and are answered.

May not enter: ray, openvino, what waits for what (waiting.py), whose fault a failure is (the engine's lanes).

Every lane of the engine has a thread, which takes what is to run next as soon as it is idle: an envelope never
waits for the end of an earlier one.  Whatever happens, each request that was submitted is answered once.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import NamedTuple

from ovray.errors import DataError, InvariantError, OvrayError, ReplicaError
from ovray.replica.benefit import BatchBenefits
from ovray.replica.envelope import Envelope, Reply, Request
from ovray.replica.request_engine import InferenceFailedError, Inferred, Lane, RequestEngine
from ovray.replica.waiting import AnswerTo, Waiting, WaitingRequests
from ovray.replica.workload import Batching

_log = logging.getLogger(__name__)

#: A device in good order answers a probe in the time of its inferences; this is for the slowest of models.
PROBE_TIMEOUT_S = 60.0

#: An inference that is shorter than this holds nobody up who waits behind it for the socket to be read.
QUICK_S = 0.0005

#: Types and shapes that are known at once; lengths of texts may make many.
_FITS_KEPT = 1024

#: Probes wait their turn like everybody else, under a name that no driver has.
_PROBE_CLIENT = "the replica's own probes"


class _Fit(NamedTuple):
    """Says what requests of some types and shapes are to the engine; see ``Waiting``."""

    key: Hashable
    rows: int
    input_bytes: int


class RequestServer:
    """Answers requests on one engine.  Safe to use from many threads."""

    def __init__(
        self, engine: RequestEngine, batching: Batching, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Stores; ``start`` begins to serve.

        Args:
            engine: what infers.
            batching: how requests are joined, where the engine can.
            clock: the time in seconds.
        """
        self._engine = engine
        self._clock = clock
        self._benefits = BatchBenefits() if batching.batch_size == "auto" else None
        self._waiting = WaitingRequests(
            max_rows=engine.joining.max_rows if engine.joining else 1,
            timeout_s=batching.timeout_ms / 1000,
            benefits=self._benefits,
        )
        #: Guards all that follows, and ``_waiting`` and ``_benefits``.
        self._changed = threading.Condition()
        #: Requests that have begun and are not answered.
        self._running = 0
        #: Lanes that run nothing.
        self._idle_lanes = len(engine.lanes)
        #: Requests that were inferred, or failed at it.
        self.served = 0
        self._probes = 0
        self._is_closed = False
        self._is_retired = False
        #: Whether the last inference was so short that whoever brings the next one may run it.
        self._is_quick = False
        #: By types and shapes of requests that can run.
        self._fits: dict[Hashable, _Fit] = {}
        #: Of each lane, held while it infers.
        self._using = [threading.Lock() for _ in engine.lanes]
        self._threads = [
            threading.Thread(target=self._serve, args=(number, lane), name=f"requests-{number}", daemon=True)
            for number, lane in enumerate(engine.lanes)
        ]

    def start(self) -> None:
        """Begins to serve."""
        for thread in self._threads:
            thread.start()

    def submit(self, envelope: Envelope, answer: AnswerTo) -> None:
        """Takes in the requests of an envelope, and returns at once.

        Args:
            envelope: the requests.  Their arrays are read until they are answered.
            answer: called with the replies to some of the requests, those of one inference together, until each
                request has had one; on some thread of the server or, for a request that cannot run, or is quick
                and finds nothing else here, on this one.
                It should be quick: an infer request waits for its return.
        """
        accepted = []
        now_s = self._clock()
        for request in envelope.requests:
            try:
                accepted.append(self._admit(envelope.client, request, answer, now_s))
            except DataError as error:
                _tell(answer, _failed(request, error, 0.0))
            except Exception as error:  # noqa: BLE001 - every request is answered, also a malformed one
                _tell(answer, _failed(request, _unforeseen(error), 0.0))
        with self._changed:
            is_over = self._is_closed or self._is_retired
            is_run_here = not is_over and self._is_quick and self._is_idle_for(accepted)
            if is_run_here:
                self._running += 1
                refused = []
            else:
                refused = accepted if is_over else self._put(accepted, now_s)
            reason = _closed_error() if is_over else _known_error()
        if is_run_here:
            self._run_here(accepted, now_s)
        for waiting in refused:
            _tell(answer, _failed(waiting.request, reason, 0.0))

    def ask(self, envelope: Envelope) -> list[Reply]:
        """Submits an envelope and waits for all of its replies, which come in the order of its requests."""
        replies: list[Reply] = []
        all_there = threading.Event()

        def note(some: Sequence[Reply]) -> None:
            replies.extend(some)
            if len(replies) == len(envelope.requests):
                all_there.set()

        self.submit(envelope, note)
        if envelope.requests:
            all_there.wait()  # ends: every request is answered, also when the server is closed
        by_dispatch = {reply.dispatch: reply for reply in replies}
        return [by_dispatch[request.dispatch] for request in envelope.requests]

    def cancel(self, dispatch: int, client: str | None = None) -> None:
        """Drops a request that has not begun; it is answered with ``CancelledError``.

        Args:
            dispatch: its number.
            client: whose; ``None`` for every client that has one of this number.
        """
        with self._changed:
            clients = self._waiting.clients_of(dispatch) if client is None else [client]
            dropped = [self._waiting.drop(each, dispatch) for each in clients]
        for waiting in dropped:
            if waiting is not None:
                error = CancelledError("the request was cancelled before its inference began")
                _tell(waiting.answer, _failed(waiting.request, error, self._clock() - waiting.arrived_s))

    def probe(self, timeout_s: float = PROBE_TIMEOUT_S) -> None:
        """Runs one inference that has gone well before, to see whether the device works.

        Raises:
            ReplicaError: it failed, or did not end in time.
        """
        with self._changed:
            self._probes += 1
            number = self._probes
        sample = self._engine.sample()
        request = Request(dispatch=number, tensors=sample.tensors, shapes=sample.shapes)
        answered: Future[Reply] = Future()
        self.submit(
            Envelope(client=_PROBE_CLIENT, requests=(request,)), lambda replies: answered.set_result(replies[0])
        )
        try:
            reply = answered.result(timeout=timeout_s)
        except FutureTimeoutError as error:
            self.cancel(number, _PROBE_CLIENT)
            raise ReplicaError(
                f"a probe was not answered within {timeout_s:g} s; the device hangs, or has too much to do"
            ) from error
        if reply.error is not None:
            raise ReplicaError(f"a probe failed: {reply.error}") from reply.error

    def retire(self) -> int:
        """Takes no more requests; counts those that it has and has not answered."""
        with self._changed:
            self._is_retired = True
            return self._running + len(self._waiting)

    def close(self) -> None:
        """Answers what has not begun with an error, waits for what runs, and ends the threads."""
        with self._changed:
            self._is_closed = True
            dropped = self._waiting.drop_all()
            self._changed.notify_all()
        for waiting in dropped:
            _tell(waiting.answer, _failed(waiting.request, _closed_error(), self._clock() - waiting.arrived_s))
        for thread in self._threads:
            thread.join()

    def _admit(self, client: str, request: Request, answer: AnswerTo, now_s: float) -> Waiting:
        kind = (request.shapes, *[(array.dtype, array.shape) for array in request.tensors])
        fit = self._fits.get(kind)
        if fit is None:
            fit = self._judge(request)
            # Of objects, the values count, too.
            if not any(array.dtype.hasobject for array in request.tensors):
                if len(self._fits) >= _FITS_KEPT:
                    self._fits.clear()
                self._fits[kind] = fit
        return Waiting(
            client=client,
            request=request,
            answer=answer,
            arrived_s=now_s,
            key=fit.key,
            rows=fit.rows,
            input_bytes=fit.input_bytes,
        )

    def _judge(self, request: Request) -> _Fit:
        self._engine.check(request)
        joining = self._engine.joining
        rows = joining.rows_of(request) if joining else None
        return _Fit(
            key=joining.key_of(request) if joining and rows is not None else None,
            rows=rows or 1,
            input_bytes=sum(array.nbytes for array in request.tensors),
        )

    def _put(self, accepted: list[Waiting], now_s: float) -> list[Waiting]:
        """Lets requests wait; returns those that cannot, because others of their name are waiting."""
        if not accepted:
            return []
        refused = self._waiting.put(accepted, now_s, found_busy=bool(self._running or len(self._waiting)))
        self._changed.notify(len(accepted))
        return refused

    def _is_idle_for(self, accepted: Sequence[Waiting]) -> bool:
        """Says whether this is one request that finds nothing else here, and is not to be held back."""
        is_held_back = self._benefits is None and self._engine.joining is not None
        return len(accepted) == 1 and not self._running and not len(self._waiting) and not is_held_back

    def _run_here(self, batch: list[Waiting], now_s: float) -> None:
        """Runs a quick request on the thread that brought it: to wake another takes longer than that."""
        try:
            with self._using[0]:
                self._run(self._engine.lanes[0], batch, now_s)
        finally:
            with self._changed:
                self._running -= 1
                self.served += 1

    def _serve(self, number: int, lane: Lane) -> None:
        """Is the life of one lane's thread."""
        while True:
            batch = self._next_batch()
            if not batch:
                return
            began_s = self._clock()
            try:
                with self._using[number]:
                    self._run(lane, batch, began_s)
            finally:
                with self._changed:
                    self._running -= len(batch)
                    self._idle_lanes += 1
                    self.served += len(batch)

    def _next_batch(self) -> list[Waiting]:
        """Waits for something to run; empty when the server is closed."""
        with self._changed:
            while not self._is_closed:
                now_s = self._clock()
                batch, ask_again_s = self._waiting.take(now_s, self._idle_lanes)
                if batch:
                    self._running += len(batch)
                    self._idle_lanes -= 1
                    if len(self._waiting):
                        self._changed.notify()  # the notice of what is left may have gone to this thread
                    return batch
                self._changed.wait(None if ask_again_s is None else max(0.0, ask_again_s - now_s))
        return []

    def _run(self, lane: Lane, batch: Sequence[Waiting], began_s: float) -> None:
        """Runs a batch and answers each of its requests."""
        try:
            inferred = lane.infer([waiting.request for waiting in batch])
        except InferenceFailedError as failure:
            if len(batch) == 1:
                self._blame(lane, batch[0], began_s, failure)
                return
            # One of them may be to blame; the others shall not suffer for it.
            for waiting in batch:
                self._run(lane, [waiting], began_s)
        except Exception as error:  # noqa: BLE001 - the lane must live, and those who wait be told
            for waiting in batch:
                _tell(waiting.answer, _failed(waiting.request, _unforeseen(error), began_s - waiting.arrived_s))
        else:
            self._answer(batch, inferred, began_s)

    def _answer(self, batch: Sequence[Waiting], inferred: Inferred, began_s: float) -> None:
        self._is_quick = inferred.infer_s < QUICK_S
        rows = sum(waiting.rows for waiting in batch)
        key = batch[0].key
        if self._benefits is not None and key is not None:
            with self._changed:
                self._benefits.of(key).ended(rows, inferred.infer_s)
        replies: dict[AnswerTo, list[Reply]] = {}
        for waiting, outputs in zip(batch, inferred.outputs, strict=True):
            reply = Reply(
                dispatch=waiting.request.dispatch,
                outputs=outputs.tensors,
                error=None,
                queued_s=began_s - waiting.arrived_s,
                infer_s=inferred.infer_s,
                batch_rows=rows,
                shapes=outputs.shapes,
            )
            replies.setdefault(waiting.answer, []).append(reply)
        for answer, together in replies.items():
            _tell(answer, *together)

    def _blame(self, lane: Lane, waiting: Waiting, began_s: float, failure: InferenceFailedError) -> None:
        try:
            error = lane.blame(waiting.request, failure)
        except Exception as unforeseen:  # noqa: BLE001 - as above
            error = _unforeseen(unforeseen)
        _tell(waiting.answer, _failed(waiting.request, error, began_s - waiting.arrived_s))


def _failed(request: Request, error: Exception, queued_s: float) -> Reply:
    return Reply(
        dispatch=request.dispatch, outputs=None, error=error, queued_s=queued_s, infer_s=0.0, batch_rows=0
    )


def _closed_error() -> OvrayError:
    return ReplicaError("the replica was closed before the inference began")


def _known_error() -> OvrayError:
    return InvariantError("a request of this client with this number is waiting here already")


def _unforeseen(error: Exception) -> ReplicaError:
    return ReplicaError(f"the inference failed unexpectedly: {type(error).__name__}: {error}")


def _tell(answer: AnswerTo, *replies: Reply) -> None:
    try:
        answer(replies)
    except Exception:  # noqa: BLE001 - whoever listens is not ours, and the lane has others to serve
        _log.exception("the receiver of request %d's reply failed", replies[0].dispatch)
