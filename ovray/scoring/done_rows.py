"""Tells from the parts in a folder which rows are done, and which are left to do.

The folder is the record: a part that is whole holds the rows that its name states, but for those in the file of
errors of the same name (error_files.py).  May not enter: how parts are written (parts.py), what happens to those
that do not count (settling.py).
"""

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ovray.scoring.error_files import error_rows_in, list_error_files
from ovray.scoring.parts import OutputFolder, rows_in_file

#: A half-open range of rows.
Range = tuple[int, int]

#: Threads that count the rows of parts; they hide the latency of object stores.
_THREADS = 16


def choose(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Return ranges of which no two hold the same row, in order; the same ones whatever the order they come in.

    A replica that was lost may have left a part whose rows were cut anew since, into parts that lie within it.
    The outermost is taken then; a row that is left out by this is scored again.
    """
    chosen: list[Range] = []
    for start, stop in sorted(ranges, key=lambda one: (one[0], -one[1])):
        if start < stop and (not chosen or start >= chosen[-1][1]):
            chosen.append((start, stop))
    return tuple(chosen)


def missing(done: Sequence[Range], rows: int) -> tuple[Range, ...]:
    """Return the ranges that are left of ``rows`` rows, in order.

    Args:
        done: in order, without overlap.
        rows: of the whole data set.
    """
    starts = [0, *(stop for _, stop in done)]
    stops = [*(start for start, _ in done), rows]
    return tuple((start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop)


def count(ranges: Iterable[Range]) -> int:
    """Return how many rows there are in ranges that do not overlap."""
    return sum(stop - start for start, stop in ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholePart:
    """Is a part that holds, with its file of errors if it has one, all rows of its range."""

    rows: Range
    #: How many of its rows could not be scored.
    errors: int


def whole(folder: OutputFolder, ranges: Sequence[Range]) -> list[WholePart]:
    """Return what those parts are that can be read and account for all rows of their name, in the order given."""
    with_errors = list_error_files(folder)
    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        found = threads.map(lambda one: _whole_part(folder, one, with_errors), ranges)
        return [part for part in found if part is not None]


def count_errors(parts: Iterable[WholePart]) -> int:
    """Return how many rows of some parts could not be scored."""
    return sum(part.errors for part in parts)


def _whole_part(folder: OutputFolder, rows: Range, with_errors: Collection[Range]) -> WholePart | None:
    good = rows_in_file(folder, folder.part_name(*rows), folder.format)
    if good is None:
        return None
    lacking = rows[1] - rows[0] - good
    # A part that lacks nothing needs no errors: those of its name are what a copy left that was killed.
    if lacking and (rows not in with_errors or error_rows_in(folder, rows) != lacking):
        return None
    return WholePart(rows=rows, errors=lacking)
