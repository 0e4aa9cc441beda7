"""Decides how many rows the next chunk has and where it is cut.

A replica that holds one chunk at a time gets half of its share of what is left, as in factoring: the first chunks
are long, the last ones short, so that all replicas finish together.  One that also reads ahead gets a third each
time: else what it holds could be all that it should ever have had.
*Source:* Hummel, Schonberg and Flynn, "Factoring" (CACM 1992), for the half; Polychronopoulos and Kuck, "Guided
self-scheduling" (1987), for a size that follows what is left at each cut.
May not enter: who gets the chunk (policies.py), what has become of it (jobs.py).
"""

import math
from bisect import bisect_left

from ovray.core.events import JobSubmitted
from ovray.core.ledger import Replica
from ovray.core.settings import SchedulerSettings

#: A cheap cut is taken when it is no further off than this part of the chunk.
_CUT_NEAR_SHARE = 0.25


def chunk_rows(
    job: JobSubmitted, rows_uncut: int, share: float | None, replica: Replica, settings: SchedulerSettings
) -> int:
    """Return the size of the next chunk for a replica, at least 1 and at most ``rows_uncut``.

    The job's bounds in rows go before those in seconds.
    """
    rate = replica.rate.rows_per_s
    longest = longest_rows(job, replica, settings)
    if rate is None:
        rows = longest
    else:
        wanted = rows_uncut * (share or 0.0) / (replica.chunk_window + 1)
        rows = min(max(math.ceil(wanted), math.ceil(job.min_chunk_s * rate), job.min_chunk_rows), longest)
    return min(rows, rows_uncut)


def longest_rows(job: JobSubmitted, replica: Replica, settings: SchedulerSettings) -> int:
    """Return what a replica's next chunk may have; the job's bounds in rows go before those in seconds."""
    rate = replica.rate.rows_per_s
    if rate is None:
        rows = settings.first_chunk_rows
    else:
        longest_s = job.max_chunk_s if replica.rate.is_proven else min(job.max_chunk_s, settings.first_chunk_s)
        rows = math.ceil(longest_s * rate)
    return min(max(rows, job.min_chunk_rows, 1), job.max_chunk_rows)


def cut_at(job: JobSubmitted, start: int, end: int, rows: int, longest: int) -> int:
    """Return where a chunk of about ``rows`` that begins at ``start`` is to end, ``end`` at the latest.

    Goes to a cheap cut where one is near, and takes the rest where it would be too small for a chunk of its own.
    Where the job is cut at multiples, that is the next of them, unless the chunk had more than ``longest`` rows.
    """
    if job.cut_multiple is not None:
        multiple = min((start // job.cut_multiple + 1) * job.cut_multiple, end)
        return multiple if multiple - start <= longest else min(start + rows, multiple)
    stop = min(start + rows, end)
    stop = _nearest_cheap_cut(job, start, stop, rows) or stop
    if end - stop < job.min_chunk_rows and end - start <= job.max_chunk_rows:
        return end
    return stop


def even_cuts(start: int, stop: int, parts: int) -> list[int]:
    """Return where rows are cut into so many parts of about equal length, both ends among them."""
    parts = min(parts, stop - start)
    return [start + (stop - start) * part // parts for part in range(parts + 1)]


def _nearest_cheap_cut(job: JobSubmitted, start: int, stop: int, rows: int) -> int | None:
    cuts = job.cheap_cuts
    slack = int(rows * _CUT_NEAR_SHARE)
    lowest = max(stop - slack, start + job.min_chunk_rows)
    highest = min(stop + slack, start + job.max_chunk_rows)
    at = bisect_left(cuts, stop)
    near = [cut for cut in cuts[max(at - 1, 0) : at + 1] if lowest <= cut <= highest]
    return min(near, key=lambda cut: abs(cut - stop), default=None)
