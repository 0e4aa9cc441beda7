"""The story of a job: what is remembered of it, from events one by one and from whole simulated jobs."""

import random

import pytest

from ovray.core.events import Completed, Failed, FailureCause, ReplicaDraining, ReplicaLost
from ovray.core.faults import Death, SlowDown
from ovray.core.ids import DispatchId, ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.core.simulated_replica import ReplicaModel
from ovray.core.simulation import Simulation, Surroundings
from ovray.driver.journal import SPANS_KEPT, Fate, Journal, Sending
from ovray.driver.time_bins import BINS, TimeBins
from tests.unit.scheduling import a_job, a_ready_replica, a_scheduler, chunks


class Story:
    """Is a scheduler with a journal that listens to it."""

    def __init__(self) -> None:
        self.scheduler, self.journal = a_scheduler(), Journal()

    def tell(self, event: object, now_s: float) -> list[tuple[str, DispatchId, int, int]]:
        """Tells both; returns what was sent to whom."""
        commands = self.scheduler.handle(event, now_s)  # type: ignore[arg-type]
        self.journal.note(now_s, event, commands)  # type: ignore[arg-type]
        return [(sent.replica, sent.dispatch, sent.start, sent.stop) for sent in chunks(commands)]


def models(count: int, *, row_s: float = 0.01) -> list[ReplicaModel]:
    return [ReplicaModel(id=ReplicaId(f"r{n}"), row_s=row_s * (1 + n % 3), jitter=0.2) for n in range(count)]


def played(
    count: int, rows: int, around: Surroundings | None = None, *, row_s: float = 0.01, **details: object
) -> Journal:
    journal = Journal()
    scheduler = Scheduler(chance=random.Random(0))
    simulation = Simulation(scheduler, models(count, row_s=row_s), around, observer=journal.note)
    report = simulation.run_job(rows, **details)
    assert report.failure is None
    assert report.lost == 0
    journal.close()
    return journal


class TestSpans:
    def test_work_begins_when_the_replica_had_answered_what_it_held_before(self) -> None:
        story = Story()
        story.tell(a_job(100, max_chunk_rows=10), 50.0)
        sent = story.tell(a_ready_replica("a", chunk_window=2), 51.0)
        assert [(start, stop) for _, _, start, stop in sent] == [(0, 10), (10, 20)]

        for (_, dispatch, *_), answered_s in zip(sent, (52.0, 54.0), strict=True):
            story.tell(Completed(replica=ReplicaId("a"), dispatch=dispatch), answered_s)

        first, second = story.journal.spans
        assert (first.sent_s, first.began_s, first.ended_s) == (1.0, 1.0, 2.0)
        assert (second.sent_s, second.began_s, second.ended_s) == (1.0, 2.0, 4.0)
        assert {span.fate for span in story.journal.spans} == {Fate.DONE}
        assert story.journal.lanes[ReplicaId("a")].idle_s(4.0) == 0.0

    def test_rows_that_come_back_are_sent_again_as_a_retry(self) -> None:
        story = Story()
        story.tell(a_job(100, max_chunk_rows=100), 0.0)
        [(_, dispatch, start, _)] = story.tell(a_ready_replica("a", rate=None), 0.0)
        [(_, other, _, _)] = story.tell(a_ready_replica("b", rate=None), 0.0)

        failed = Failed(
            replica=ReplicaId("a"), dispatch=dispatch, cause=FailureCause.DEVICE, message="out of memory"
        )
        story.tell(failed, 1.0)
        again = story.tell(Completed(replica=ReplicaId("b"), dispatch=other), 2.0)

        (mark,) = story.journal.marks
        assert (mark.replica, mark.start, mark.fate, mark.message) == ("a", start, Fate.FAILED, "out of memory")
        assert [(replica, at) for replica, _, at, _ in again][:1] == [("b", start)]
        assert story.journal.sendings(Sending.RETRY) == 1

    def test_a_lost_replica_takes_what_it_holds_with_it_and_is_not_idle_while_it_is_away(self) -> None:
        story = Story()
        story.tell(a_job(10_000), 0.0)
        story.tell(a_ready_replica("a", chunk_window=2), 0.0)
        story.tell(a_ready_replica("b", chunk_window=2), 0.0)

        story.tell(ReplicaLost(replica=ReplicaId("a"), reason="killed"), 3.0)
        story.tell(a_ready_replica("a", chunk_window=2), 8.0)

        lane = story.journal.lanes[ReplicaId("a")]
        assert story.journal.fates(Fate.LOST) == 2
        assert (lane.there_s(8.0), lane.idle_s(8.0), lane.gone_s) == (3.0, 0.0, None)

    def test_a_replica_that_is_sent_away_is_not_idle_afterwards(self) -> None:
        story = Story()
        story.tell(a_job(1_000), 0.0)
        sent = story.tell(a_ready_replica("a", chunk_window=1), 0.0)
        story.tell(a_ready_replica("b", chunk_window=1), 0.0)

        story.tell(ReplicaDraining(replica=ReplicaId("a")), 1.0)
        story.tell(Completed(replica=ReplicaId("a"), dispatch=sent[0][1]), 2.0)
        story.tell(a_ready_replica("c"), 9.0)

        lane = story.journal.lanes[ReplicaId("a")]
        assert (lane.gone_s, lane.idle_s(9.0), lane.last_idle_s(9.0)) == (2.0, 0.0, 0.0)


