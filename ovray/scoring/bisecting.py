"""Finds the rows of a batch that fail, with few tries, so that the others are done.

Pure: it knows neither what is tried nor what rows are.  May not enter: inference, functions, files.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from ovray.scoring.bad_rows import BadRowError

Made = TypeVar("Made")


def bisected(
    start: int,
    stop: int,
    attempt: Callable[[int, int], Made],
    blame: Callable[[int, BadRowError], None],
    none_alone: Callable[[BadRowError], None] = lambda _: None,
) -> Iterator[tuple[int, int, Made]]:
    """Yield what an attempt makes of rows, in ascending runs that leave out those that fail alone.

    A run that fails is tried again in halves; where the error says which row it is about, that row is tried alone
    and the others around it.  So n rows of which b are bad take about 1 + 2 * b * log2(n) tries at the most, and
    never more than 2 * n.

    Args:
        start: First row.
        stop: The row behind the last; with no rows nothing is tried.
        attempt: Does rows, all or none; raises BadRowError where it cannot.
        blame: Is told of each row that fails alone, in ascending order, before what follows it is tried.
        none_alone: Is told at the end why rows failed together, if none of them fails alone.
    """
    first_failure: BadRowError | None = None
    blamed = 0
    #: Runs to be tried, the next one last.
    runs = [(start, stop)]
    while runs:
        start, stop = runs.pop()
        if start == stop:
            continue
        try:
            made = attempt(start, stop)
        except BadRowError as error:
            first_failure = first_failure or error
            if stop - start == 1:
                blamed += 1
                blame(start, error)
                continue
            cuts = [(start + stop) // 2] if error.index is None else [start + error.index, start + error.index + 1]
            runs.extend(reversed(list(zip([start, *cuts], [*cuts, stop], strict=True))))
        else:
            yield start, stop, made
    if first_failure is not None and not blamed:
        none_alone(first_failure)


def first_failing(start: int, stop: int, attempt: Callable[[int, int], object]) -> int:
    """Return the first row that fails of rows that are known to fail together.

    For rows that are decoded one after the other, so that none can be had behind one that fails.  The first row is
    tried first: mostly it is the one, since what failed lies before all of them.  Then it takes as many tries as
    the logarithm of the rows.

    Args:
        start: First row.
        stop: The row behind the last.
        attempt: Does rows; raises BadRowError where it cannot.
    """
    middle = start + 1
    while stop - start > 1:
        try:
            attempt(start, middle)
        except BadRowError:
            stop = middle
        else:
            start = middle
        middle = (start + stop) // 2
    return start
