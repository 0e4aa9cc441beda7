"""Rows are let in as they come, and only as far as somebody takes their results."""

import threading
from dataclasses import replace

import pytest

from ovray.core.events import JobSubmitted
from ovray.core.ids import JobId
from ovray.scoring.flow import PORTIONS, Flow, StoppedError
from tests.waiting import DEADLINE_S

#: With these, one replica has portions of 100 rows, and there is room for four of them.
CUTS = JobSubmitted(job=JobId(0), ranges=(), min_chunk_rows=1, max_chunk_rows=800)
PORTION = 100
ROOM = PORTIONS * PORTION


def a_flow(*, rows: int = 0, replicas: int = 1, multiple: int | None = None) -> Flow:
    flow = Flow(replace(CUTS, cut_multiple=multiple))
    flow.add(rows)
    return flow.open(replicas, lambda: None)


def let_in(flow: Flow) -> list[tuple[int, int]]:
    """Take all that the flow gives now."""
    taken = []
    while (job := flow.take()) is not None:
        taken.extend(job.ranges)
    return taken


def test_rows_are_let_in_only_as_far_as_there_is_room_for_results() -> None:
    flow = a_flow(rows=10_000)

    assert let_in(flow) == [(0, ROOM)]


def test_results_that_are_taken_make_room_for_as_many_rows() -> None:
    flow = a_flow(rows=10_000)
    let_in(flow)
    flow.done(ROOM)

    assert let_in(flow) == []  # done, but nobody has taken them

    flow.taken(250)
    assert let_in(flow) == [(ROOM, ROOM + 250)]


def test_room_grows_with_the_replicas() -> None:
    assert let_in(a_flow(rows=10_000, replicas=3)) == [(0, 3 * ROOM)]


def test_no_little_portions_while_there_is_enough_in_work() -> None:
    flow = a_flow(rows=10_000)
    let_in(flow)
    flow.done(50)
    flow.taken(50)

    assert let_in(flow) == []

    flow.done(ROOM - PORTION - 49)
    assert let_in(flow) == [(ROOM, ROOM + 50)]


class TestMultiples:
    """Where chunks end at multiples of a number of rows."""

    def test_portions_end_there_too_and_the_last_one_at_the_end(self) -> None:
        flow = a_flow(rows=250, multiple=120)
        assert let_in(flow) == [(0, 240)]

        flow.done(240)
        flow.add(30)
        assert let_in(flow) == []  # 120 may yet come

        flow.end()
        assert let_in(flow) == [(240, 280)]
        assert flow.is_exhausted

    def test_room_that_is_still_to_come_is_waited_for(self) -> None:
        flow = a_flow(rows=10_000, multiple=300)
        assert let_in(flow) == [(0, 300)]

        flow.done(300)
        assert let_in(flow) == []
        flow.taken(300)
        assert let_in(flow) == [(300, 600)]

    def test_more_than_there_is_ever_room_for_comes_in_pieces(self) -> None:
        flow = a_flow(rows=10_000, multiple=ROOM + 1)
        assert let_in(flow) == [(0, ROOM)]

        flow.done(ROOM)
        flow.taken(ROOM)
        assert let_in(flow) == [(ROOM, ROOM + 1)]


def test_each_portion_is_a_job_of_its_own() -> None:
    flow = a_flow(rows=10)
    first = flow.take()
    flow.add(10)
    second = flow.take()

    assert first is not None
    assert second is not None
    assert first.job != second.job
    assert second.ranges == ((10, 20),)


def test_a_flow_is_exhausted_when_its_last_row_is_let_in_and_not_before() -> None:
    flow = a_flow(rows=ROOM + 1)
    flow.end()
    let_in(flow)
    assert not flow.is_exhausted

    flow.done(ROOM)
    flow.taken(ROOM)
    let_in(flow)
    assert flow.is_exhausted


def test_a_flow_without_an_end_is_never_exhausted() -> None:
    flow = a_flow(rows=1)
    let_in(flow)

    assert not flow.is_exhausted


def test_an_error_of_whoever_adds_rows_ends_the_job() -> None:
    flow = a_flow(rows=1)
    flow.fail(KeyError("lost"))

    with pytest.raises(KeyError, match="lost"):
        flow.take()


def test_who_adds_rows_waits_until_results_are_taken() -> None:
    flow = a_flow(rows=ROOM)
    passed = threading.Event()
    adder = threading.Thread(target=lambda: flow.wait_for_room() and passed.set(), daemon=True)
    adder.start()
    assert not passed.wait(0.05)

    flow.taken(1)

    assert passed.wait(DEADLINE_S)


def test_who_adds_rows_is_told_when_nobody_wants_them_any_more() -> None:
    flow = a_flow(rows=ROOM)
    answers: list[bool] = []
    adder = threading.Thread(target=lambda: answers.append(flow.wait_for_room()), daemon=True)
    adder.start()

    flow.stop()
    adder.join(DEADLINE_S)

    assert answers == [False]
    with pytest.raises(StoppedError):
        flow.take()


def test_the_driver_is_nudged_by_new_rows_and_by_new_room() -> None:
    nudges: list[str] = []
    flow = Flow(CUTS)
    flow.open(1, lambda: nudges.append("!"))

    flow.add(1)
    flow.taken(0)
    flow.end()

    assert len(nudges) == 3
