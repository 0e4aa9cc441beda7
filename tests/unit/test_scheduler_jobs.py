import pytest

from ovray.core.commands import (
    CancelDispatch,
    Command,
    CommitChunk,
    FailJob,
    FinishJob,
    ReleaseReplica,
    SendChunk,
    WakeAt,
)
from ovray.core.events import (
    Completed,
    Event,
    Failed,
    FailureCause,
    JobCancelled,
    JobSubmitted,
    Poison,
    ReplicaDraining,
    ReplicaLost,
    TimerFired,
)
from ovray.core.ids import DispatchId, ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.core.settings import SchedulerSettings
from ovray.errors import InvariantError
from tests.unit.scheduling import JOB, a_job, a_ready_replica, a_scheduler, chunks, only

A, B, C, D = ReplicaId("a"), ReplicaId("b"), ReplicaId("c"), ReplicaId("d")


def test_a_job_is_cut_into_chunks_that_are_committed_once_and_finishes() -> None:
    scheduler = a_scheduler(a_ready_replica("a", rate=10.0))
    commands = scheduler.handle(a_job(40), 0.0)
    now_s, committed = 0.0, []

    while not only(FinishJob, commands):
        [sent] = chunks(commands)
        now_s += (sent.stop - sent.start) / 10.0
        commands = scheduler.handle(Completed(replica=A, dispatch=sent.dispatch), now_s)
        committed += only(CommitChunk, commands)

    assert committed[0].start == 0
    assert [commit.stop for commit in committed[:-1]] == [commit.start for commit in committed[1:]]
    assert committed[-1].stop == 40
    assert now_s == 4.0


def test_a_job_without_rows_finishes_at_once() -> None:
    scheduler = a_scheduler()

    assert scheduler.handle(JobSubmitted(job=JOB, ranges=()), 0.0) == [FinishJob(job=JOB)]


def test_rows_done_by_an_earlier_run_are_left_out() -> None:
    scheduler = a_scheduler(a_ready_replica("a", chunk_window=9))

    commands = scheduler.handle(
        JobSubmitted(job=JOB, ranges=((5, 10), (20, 25)), min_chunk_rows=5, max_chunk_rows=5), 0.0
    )

    assert [(sent.start, sent.stop) for sent in chunks(commands)] == [(5, 10), (20, 25)]


#: Rows that came back are sent again as they were.
IN_ONE_PART = SchedulerSettings(parts_of_suspects=1)


def test_rows_of_a_lost_replica_go_to_another() -> None:
    scheduler = a_scheduler(a_ready_replica("a"), settings=IN_ONE_PART)
    [sent] = chunks(scheduler.handle(a_job(4, min_chunk_rows=4, max_backups=0), 0.0))
    scheduler.handle(a_ready_replica("b"), 1.0)

    again = chunks(scheduler.handle(ReplicaLost(replica=A, reason="killed"), 2.0))

    assert [(again[0].replica, again[0].start, again[0].stop)] == [(B, sent.start, sent.stop)]


def test_late_result_of_a_lost_replica_is_dropped() -> None:
    scheduler = a_scheduler(a_ready_replica("a"), a_ready_replica("b"))
    sent = {sent.replica: sent for sent in chunks(scheduler.handle(a_job(8, min_chunk_rows=4), 0.0))}
    scheduler.handle(ReplicaLost(replica=A, reason="killed"), 0.1)

    late = scheduler.handle(Completed(replica=A, dispatch=sent[A].dispatch), 0.2)

    assert only(CommitChunk, late) == []
    assert scheduler.snapshot().counters["late_answers"] == 1


def test_a_silent_replica_whose_work_others_have_done_works_again_once_it_is_heard() -> None:
    # given: `a` was silent for so long that its chunk was copied, and the copy is done
    scheduler = a_scheduler(a_ready_replica("a"), a_ready_replica("b"))
    sent = {sent.replica: sent for sent in chunks(scheduler.handle(a_job(400, max_chunk_rows=10), 0.0))}
    mine, now_s = sent[B], 0.0
    while scheduler.snapshot().replicas[0].chunks_outstanding or not scheduler.snapshot().replicas[0].is_stalled:
        now_s += 1.0
        said = [*scheduler.handle(Completed(replica=B, dispatch=mine.dispatch), now_s)]
        said += scheduler.handle(TimerFired(), now_s)
        mine = next((chunk for chunk in chunks(said) if chunk.replica == B), mine)

    # when
    commands = scheduler.handle(Completed(replica=A, dispatch=sent[A].dispatch), now_s)

    # then
    assert only(CommitChunk, commands) == []
    assert A in [chunk.replica for chunk in chunks(commands)]


