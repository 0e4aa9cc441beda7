"""Which rows are found to fail, and how many tries it takes."""

import math

from hypothesis import given
from hypothesis import strategies as st

from ovray.scoring.bad_rows import BadRowError
from ovray.scoring.bisecting import bisected, first_failing


class Rows:
    """Are tried, and fail where a bad one is among them."""

    def __init__(self, bad: set[int], *, says_which: bool = False) -> None:
        self.bad = bad
        self.says_which = says_which
        self.tries = 0

    def attempt(self, start: int, stop: int) -> list[int]:
        self.tries += 1
        for row in range(start, stop):
            if row in self.bad:
                raise BadRowError(f"row {row}", index=row - start if self.says_which else None)
        return list(range(start, stop))


ROWS = st.integers(0, 200).flatmap(
    lambda count: st.tuples(st.just(count), st.sets(st.integers(0, max(count - 1, 0)), max_size=count))
)


@given(rows=ROWS, says_which=st.booleans())
def test_exactly_the_rows_that_fail_are_blamed_with_few_tries(
    rows: tuple[int, set[int]], says_which: bool
) -> None:
    count, bad = rows
    tried = Rows(bad, says_which=says_which)
    told: list[int] = []

    made: list[int] = []
    for start, stop, run in bisected(0, count, tried.attempt, lambda row, _: told.append(row)):
        assert told == sorted(row for row in bad if row < start), "rows are told of before what follows them"
        assert run == list(range(start, stop))
        made.extend(run)

    assert told == sorted(row for row in bad if row < count)
    assert made == [row for row in range(count) if row not in bad]
    assert tried.tries <= 1 + 2 * len(told) * math.ceil(math.log2(max(count, 2)))
    assert tried.tries <= max(1, 3 * count if says_which else 2 * count)


def test_what_fails_together_and_never_alone_is_told_at_the_end() -> None:
    told: list[str] = []

    def attempt(start: int, stop: int) -> None:
        if stop - start > 2:
            raise BadRowError(f"{stop - start} rows")

    runs = [
        run[:2] for run in bisected(0, 8, attempt, lambda *_: told.append("blamed"), lambda e: told.append(str(e)))
    ]

    assert runs == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert told == ["8 rows"]


@given(start=st.integers(0, 50), rows=st.integers(1, 200), data=st.data())
def test_the_first_row_behind_which_nothing_can_be_had_is_found(
    start: int, rows: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(start, start + rows - 1))
    tried = Rows(set(range(first, start + rows)))

    assert first_failing(start, start + rows, tried.attempt) == first
    assert tried.tries <= 2 + math.log2(rows)
