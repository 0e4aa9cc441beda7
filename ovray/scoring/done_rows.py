"""Tells from the parts in a folder which rows are done, and which are left to do.

The folder is the record: a part that is whole holds the rows that its name states.  May not enter: how parts are
written (parts.py), what happens to those that do not count (settling.py).
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from ovray.scoring.files import resolve
from ovray.scoring.parts import OutputFolder
from ovray.scoring.result_formats import rows_in

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


def whole(folder: OutputFolder, ranges: Sequence[Range]) -> list[Range]:
    """Return those ranges whose part can be read and holds as many rows as its name says, in the order given."""
    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        counted = threads.map(lambda one: _rows_in(folder, folder.part_name(*one)), ranges)
        return [(start, stop) for (start, stop), rows in zip(ranges, counted, strict=True) if rows == stop - start]


def _rows_in(folder: OutputFolder, name: str) -> int | None:
    """Return how many rows a part holds; ``None`` where there is none, or it is damaged."""
    filesystem, path = resolve(folder.location)
    try:
        with filesystem.open_input_file(f"{path.rstrip('/')}/{name}") as file:
            return rows_in(folder.format, file)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    except OSError as error:
        if error.errno is not None:
            raise  # of the system's; Arrow's own, on a footer that makes no sense, have no number
        return None