def test_a_job_waits_without_a_live_replica_and_goes_on_when_one_is_back() -> None:
    scheduler = a_scheduler(a_ready_replica("a"), settings=IN_ONE_PART)
    scheduler.handle(a_job(4, min_chunk_rows=4), 0.0)
    scheduler.handle(ReplicaLost(replica=A, reason="killed"), 1.0)
    assert not scheduler.snapshot().has_live_replica

    commands = scheduler.handle(a_ready_replica("a"), 2.0)

    assert [(sent.start, sent.stop) for sent in chunks(commands)] == [(0, 4)]


def test_rows_that_were_held_by_three_replicas_when_they_died_are_poison() -> None:
    scheduler = a_scheduler(a_ready_replica("a"), settings=IN_ONE_PART)
    scheduler.handle(a_job(4, min_chunk_rows=4, max_backups=0), 0.0)
    for name in "bcd":
        scheduler.handle(a_ready_replica(name), 0.0)
    scheduler.handle(ReplicaLost(replica=A, reason="killed"), 1.0)
    scheduler.handle(ReplicaLost(replica=B, reason="killed"), 2.0)

    [failure] = only(FailJob, scheduler.handle(ReplicaLost(replica=C, reason="exit code 139"), 3.0))

    assert (failure.start, failure.stop) == (0, 4)
    assert failure.message == (
        "3 replicas died while they held these rows, the last one: exit code 139; "
        "given up as poison; look at these rows or raise max_replicas_killed"
    )


def _dying_of(poison: frozenset[int], scheduler: Scheduler, job: JobSubmitted) -> tuple[list[Command], int]:
    """Play a job whose replicas die, one by one, of certain rows and come back; return all commands and deaths."""
    commands = scheduler.handle(job, 0.0)
    waiting, said, deaths, now_s = list(commands), list(commands), 0, 0.0
    while waiting:
        sent = waiting.pop(0)
        now_s += 1.0
        if isinstance(sent, WakeAt):
            answer: Event = TimerFired()
        elif not isinstance(sent, SendChunk):
            continue
        elif sent.verdict is None and poison & set(range(sent.start, sent.stop)):
            deaths += 1
            answer = ReplicaLost(replica=sent.replica, reason="killed")
            waiting = [other for other in waiting if getattr(other, "replica", None) != sent.replica]
        else:
            answer = Completed(replica=sent.replica, dispatch=sent.dispatch)
        news = scheduler.handle(answer, now_s)
        if isinstance(answer, ReplicaLost):
            news += scheduler.handle(a_ready_replica(answer.replica, chunk_window=2), now_s)
        scheduler.check_invariants()
        waiting += news
        said += news
    return said, deaths


def test_a_row_that_kills_is_found_and_named_before_a_fourth_replica_dies() -> None:
    scheduler = a_scheduler(a_ready_replica("a", chunk_window=2), a_ready_replica("b", chunk_window=2))

    said, deaths = _dying_of(frozenset({700}), scheduler, a_job(1000, min_chunk_rows=256, max_chunk_rows=256))

    [failure] = only(FailJob, said)
    assert (failure.start, failure.stop) == (700, 701)
    assert deaths == 3


def test_rows_that_kill_are_put_aside_and_all_others_are_run() -> None:
    scheduler = a_scheduler(a_ready_replica("a", chunk_window=2), a_ready_replica("b", chunk_window=2))
    job = a_job(1000, min_chunk_rows=256, max_chunk_rows=256, poison=Poison.PUT_ASIDE)

    said, deaths = _dying_of(frozenset({0, 699, 700}), scheduler, job)

    assert only(FailJob, said) == []
    put_aside = {(sent.start, sent.stop): sent.verdict for sent in chunks(said) if sent.verdict is not None}
    assert sorted(put_aside) == [(0, 1), (699, 700), (700, 701)]
    assert "replicas died while they held these rows, the last one: killed" in str(put_aside[700, 701])
    committed = [row for commit in only(CommitChunk, said) for row in range(commit.start, commit.stop)]
    assert sorted(committed) == list(range(1000))
    assert deaths <= 9


