"""Decides which requests run next, and which of them together: turns for clients, batches of what waits.

May not enter: threads, clocks, openvino.  Time arrives as ``now_s``.  Who asks: serving.py.

Two ways of joining.  ``auto`` takes what waits when an infer request becomes idle, and never holds one back: at
low load every request runs alone and at once.  A batch of a fixed size may be held back up to its timeout, but
only while others are likely to come: arrivals that found the replica at work say how far apart they are, and a
batch is let go when one is overdue.  An arrival that found the replica empty counts as a long gap: a client that
waits for each answer sends nothing while its request is held back, and after two or three of them none is.

Turns are round robin between clients and first come, first served within one (Nagle, "On packet switches with
infinite storage", RFC 970, 1985).
"""

import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ovray.replica.benefit import BatchBenefits
from ovray.replica.envelope import Reply, Request
from ovray.replica.joining import MAX_JOINED_BYTES

#: An arrival is overdue when it is this many mean gaps late; of arrivals at random 5% are later.
_OVERDUE_GAPS = 3.0

#: How much the newest gap counts: a change of load shows after some four arrivals.
_NEWEST_WEIGHT = 0.3

#: Takes what one inference answered, or one request that could not run.
AnswerTo = Callable[[Sequence[Reply]], None]


@dataclass(slots=True, eq=False, kw_only=True)
class Waiting:
    """Is one request from its arrival to its start."""

    client: str
    request: Request
    answer: AnswerTo
    arrived_s: float
    #: Equal for requests that may share an inference; ``None`` for one that must be alone.
    key: Hashable
    #: 1 for one that must be alone.
    rows: int
    input_bytes: int
    #: Order of arrival.
    sequence: int = 0


class Next(NamedTuple):
    """Says what an idle infer request is to do."""

    #: Run these together; empty: nothing to run now.
    batch: list[Waiting]
    #: Ask again at this time, if nothing arrives before; ``None``: when something arrives.
    ask_again_s: float | None


