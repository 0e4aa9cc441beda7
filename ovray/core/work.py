"""The things that are scheduled: a request, a chunk of a job, and one sending of either.

May not enter: decisions.  Who owns these records: ledger.py (dispatches), requests.py, jobs.py.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from ovray.core.events import JobSubmitted, RequestSubmitted
from ovray.core.ids import DispatchId, ReplicaId


@dataclass(slots=True, kw_only=True)
class History:
    """Says what a piece of work has been through; the parts of a cut piece inherit it."""

    #: Times a replica reported a failure of its device on it.
    tries: int = 0
    #: Replicas that died while they held it.
    kills: int = 0
    #: Where it failed; avoided while there is another.
    failed_on: frozenset[ReplicaId] = frozenset()
    #: Why a row is not run any more.
    verdict: str | None = None

    @property
    def is_suspect(self) -> bool:
        """Whether it may kill who runs it: then it runs alone, so that a death says something about it."""
        return self.kills > 0 and self.verdict is None

    def copy(self) -> "History":
        return replace(self)


@dataclass(slots=True, eq=False, kw_only=True)
class RequestWork:
    """One request from its submission to its end."""

    asked: RequestSubmitted
    #: Order of submission.
    sequence: int
    history: History = field(default_factory=History)
    #: Empty while it waits; more than one where those that had it before were silent.
    dispatches: dict[DispatchId, "Dispatch"] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        return self.asked.rows

    @property
    def turn(self) -> tuple[int, int]:
        """Sorts waiting requests: higher priority first, then order of submission."""
        return (-self.asked.priority, self.sequence)


@dataclass(slots=True, eq=False, kw_only=True)
class Chunk:
    """One row range of a job, from its cut to its commit."""

    job: "Job" = field(repr=False)
    start: int
    stop: int
    history: History
    #: The original and its backup copies; never empty while the chunk lives.
    dispatches: dict[DispatchId, "Dispatch"] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(slots=True, kw_only=True)
class Piece:
    """Rows that are not cut yet, or came back from a replica that could not do them."""

    start: int
    stop: int
    history: History


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One data set: rows uncut + rows in chunks + rows done = rows in total, always."""

    asked: JobSubmitted
    rows_total: int
    rows_done: int = 0
    rows_uncut: int = 0
    #: In row order, never cut before.
    fresh: deque[Piece] = field(default_factory=deque)
    #: Came back; goes before the fresh ones.
    returned: deque[Piece] = field(default_factory=deque)
    #: Cut and not committed; a dict for its order.
    chunks: dict[Chunk, None] = field(default_factory=dict, repr=False)
    #: Dispatches beyond the first of each chunk; never above ``asked.max_backups``.
    backups_running: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Dispatch:
    """One sending of a request or a chunk to one replica."""

    id: DispatchId
    replica: ReplicaId
    work: RequestWork | Chunk
    sent_s: float
    #: When it was expected to be done, as judged when it was sent; ``inf`` where no rate was known.
    expected_s: float
