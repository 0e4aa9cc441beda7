"""Decides which replicas get work, and in which order devices are preferred, from how they stand.

May not enter: queues, clocks, messages.  What a policy then makes of the order: policies.py.  Who asks, whenever
something has changed: the driver's ordering.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ovray.core.ids import ReplicaId


class Standing(Enum):
    """Says what can be expected of a replica."""

    STARTING = "starting"  # for the first time
    READY = "ready"
    AWAY = "away"  # has worked, and was lost, failed too often or is silent; it may come back
    REFUSED = "refused"  # could not start


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Is one replica that was asked for."""

    id: ReplicaId
    #: Place of its device among those that were asked for; 0 is the best.
    rank: int
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Says who is to serve."""

    #: Best first; the others get no new work.
    order: tuple[ReplicaId, ...]
    #: Will not be needed again; may end when they hold nothing.
    released: tuple[ReplicaId, ...] = ()


class ServingOrder(Protocol):
    """Chooses among replicas.  Equal candidates give equal choices."""

    def choose(self, candidates: Sequence[Candidate]) -> Choice:
        """Says who is to serve; the order of ``candidates`` decides between those of one rank."""
        ...


@dataclass(frozen=True, slots=True)
class AsListed:
    """Prefers devices in the order in which they were asked for: MULTI.

    Suits DEVICE_PRIORITY; the other policies do not look at the order.
    """

    def choose(self, candidates: Sequence[Candidate]) -> Choice:
        return Choice(order=_by_rank(candidates))


@dataclass(frozen=True, slots=True, kw_only=True)
class BestThatWorks:
    """Gives all work to the best rank that works, and to a lesser one while no better one does: AUTO.

    A rank is a device entry, or a kind of device where none was listed, on whatever hosts have it.  Suits devices
    of which one kind is much faster; to keep all of them busy, take MULTI or the hint CUMULATIVE_THROUGHPUT.

    *Source:* OpenVINO's AUTO plugin (2026.4), properties ENABLE_STARTUP_FALLBACK and ENABLE_RUNTIME_FALLBACK.
    """

    #: Whether lesser ranks serve while a better one starts for the first time.
    has_startup_fallback: bool = True
    #: Whether lesser ranks are kept for the case that a better one fails after it has worked.
    has_runtime_fallback: bool = True

    def choose(self, candidates: Sequence[Candidate]) -> Choice:
        best = self._best_rank(candidates)
        if best is None:
            return Choice(order=())
        serving = [
            candidate
            for candidate in candidates
            if candidate.rank == best and candidate.standing is Standing.READY
        ]
        return Choice(order=_by_rank(serving), released=self._released(candidates, best))

    def _best_rank(self, candidates: Sequence[Candidate]) -> int | None:
        for rank in sorted({candidate.rank for candidate in candidates}):
            standings = {candidate.standing for candidate in candidates if candidate.rank == rank}
            if Standing.READY in standings:
                return rank
            if Standing.AWAY in standings and not self.has_runtime_fallback:
                return rank
            if Standing.STARTING in standings and not self.has_startup_fallback:
                return None
        return None

    def _released(self, candidates: Sequence[Candidate], best: int) -> tuple[ReplicaId, ...]:
        better_may_come = any(
            candidate.rank < best and candidate.standing is Standing.STARTING for candidate in candidates
        )
        if self.has_runtime_fallback or better_may_come:
            return ()
        return tuple(
            candidate.id
            for candidate in candidates
            if candidate.rank > best and candidate.standing is not Standing.STARTING
        )


def _by_rank(candidates: Sequence[Candidate]) -> tuple[ReplicaId, ...]:
    return tuple(candidate.id for candidate in sorted(candidates, key=lambda candidate: candidate.rank))
