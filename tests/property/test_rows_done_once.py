from hypothesis import given
from hypothesis import strategies as st

from ovray.scoring.done_rows import choose, missing

ROWS = 40
RANGES = st.lists(st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)), max_size=12)


@given(ranges=RANGES)
def test_what_is_chosen_and_what_is_missing_hold_every_row_once(
    ranges: list[tuple[int, int]],
) -> None:
    done = choose(ranges)

    rows = [row for start, stop in (*done, *missing(done, ROWS)) for row in range(start, stop)]
    assert sorted(rows) == list(range(ROWS))
    assert set(done) <= set(ranges)


@given(ranges=RANGES, data=st.data())
def test_the_choice_does_not_depend_on_the_order_in_which_parts_are_listed(
    ranges: list[tuple[int, int]], data: st.DataObject
) -> None:
    assert choose(data.draw(st.permutations(ranges))) == choose(ranges)


@given(cuts=st.lists(st.lists(st.integers(1, ROWS - 1), max_size=4), max_size=4))
def test_of_parts_that_were_cut_anew_within_each_other_no_row_is_lost(cuts: list[list[int]]) -> None:
    # given: a piece, cut again and again within what was cut before
    levels = [{0, ROWS}]
    for cut in cuts:
        levels.append(levels[-1] | set(cut))
    nested = [pair for level in levels for pair in zip(sorted(level)[:-1], sorted(level)[1:], strict=True)]

    assert missing(choose(nested), ROWS) == ()
