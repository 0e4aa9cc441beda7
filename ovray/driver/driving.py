"""Drives a pool: the thread that takes what callers and replicas say to the request loop, and callers that lend it
a hand.

May not enter: what becomes of a request (request_loop.py), what callers may ask (pool.py), decisions (core).
Whatever changes the loop happens on the thread that has the turn: the driver thread, or a caller's that finds
nobody driving and sends its own request, or waits for its answer.  All others leave a note in the inbox.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as AnswerTimeoutError
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ovray.core import events
from ovray.driver.bundles import BUNDLE_BYTES
from ovray.driver.calls import Call, Caller
from ovray.driver.mailbox import Ready
from ovray.driver.messages import PoolEnded, PoolRearranged, Replied
from ovray.driver.request_loop import RequestLoop
from ovray.driver.small_requests import SmallRequest
from ovray.driver.transport import Inbox
from ovray.driver.turn import Turn
from ovray.errors import InvariantError, OvrayError, ReplicaError

T = TypeVar("T")

#: What the driver thread may take to answer a question or to end; it never waits for long itself.
ANSWER_TIMEOUT_S = 30.0

#: How often one who waits at the sockets looks whether the pool still lives.
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """Something to be done on the driver thread."""

    do: Callable[[], Any]
    done: Future[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Closing:
    """The last note in the inbox."""


class Driving:
    """Owns the request loop and the turns at it.  Safe to use from many threads."""

    def __init__(
        self,
        inbox: Inbox,
        loop: RequestLoop,
        explain: Callable[[OvrayError], OvrayError],
        at_end: Callable[[], None],
    ) -> None:
        """Stores; ``start`` acts.

        Args:
            inbox: where notes and answers come.
            loop: is used during turns only.
            explain: says more of why the loop cannot go on.
            at_end: is called on the driver thread when everybody who waited was told of the end.
        """
        self._inbox = inbox
        self._loop = loop
        self._explain = explain
        self._at_end = at_end
        self._turn = Turn()
        #: Set once, and then nothing is taken any more.
        self.over: OvrayError | None = None
        self._closing = False
        self._sleeps_until_s = 0.0
        #: For how long replies are left alone before the next turn, so that several come together.
        self._gathering_s = 0.0
        #: Is held by one that waits at the sockets in place of the driver thread, which waits for notes then.
        self._guest = threading.Lock()
        #: Whether one was here since the driver thread last looked.
        self._has_had_guest = False
        #: Small requests that nobody has taken in yet.
        self._small: deque[SmallRequest] = deque()
        #: Is set when a replica is ready for the first time.
        self.first_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ovray-driver", daemon=True)

    # --- from any thread ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the driver thread."""
        self._thread.start()

    @property
    def has_started(self) -> bool:
        return self._thread.ident is not None

    def close(self) -> None:
        """Ends the driver thread, and waits for that; a second call does nothing."""
        self._inbox.put(_Closing())
        if threading.current_thread() is not self._thread:
            self._thread.join(ANSWER_TIMEOUT_S)

    def do(self, do: Callable[[], T]) -> T:
        """Has something done on the driver thread, and waits for what it returns or raises."""
        done: Future[T] = Future()
        self._inbox.put(_Errand(do=do, done=done))
        self._end_if_over()
        try:
            return done.result(ANSWER_TIMEOUT_S)
        except AnswerTimeoutError as error:
            raise InvariantError(f"the driver thread did not answer within {ANSWER_TIMEOUT_S:g} s") from error

    def submit(self, call: Call, size_bytes: int, caller: Caller) -> None:
        """Has a request taken in: on this thread if nobody drives now, so that none is woken; else by who does.

        Who waits has to call ``wait_for`` next.
        """
        # Those that could be joined are better found together, and what others left before comes before.
        if size_bytes <= BUNDLE_BYTES or self._inbox.has_notes or not self._lend(partial(self._submit, call)):
            self._inbox.put(call)
        else:
            self._wake_if_due()
        if caller is Caller.GOES_ON and self._has_had_guest:
            self._inbox.wake()  # the driver thread left the sockets to somebody who may have gone
        self._end_if_over()

    def submit_small(self, request: SmallRequest) -> None:
        """Has a small request taken in: by this thread where nothing is under way, else by who drives."""
        self._offer(request)
        if self._has_had_guest:
            self._inbox.wake()  # the driver thread left the sockets to somebody who may have gone

    def infer_small(self, request: SmallRequest) -> None:
        """Has a small request taken in, and may wait at the sockets until it has ended."""
        self._offer(request)
        self.wait_for(lambda: request.is_over)

    def wait_for(self, has_ended: Callable[[], bool]) -> None:
        """Waits at the sockets in the driver thread's place until a request has ended, if it is the only one.

        So no thread has to be woken for its answer but the one that wants it.  Who calls this has to look whether
        it has ended: where others are under way, or another waits here already, it has not.
        """
        if self._loop.has_one and self._guest.acquire(blocking=False):
            try:
                self._wait_as_guest(has_ended)
            finally:
                self._guest.release()
        if self._has_had_guest and not self._loop.is_idle:
            self._inbox.wake()

    def _offer(self, request: SmallRequest) -> None:
        # In this order: who drives looks here once more after each turn, so a request that finds the turn taken,
        # or enough under way, is found.
        self._small.append(request)
        request.is_taken = True
        if self._loop.is_idle:
            self._lend_a_hand()
        elif not self._loop.has_enough(len(self._small)):
            self._inbox.wake()
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self.over is not None:
            # The driver thread may have looked for the last time before the request, or errand, was there.
            self._end_what_is_left()

    # --- on the driver thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                found = self._wait()
                with self._turn:
                    was_idle = self._loop.is_idle
                    self._take(self._inbox.collect(found))
                    self._loop.tick()
                    self._gathering_s = self._loop.gathering_s(self._gathering_s)
                    is_over = self._loop.is_idle and not was_idle
                if is_over and self._guest.locked():
                    self._inbox.wake()  # what the guest waits for may have ended by another way than an answer
                if self._loop.is_first_ready:
                    self.first_ready.set()
                if self._turn.error is not None:
                    raise self._turn.error
            self.over = ReplicaError("the model was closed; compile it again to infer")
        except OvrayError as error:
            self.over = self._explain(error)
        except Exception as error:  # noqa: BLE001 (whoever waits must hear of a bug in here)
            self.over = InvariantError(f"the driver thread ended with {type(error).__name__}: {error}")
            self.over.__cause__ = error
        finally:
            self._end_what_is_left()
            self._at_end()

    def _wait(self) -> Ready:
        self._sleeps_until_s = self._loop.due_s
        if not self._has_had_guest:
            if self._gathering_s:
                self._inbox.wait_aside(self._gathering_s, lambda: self._has_small_to_do)
            return self._inbox.wait(self._loop.due_in_s, lambda: self._has_small_to_do)
        # Also while no guest is there and nothing under way: who infers one by one is likely to come again.
        self._inbox.wait_aside(
            self._loop.due_in_s,
            lambda: self._has_small_to_do or not (self._guest.locked() or self._loop.is_idle),
        )
        self._has_had_guest = self._guest.locked()
        return []

    def _take(self, notes: Sequence[Any]) -> None:
        calls = [note for note in notes if isinstance(note, Call)]
        if calls:
            if self._has_small_to_do:
                self._submit_small()  # before those that came after them
            self._loop.submit(calls)
        replied = [note for note in notes if isinstance(note, Replied)]
        if replied:
            self._loop.take_replies(replied)
        if self._has_small_to_do:
            self._submit_small()
        for note in notes:
            if not isinstance(note, (Call, Replied)):
                self._take_note(note)

    def _take_note(self, note: Any) -> None:
        if isinstance(note, events.RequestCancelled):
            self._loop.cancel(note)
        elif isinstance(note, _Errand):
            _carry_out(note)
        elif isinstance(note, _Closing):
            self._closing = True
        elif isinstance(note, PoolRearranged):
            self._loop.rearrange(note.wanted, note.order)
        elif isinstance(note, PoolEnded):
            raise note.error
        elif callable(note):
            note()  # a transport's, which touches its sockets during a turn only
        else:
            self._loop.take(note)

    def _end_what_is_left(self) -> None:
        """Tells everybody who still waits for something that it will not come."""
        if self._turn.is_mine:
            return  # in the middle of it; comes here again when its turn is over
        error = self.over or ReplicaError("the driver thread has ended")
        with self._turn:
            self._loop.end_all(error)
            self._loop.refuse_small(_all_of(self._small), error)
            for note in self._inbox.get_all(0.0):
                if isinstance(note, Call):
                    self._loop.refuse(note, error)
                elif isinstance(note, _Errand):
                    note.done.set_exception(error)

    # --- on whichever thread has its turn -------------------------------------------------------------------

    @property
    def _has_small_to_do(self) -> bool:
        return bool(self._small) and not self._loop.has_enough(len(self._small))

    def _submit(self, call: Call) -> None:
        self._loop.submit((call,))

    def _submit_small(self) -> None:
        left = taken = _all_of(self._small)
        try:
            left = self._loop.submit_small(taken)
        finally:
            # All of them, where something went wrong: then those that wait are told.
            self._small.extendleft(reversed(left))

    def _lend_a_hand(self) -> None:
        """Does the driver thread's work on small requests on this thread, unless somebody is driving now."""
        while self._small and self._loop.is_idle and self._lend(self._submit_small):
            if self._turn.error is not None:
                return
        self._wake_if_due()

    def _lend(self, do: Callable[[], None]) -> bool:
        """Does something of the driver thread's, unless somebody is driving now; says whether it did."""
        if not self._turn.lend_if_free(do):
            return False
        if self._turn.error is not None:
            self._inbox.wake()
        return True

    def _wake_if_due(self) -> None:
        """Wakes the driver thread where a turn that was used on another left it something to do earlier."""
        if self._has_small_to_do or self._loop.due_s < self._sleeps_until_s:
            self._inbox.wake()

    def _wait_as_guest(self, has_ended: Callable[[], bool]) -> None:
        self._has_had_guest = True
        while not has_ended() and self.over is None and self._turn.error is None:
            found = self._inbox.wait(_LOOK_S, lambda: self._has_small_to_do)
            self._turn.lend(partial(self._take_replies, found))
            if self._inbox.has_notes or self._turn.error is not None:
                self._inbox.wake()

    def _take_replies(self, found: Ready) -> None:
        """Takes the replies that are there, and leaves all else that was said to the driver thread."""
        self._inbox.call_back(found)
        while (note := self._inbox.next_of(Replied)) is not None:
            self._loop.take_replies((note,))
        if self._has_small_to_do:
            self._submit_small()


def _carry_out(errand: _Errand) -> None:
    try:
        errand.done.set_result(errand.do())
    except OvrayError as error:
        errand.done.set_exception(error)


def _all_of(requests: deque[SmallRequest]) -> list[SmallRequest]:
    """Takes out all that there are; whoever has the turn is the only one to take."""
    return [requests.popleft() for _ in range(len(requests))]
