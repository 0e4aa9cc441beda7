"""Decides which of the last chunks is run a second time, and where.

When no rows are left to cut, the idle replicas copy the chunks with the longest expected remainder, if the copy is
expected to be done in half of what the original still needs.  A chunk that is overdue is expected to need twice
as long again as it is overdue.
*Source:* Zaharia et al., LATE (OSDI 2008): longest remainder first, on fast replicas, capped; Dean and Barroso,
"The Tail at Scale" (2013).
May not enter: sending, committing and cancelling (jobs.py).
"""

import math

from ovray.core.heap import LazyHeap
from ovray.core.ledger import Ledger, Replica
from ovray.core.work import Chunk, Dispatch

#: How many of the longest remainders are looked at for an idle replica: the longest may be too big to copy.
_CHUNKS_LOOKED_AT = 4

#: A copy is worth it when it is expected to need at most this part of the original's remainder: else a slow
#: replica that idles first would keep a fast one, which idles a moment later, from a copy that is worth more.
_WORTH_SHARE = 0.5

#: An overdue chunk is looked at again after this part of the time it was expected to take, at the earliest.
_OVERDUE_STEP_SHARE = 0.1
_OVERDUE_STEP_MIN_S = 1e-3

#: A wanted copy goes to a replica that needs at most this many times the job's longest chunk.
_LONGEST_COPY_TIMES = 2.0


class Backups:
    """Keeps the chunks that run once, longest remainder first, and the replicas that idle, fastest first."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        #: Chunks with one dispatch, by minus the time they are expected to be done.
        self._latest: LazyHeap[Chunk, float] = LazyHeap()
        #: The same chunks, by the time at which they are overdue.
        self._due: LazyHeap[Chunk, float] = LazyHeap()
        #: Of those the ones whose replica is silent.
        self._wanted: dict[Chunk, None] = {}
        #: Replicas that may be given work and hold none, by minus their rate.
        self._idle: LazyHeap[Replica, float] = LazyHeap()

    @property
    def next_alarm_s(self) -> float:
        """Return when a chunk is overdue that an idle replica could copy."""
        due_s = self._due.first_key() if self._idle else None
        return math.inf if due_s is None else due_s

    def watch(self, chunk: Chunk, dispatch: Dispatch) -> None:
        """Take in a chunk that runs once, at this dispatch."""
        if chunk.job.asked.max_backups == 0:
            return
        self._expect(chunk, dispatch.expected_s, dispatch.expected_s)

    def forget(self, chunk: Chunk) -> None:
        self._latest.discard(chunk)
        self._due.discard(chunk)
        self._wanted.pop(chunk, None)

    def want_copy(self, chunk: Chunk) -> None:
        """Let a chunk be copied although rows are left to cut: its replica is silent."""
        if chunk in self._due:
            self._wanted[chunk] = None
            self._latest.set(chunk, -math.inf)

    def refresh(self, replica: Replica) -> None:
        """Take note of what a replica holds now, and when it is expected to be done with that."""
        if replica.is_eligible and replica.outstanding == 0:
            self._idle.set(replica, -(replica.rate.rows_per_s or 0.0))
            return
        self._idle.discard(replica)
        rate = replica.rate.rows_per_s
        if rate is None or replica.is_stalled:
            return
        done_s = replica.heard_s
        for dispatch in replica.chunks.values():
            chunk = dispatch.work
            done_s = max(done_s, dispatch.sent_s) + chunk.rows / rate
            if isinstance(chunk, Chunk) and chunk in self._due and done_s > self._ledger.now_s:
                self._wanted.pop(chunk, None)
                self._expect(chunk, done_s, done_s)

    def wanted_copy_for(self, replica: Replica) -> Chunk | None:
        """Return a chunk of a silent replica that this one could do in good time."""
        rate = replica.rate.rows_per_s
        if rate is None:
            return None
        for chunk in self._wanted:
            longest_s = _LONGEST_COPY_TIMES * chunk.job.asked.max_chunk_s
            if chunk.rows / rate <= longest_s and self._may_copy(chunk, replica):
                return chunk
        return None

    def next_match(self) -> tuple[Replica, Chunk] | None:
        """Return the fastest idle replica and the chunk whose copy there saves most, or ``None``."""
        replica = self._idle.first()
        if replica is None or not self._latest:
            return None
        self._age()
        return self._match(replica)

    def _match(self, replica: Replica) -> tuple[Replica, Chunk] | None:
        looked_at: list[tuple[Chunk, float]] = []
        found: Chunk | None = None
        while found is None and len(looked_at) < _CHUNKS_LOOKED_AT:
            chunk, key = self._latest.first(), self._latest.first_key()
            if chunk is None or key is None or -key <= self._ledger.now_s:
                break
            if self._may_copy(chunk, replica) and self._is_worth_it(chunk, replica, -key):
                found = chunk
            else:
                self._latest.discard(chunk)
                looked_at.append((chunk, key))
        for chunk, key in looked_at:
            self._latest.set(chunk, key)
        return None if found is None else (replica, found)

    def _is_worth_it(self, chunk: Chunk, replica: Replica, expected_s: float) -> bool:
        now_s = self._ledger.now_s
        return replica.expected_s(chunk.rows, now_s) - now_s <= _WORTH_SHARE * (expected_s - now_s)

    def _may_copy(self, chunk: Chunk, replica: Replica) -> bool:
        job = chunk.job
        return (
            job.backups_running < job.asked.max_backups
            and not (chunk.history.is_suspect and replica.outstanding)
            and replica.id not in chunk.history.failed_on
            and all(dispatch.replica != replica.id for dispatch in chunk.dispatches.values())
        )

    def _age(self) -> None:
        """Put off the expected end of chunks that are overdue."""
        now_s = self._ledger.now_s
        while (chunk := self._due.first()) is not None:
            due_s = self._due.first_key()
            if due_s is None or due_s > now_s:
                return
            dispatch = next(iter(chunk.dispatches.values()))
            step_s = _OVERDUE_STEP_SHARE * max(dispatch.expected_s - dispatch.sent_s, 0.0)
            step_s = max(step_s, _OVERDUE_STEP_MIN_S)
            overdue_s = now_s - dispatch.expected_s
            self._expect(chunk, now_s + max(2.0 * overdue_s, step_s), now_s + max(0.5 * overdue_s, step_s))

    def _expect(self, chunk: Chunk, done_s: float, look_s: float) -> None:
        self._due.set(chunk, look_s)
        self._latest.set(chunk, -math.inf if chunk in self._wanted else -done_s)