def test_rows_that_were_beside_those_that_kill_are_never_blamed() -> None:
    # given: one replica, so that whatever is left waits beside the poison
    scheduler = a_scheduler(a_ready_replica("a", chunk_window=2))

    said, _ = _dying_of(frozenset({3}), scheduler, a_job(8, min_chunk_rows=4, poison=Poison.PUT_ASIDE))

    assert {(sent.start, sent.stop) for sent in chunks(said) if sent.verdict is not None} == {(3, 4)}


def test_a_chunk_that_failed_on_a_device_is_tried_on_another() -> None:
    scheduler = a_scheduler(a_ready_replica("a", rate=100.0))
    [sent] = chunks(scheduler.handle(a_job(4, min_chunk_rows=4), 0.0))
    scheduler.handle(a_ready_replica("b", rate=1.0), 0.0)

    failure = Failed(replica=A, dispatch=sent.dispatch, cause=FailureCause.DEVICE, message="out of memory")
    [again] = chunks(scheduler.handle(failure, 1.0))

    assert again.replica == B


def test_a_chunk_that_fails_on_the_only_replica_is_given_up_after_three_tries() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    commands = scheduler.handle(a_job(4, min_chunk_rows=4), 0.0)

    for _ in range(3):
        [sent] = chunks(commands)
        failure = Failed(replica=A, dispatch=sent.dispatch, cause=FailureCause.DEVICE, message="out of memory")
        commands = scheduler.handle(failure, 1.0)

    [failed] = only(FailJob, commands)
    message = "out of memory; given up after 3 tries"
    assert failed == FailJob(job=JOB, message=message, start=0, stop=4, cause=FailureCause.DEVICE)


def test_a_failure_of_the_input_fails_the_job_and_cancels_its_other_chunks() -> None:
    scheduler = a_scheduler(a_ready_replica("a"), a_ready_replica("b"))
    sent = {sent.replica: sent for sent in chunks(scheduler.handle(a_job(8, min_chunk_rows=4), 0.0))}

    failure = Failed(replica=A, dispatch=sent[A].dispatch, cause=FailureCause.INPUT, message="row 3 is no picture")
    commands = scheduler.handle(failure, 1.0)

    assert commands == [
        CancelDispatch(replica=B, dispatch=sent[B].dispatch),
        FailJob(
            job=JOB,
            message="row 3 is no picture",
            start=sent[A].start,
            stop=sent[A].stop,
            cause=FailureCause.INPUT,
        ),
    ]


def test_a_cancelled_job_ends_once_and_takes_its_chunks_back() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    [sent] = chunks(scheduler.handle(a_job(8), 0.0))

    commands = scheduler.handle(JobCancelled(job=JOB), 1.0)

    assert commands == [
        CancelDispatch(replica=A, dispatch=sent.dispatch),
        FailJob(job=JOB, message="cancelled by its caller"),
    ]
    assert scheduler.handle(JobCancelled(job=JOB), 2.0) == []


def test_a_draining_replica_finishes_what_it_holds_and_is_released() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    [sent] = chunks(scheduler.handle(a_job(8), 0.0))

    assert only(ReleaseReplica, scheduler.handle(ReplicaDraining(replica=A), 0.1)) == []
    commands = scheduler.handle(Completed(replica=A, dispatch=sent.dispatch), 0.2)

    assert chunks(commands) == []
    assert only(ReleaseReplica, commands) == [ReleaseReplica(replica=A)]


def test_the_last_chunk_of_a_slow_replica_is_copied_and_the_first_commit_wins() -> None:
    scheduler = a_scheduler(a_ready_replica("a", rate=1.0))
    [original] = chunks(scheduler.handle(a_job(4, min_chunk_rows=4), 0.0))

    [copy] = chunks(scheduler.handle(a_ready_replica("b", rate=100.0), 1.0))
    commands = scheduler.handle(Completed(replica=B, dispatch=copy.dispatch), 1.04)

    assert (copy.replica, copy.start, copy.stop) == (B, 0, 4)
    assert commands == [
        CommitChunk(job=JOB, dispatch=copy.dispatch, replica=B, start=0, stop=4),
        CancelDispatch(replica=A, dispatch=original.dispatch),
        FinishJob(job=JOB),
    ]
    assert only(CommitChunk, scheduler.handle(Completed(replica=A, dispatch=original.dispatch), 4.0)) == []


