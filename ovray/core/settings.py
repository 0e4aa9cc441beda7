"""The scheduler's numbers, with the reason for each default.

May not enter: environment variables, files.  Numbers that belong to one job are in its ``JobSubmitted``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """Says how long, how many and how often."""

    #: Accepted requests that may wait; beyond it a submitter waits or is refused.
    max_waiting_requests: int = 10_000
    #: What one message there and back costs; 1.4 to 2 ms for a Ray actor call (field measurement, two cores).
    round_trip_s: float = 0.002
    #: How often a piece of work may be tried on replicas that report a failure of the device.
    max_tries: int = 3
    #: A piece of work that was held by more than this many replicas when they died is given up as poison.
    max_replicas_killed: int = 2
    #: Rows that a replica held when it died are run again alone and in so many parts: a row that kills is found
    #: among the 256 of a batch with the third replica, and nothing but it is blamed.
    parts_of_suspects: int = 16
    #: Failures of the device in a row after which a replica is evicted.
    evict_after_failures: int = 3
    #: The first wait before an evicted replica is probed; it doubles with every further eviction or loss.
    readmit_after_s: float = 1.0
    readmit_after_max_s: float = 300.0
    #: The longest such wait where no replica is trusted: requests wait for the outcome.
    readmit_last_after_max_s: float = 10.0
    #: The longest rest of a replica that is back after a loss: whoever was killed is mostly not to blame.
    rest_after_loss_max_s: float = 2.0
    #: Completions in a row after which earlier evictions and losses are forgiven.
    forgiven_after_completions: int = 20
    #: A replica that holds work is stalled when silent for this many times what its work should take ...
    stalled_after_times: float = 5.0
    #: ... and for at least this long ...
    stalled_after_min_s: float = 2.0
    #: ... or for this long where it has not done any work yet: a warm-up did not open a file.
    stalled_after_unknown_s: float = 60.0
    #: Rows of a replica's first chunk where its rate is unknown: at a second a row still a short one.
    first_chunk_rows: int = 16
    #: Longest first chunk where only a warm-up has spoken: it did not read or decode any rows.
    first_chunk_s: float = 1.0