class WaitingRequests:
    """Holds the requests that have arrived and not begun."""

    def __init__(self, *, max_rows: int, timeout_s: float, benefits: BatchBenefits | None) -> None:
        """Starts empty.

        Args:
            max_rows: rows that may be joined; 1 joins nothing.
            timeout_s: how long a batch that is not full may be held back.
            benefits: decides about rows below ``max_rows``, and then nothing is held back; ``None``: a fixed size.
        """
        self._max_rows = max_rows
        self._timeout_s = timeout_s
        self._benefits = benefits
        self._clients: dict[str, _ClientQueue] = {}
        #: Those that have something waiting; the first is next.
        self._turns: deque[str] = deque()
        self._by_name: dict[tuple[str, int], Waiting] = {}
        self._arrived = 0
        self._last_arrival_s = -math.inf
        self._mean_gap_s = math.inf

    def __len__(self) -> int:
        return len(self._by_name)

    def put(self, arrivals: list[Waiting], now_s: float, *, found_busy: bool) -> list[Waiting]:
        """Takes in what one message brought.

        Args:
            arrivals: of one client.
            now_s: the time.
            found_busy: whether other requests were waiting or running.

        Returns:
            Those that were not taken in, because others with their client and number are waiting.
        """
        self._note_gap(now_s, found_busy=found_busy)
        refused = []
        for waiting in arrivals:
            name = (waiting.client, waiting.request.dispatch)
            if name in self._by_name:
                refused.append(waiting)
                continue
            waiting.sequence = self._arrived
            self._arrived += 1
            self._by_name[name] = waiting
            queue = self._clients.setdefault(waiting.client, _ClientQueue())
            if not queue:
                self._turns.append(waiting.client)
            queue.put(waiting)
        return refused

    def take(self, now_s: float, takers: int = 1) -> Next:
        """Takes out what is to run now.

        Args:
            now_s: the time.
            takers: infer requests that idle, the one that asks included.
        """
        if not self._turns:
            return Next([], None)
        head = self._clients[self._turns[0]].first()
        if head.key is None or self._max_rows == 1:
            return Next([self._take_first(head.client, head.key)], None)
        limit = self._limit(head)
        rows = self._rows_waiting(head.key, limit)
        if self._benefits is None and rows < limit:
            let_go_s = min(head.arrived_s + self._timeout_s, self._overdue_s())
            if now_s < let_go_s:
                return Next([], let_go_s)
        if self._benefits is not None:
            limit = self._benefits.of(head.key).choose(head.rows, min(rows, limit), takers)
        return Next(self._take_batch(head, limit), None)

    def drop(self, client: str, dispatch: int) -> Waiting | None:
        """Takes out one that nobody needs; ``None`` if it is not waiting."""
        waiting = self._by_name.pop((client, dispatch), None)
        if waiting is not None:
            queue = self._clients[client]
            queue.drop(waiting)
            if not queue:
                self._turns.remove(client)
                del self._clients[client]
        return waiting

    def clients_of(self, dispatch: int) -> list[str]:
        """Names the clients that have a request of this number waiting."""
        return [client for client in self._clients if (client, dispatch) in self._by_name]

    def drop_all(self) -> list[Waiting]:
        """Takes out everything."""
        dropped = list(self._by_name.values())
        self._by_name.clear()
        self._clients.clear()
        self._turns.clear()
        return dropped

    def _note_gap(self, now_s: float, *, found_busy: bool) -> None:
        gap_s = now_s - self._last_arrival_s
        self._last_arrival_s = now_s
        if not found_busy:
            # Its client may be one that waits for each answer: nothing would come while this one is held back.
            gap_s = max(gap_s, self._timeout_s)
        if not math.isinf(self._mean_gap_s):
            self._mean_gap_s += _NEWEST_WEIGHT * (gap_s - self._mean_gap_s)
        elif found_busy:
            self._mean_gap_s = gap_s

    def _overdue_s(self) -> float:
        if self._mean_gap_s > self._timeout_s / 2:
            return -math.inf
        return self._last_arrival_s + _OVERDUE_GAPS * self._mean_gap_s

    def _limit(self, head: Waiting) -> int:
        """Returns the rows that a batch with this request in it may have."""
        by_bytes = MAX_JOINED_BYTES * head.rows // max(1, head.input_bytes)
        return max(head.rows, min(self._max_rows, by_bytes))

    def _rows_waiting(self, key: Hashable, enough: int) -> int:
        rows = 0
        for queue in self._clients.values():
            rows += queue.rows(key)
            if rows >= enough:
                break
        return rows

    def _take_batch(self, head: Waiting, limit: int) -> list[Waiting]:
        """Takes the head and what may run with it, one of each client in turn, up to ``limit`` rows."""
        batch = [self._take_first(head.client, head.key)]
        rows = head.rows
        passed_over = 0
        while rows < limit and passed_over < len(self._turns):
            client = self._turns[0]
            following = self._clients[client].first_of(head.key)
            if following is None or rows + following.rows > limit:
                self._turns.rotate(-1)
                passed_over += 1
                continue
            batch.append(self._take_first(client, head.key))
            rows += following.rows
            passed_over = 0
        return batch

    def _take_first(self, client: str, key: Hashable) -> Waiting:
        """Takes a client's first request of this key; the client's next turn comes after all others'."""
        queue = self._clients[client]
        waiting = queue.take(key)
        del self._by_name[client, waiting.request.dispatch]
        self._turns.remove(client)
        if queue:
            self._turns.append(client)
        else:
            del self._clients[client]
        return waiting


class _ClientQueue:
    """Holds what one client has waiting, by key, so that requests that may run together are found at once."""

    def __init__(self) -> None:
        #: Never holds an empty deque.
        self._by_key: dict[Hashable, deque[Waiting]] = {}
        self._rows: dict[Hashable, int] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def put(self, waiting: Waiting) -> None:
        self._by_key.setdefault(waiting.key, deque()).append(waiting)
        self._rows[waiting.key] = self._rows.get(waiting.key, 0) + waiting.rows

    def first(self) -> Waiting:
        """Finds the one that arrived first; keys are few."""
        return min((queue[0] for queue in self._by_key.values()), key=lambda waiting: waiting.sequence)

    def first_of(self, key: Hashable) -> Waiting | None:
        queue = self._by_key.get(key)
        return queue[0] if queue else None

    def rows(self, key: Hashable) -> int:
        return self._rows.get(key, 0)

    def take(self, key: Hashable) -> Waiting:
        waiting = self._by_key[key].popleft()
        self._forget(waiting)
        return waiting

    def drop(self, waiting: Waiting) -> None:
        self._by_key[waiting.key].remove(waiting)
        self._forget(waiting)

    def _forget(self, waiting: Waiting) -> None:
        self._rows[waiting.key] -= waiting.rows
        if not self._by_key[waiting.key]:
            del self._by_key[waiting.key], self._rows[waiting.key]