class TestWholeJobs:
    def test_every_row_is_done_in_one_span(self) -> None:
        around = Surroundings(
            faults=(
                Death(replica=ReplicaId("r1"), at_s=2.0, back_s=4.0),
                Death(replica=ReplicaId("r2"), at_s=3.0),
                SlowDown(replica=ReplicaId("r0"), at_s=1.0, factor=0.3),
            )
        )

        journal = played(5, 3_000, around, max_chunk_s=1.0)

        assert journal.is_complete
        done = sorted((span.start, span.stop) for span in journal.spans if span.fate is Fate.DONE)
        assert [start for start, _ in done] == [0, *(stop for _, stop in done[:-1])]
        assert done[-1][1] == journal.rows_done == 3_000
        assert journal.fates(Fate.LOST) > 0
        assert journal.sendings(Sending.RETRY) > 0
        for lane in journal.lanes.values():
            assert 0.0 <= lane.idle_s(journal.ended_s) <= lane.there_s(journal.ended_s) <= journal.ended_s

    def test_rows_and_work_over_time_add_up(self) -> None:
        journal = played(4, 2_000)

        assert sum(rows for *_, rows in journal.rows.until(journal.ended_s)) == pytest.approx(2_000)
        for lane in journal.lanes.values():
            assert sum(work for *_, work in lane.work.until(journal.ended_s)) == pytest.approx(lane.working_s)

    def test_copies_of_the_last_chunks_are_told_apart(self) -> None:
        slowed = Surroundings(faults=(SlowDown(replica=ReplicaId("r0"), at_s=3.0, factor=0.02),))

        with_copies = played(4, 2_000, slowed)
        without = played(4, 2_000, slowed, max_backups=0)

        assert with_copies.sendings(Sending.COPY) > 0
        assert with_copies.copies_won > 0
        assert with_copies.fates(Fate.NEEDLESS) > 0
        assert without.sendings(Sending.COPY) == 0
        assert without.tail_began_s() < without.ended_s

    def test_of_many_chunks_the_last_are_remembered_and_the_rest_adds_up(self) -> None:
        journal = played(10, 10_000, row_s=0.1, max_chunk_rows=1)

        assert not journal.is_complete
        assert journal.spans_ended >= 10_000
        assert len(journal.spans) == SPANS_KEPT
        assert len(journal._open) == len(journal._starts) == 0
        assert journal.spans[-1].ended_s == journal.ended_s
        assert sum(rows for *_, rows in journal.rows.until(journal.ended_s)) == pytest.approx(10_000)


class TestTimeBins:
    def test_an_amount_is_spread_over_its_time(self) -> None:
        bins = TimeBins()

        bins.add(0.5, 2.5, 10.0)

        found = list(bins.until(2.5))
        assert sum(amount for *_, amount in found) == pytest.approx(10.0)
        assert all(amount == 0.0 for began_s, ended_s, amount in found if ended_s <= 0.5)
        assert all(
            amount == pytest.approx(5.0 * (ended_s - began_s))
            for began_s, ended_s, amount in found
            if began_s > 0.5
        )

    def test_a_longer_time_makes_bins_wider_and_loses_nothing(self) -> None:
        bins = TimeBins()

        for second in range(10_000):
            bins.add(float(second), second + 1.0, 2.0)

        found = list(bins.until(10_000.0))
        assert len(found) <= BINS
        assert found[-1][1] == 10_000.0
        assert sum(amount for *_, amount in found) == pytest.approx(20_000.0)
        assert all(
            amount == pytest.approx(2.0 * (ended_s - began_s), rel=1e-6) for began_s, ended_s, amount in found
        )

    def test_a_moment_has_its_place_too(self) -> None:
        bins = TimeBins()

        bins.add(3.0, 3.0, 7.0)

        assert sum(amount for *_, amount in bins.until(4.0)) == 7.0