def test_a_chunk_that_is_overdue_is_copied_on_an_equal_replica() -> None:
    scheduler = a_scheduler(a_ready_replica("a", rate=4.0), a_ready_replica("b", rate=4.0))
    sent = {sent.replica: sent for sent in chunks(scheduler.handle(a_job(8, min_chunk_rows=4), 0.0))}
    commands = scheduler.handle(Completed(replica=B, dispatch=sent[B].dispatch), 1.0)
    now_s = 1.0

    while not chunks(commands) and now_s < 60.0:
        [wake] = only(WakeAt, commands)
        now_s = wake.at_s
        commands = scheduler.handle(TimerFired(), now_s)

    [copy] = chunks(commands)
    assert (copy.replica, copy.start) == (B, sent[A].start)
    assert 1.9 < now_s < 3.0


def test_chunks_end_at_a_cheap_cut_that_is_near() -> None:
    scheduler = a_scheduler(a_ready_replica("a", rate=1.0))

    [sent] = chunks(scheduler.handle(a_job(1000, min_chunk_rows=100, cheap_cuts=(90, 110, 300)), 0.0))

    assert (sent.start, sent.stop) == (0, 110)


def test_an_impossible_event_leaves_the_state_as_it_was() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    before = scheduler.snapshot()

    with pytest.raises(InvariantError, match="ranges must ascend without overlap"):
        scheduler.handle(JobSubmitted(job=JOB, ranges=((5, 10), (8, 12))), 1.0)

    assert scheduler.snapshot() == before


def test_an_answer_in_another_replicas_name_is_dropped() -> None:
    scheduler = a_scheduler(a_ready_replica("a"), a_ready_replica("b"))
    sent = {sent.replica: sent for sent in chunks(scheduler.handle(a_job(8, min_chunk_rows=4), 0.0))}

    assert scheduler.handle(Completed(replica=B, dispatch=sent[A].dispatch), 0.1) == []
    assert scheduler.snapshot().counters["late_answers"] == 1


def test_a_replica_that_returns_during_the_tail_copies_nothing_that_is_copied_already() -> None:
    scheduler = a_scheduler(a_ready_replica("a", rate=1.0))
    scheduler.handle(a_job(4, min_chunk_rows=4, max_backups=1), 0.0)

    first = chunks(scheduler.handle(a_ready_replica("b", rate=100.0), 1.0))
    second = chunks(scheduler.handle(a_ready_replica("c", rate=100.0), 1.0))
    after_a_loss = chunks(scheduler.handle(ReplicaLost(replica=B, reason="killed"), 1.0))

    assert [sent.replica for sent in (*first, *second, *after_a_loss)] == [B, C]


def test_answers_and_losses_of_things_unknown_are_counted_and_dropped() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))

    assert scheduler.handle(Completed(replica=A, dispatch=DispatchId(99)), 1.0) == []
    assert scheduler.handle(ReplicaLost(replica=D, reason="killed"), 1.0) == []
    assert scheduler.handle(a_ready_replica("a"), 1.0) == []

    counters = scheduler.snapshot().counters
    assert (counters["late_answers"], counters["needless_events"]) == (1, 2)


def test_a_job_cut_at_multiples_has_whole_files_up_to_its_last_row() -> None:
    scheduler = a_scheduler(a_ready_replica("a", rate=100.0), a_ready_replica("b", rate=10.0, chunk_window=2))
    waiting = chunks(scheduler.handle(a_job(1030, cut_multiple=10, max_chunk_s=5.0), 0.0))
    committed: list[CommitChunk] = []
    now_s = 0.0

    while waiting:
        sent = waiting.pop(0)
        now_s += 0.1
        commands = scheduler.handle(Completed(replica=sent.replica, dispatch=sent.dispatch), now_s)
        scheduler.check_invariants()
        withdrawn = {cancelled.dispatch for cancelled in only(CancelDispatch, commands)}
        waiting = [one for one in [*waiting, *chunks(commands)] if one.dispatch not in withdrawn]
        committed += only(CommitChunk, commands)

    ranges = sorted((commit.start, commit.stop) for commit in committed)
    assert ranges == [(start, start + 10) for start in range(0, 1030, 10)]


def test_a_file_that_a_replica_would_take_too_long_for_is_done_in_pieces() -> None:
    scheduler = a_scheduler(a_ready_replica("a", rate=10.0))
    settings_first_chunk_s = 1.0

    [sent] = chunks(scheduler.handle(a_job(1000, cut_multiple=500), 0.0))

    assert (sent.start, sent.stop) == (0, 10 * settings_first_chunk_s)
