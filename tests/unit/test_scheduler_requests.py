import itertools
from typing import Any

import pytest

from ovray.core.commands import (
    AcceptRequest,
    CancelDispatch,
    DeliverError,
    DeliverResult,
    ProbeReplica,
    RefuseRequest,
    ReleaseReplica,
    SendEnvelope,
    WakeAt,
)
from ovray.core.events import (
    Completed,
    Failed,
    FailureCause,
    PrioritiesChanged,
    ProbeFailed,
    ReplicaDraining,
    ReplicaLost,
    RequestCancelled,
    TimerFired,
    WhenFull,
)
from ovray.core.ids import DispatchId, ReplicaId, RequestId
from ovray.core.ledger import ReplicaState
from ovray.core.policies import SchedulePolicy
from ovray.core.requests import Requests
from ovray.core.scheduler import Scheduler
from ovray.core.settings import SchedulerSettings
from ovray.errors import InvariantError
from tests.unit.scheduling import a_ready_replica, a_request, a_scheduler, handle_all, only, sent_to

A, B, C = ReplicaId("a"), ReplicaId("b"), ReplicaId("c")
SMALL_QUEUE = SchedulerSettings(max_waiting_requests=1)


def complete_first(scheduler: Scheduler, replica: ReplicaId, sent: SendEnvelope, now_s: float) -> list[object]:
    return list(scheduler.handle(Completed(replica=replica, dispatch=sent.requests[0][0]), now_s))


def test_a_request_is_accepted_sent_and_its_result_delivered_once() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))

    accepted, sent = scheduler.handle(a_request(7), 0.0)[:2]
    delivered = scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)
    again = scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.2)

    assert accepted == AcceptRequest(request=RequestId(7))
    assert sent == SendEnvelope(replica=A, requests=((DispatchId(0), RequestId(7)),))
    assert delivered == [DeliverResult(request=RequestId(7), dispatch=DispatchId(0))]
    assert again == []


def test_at_low_load_an_envelope_holds_one_request() -> None:
    scheduler = a_scheduler(a_ready_replica("a", request_window=8))

    envelopes = only(SendEnvelope, handle_all(scheduler, [a_request(n) for n in range(4)], 0.0))

    assert [len(envelope.requests) for envelope in envelopes] == [1, 1, 1, 1]


def test_under_load_a_full_replica_is_refilled_with_one_envelope() -> None:
    # given a replica that runs 2, whose window is 10, and 30 more requests than it may hold
    scheduler = a_scheduler(a_ready_replica("a", rate=100.0, request_window=10, nireq=2))
    handle_all(scheduler, [a_request(n) for n in range(40)], 0.0)

    envelopes = []
    for answered in range(10):
        commands = scheduler.handle(Completed(replica=A, dispatch=DispatchId(answered)), 0.01 * answered)
        envelopes += [len(envelope.requests) for envelope in only(SendEnvelope, commands)]

    # then it runs down to its 2 and the 1 that hides the round trip, and gets 7 at once
    assert envelopes == [7]


def test_an_envelope_leaves_their_share_to_others_who_are_nearly_hungry() -> None:
    # given two full equal replicas and 6 waiting requests
    windows = {"rate": 100.0, "request_window": 8, "nireq": 1}
    scheduler = a_scheduler(a_ready_replica("a", **windows), a_ready_replica("b", **windows))
    commands = handle_all(scheduler, [a_request(n) for n in range(22)], 0.0)
    of_a = [sent.requests[0][0] for sent in only(SendEnvelope, commands) if sent.replica == A]

    envelopes: list[SendEnvelope] = []
    for number, dispatch in enumerate(of_a):
        envelopes += only(SendEnvelope, scheduler.handle(Completed(replica=A, dispatch=dispatch), 0.01 * number))

    assert envelopes[0].replica == A
    assert len(envelopes[0].requests) == 3


def test_the_window_of_a_replica_is_never_exceeded() -> None:
    scheduler = a_scheduler(a_ready_replica("a", request_window=3))

    commands = handle_all(scheduler, [a_request(n) for n in range(9)], 0.0)

    assert sum(len(envelope.requests) for envelope in only(SendEnvelope, commands)) == 3
    assert scheduler.snapshot().requests_waiting == 6


def test_higher_priority_goes_first_and_equals_in_order() -> None:
    scheduler = a_scheduler()
    handle_all(scheduler, [a_request(1), a_request(2, priority=5), a_request(3, priority=5)], 0.0)

    assert sent_to(scheduler.handle(a_ready_replica("a", request_window=3, nireq=3), 1.0)) == {"a": [2, 3, 1]}


def test_a_pinned_request_waits_for_its_replica_while_others_pass_it() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))

    commands = handle_all(scheduler, [a_request(1, pinned_to="b"), a_request(2)], 0.0)
    later = scheduler.handle(a_ready_replica("b"), 1.0)

    assert sent_to(commands) == {"a": [2]}
    assert sent_to(later) == {"b": [1]}


def test_a_request_pinned_to_a_device_goes_to_any_replica_of_it() -> None:
    scheduler = a_scheduler(a_ready_replica("a", device="GPU.0"), a_ready_replica("b", device="CPU.0"))

    assert sent_to(scheduler.handle(a_request(1, pinned_to="CPU.0"), 0.0)) == {"b": [1]}


def test_a_deadline_that_passes_in_the_queue_ends_the_request_with_an_error() -> None:
    scheduler = a_scheduler()
    [wake] = only(WakeAt, scheduler.handle(a_request(1, deadline_s=2.0), 0.0))

    assert wake.at_s == 2.0
    assert scheduler.handle(TimerFired(), 2.0) == [
        DeliverError(request=RequestId(1), message="its deadline passed before a replica had room for it")
    ]


def test_a_full_queue_refuses_those_who_asked_for_that() -> None:
    scheduler = a_scheduler(settings=SMALL_QUEUE)
    scheduler.handle(a_request(1), 0.0)

    assert scheduler.handle(a_request(2, when_full=WhenFull.REFUSE), 0.0) == [RefuseRequest(request=RequestId(2))]


def test_a_full_queue_lets_a_submitter_wait_until_there_is_room() -> None:
    scheduler = a_scheduler(settings=SMALL_QUEUE)
    scheduler.handle(a_request(1), 0.0)

    assert scheduler.handle(a_request(2), 0.0) == []
    commands = scheduler.handle(a_ready_replica("a", request_window=1), 1.0)

    assert AcceptRequest(request=RequestId(2)) in commands
    assert sent_to(commands) == {"a": [1]}


def test_a_cancelled_waiting_request_makes_room_for_a_submitter() -> None:
    scheduler = a_scheduler(settings=SMALL_QUEUE)
    handle_all(scheduler, [a_request(1), a_request(2)], 0.0)

    assert scheduler.handle(RequestCancelled(request=RequestId(1)), 0.0) == [
        DeliverError(request=RequestId(1), message="cancelled by its caller"),
        AcceptRequest(request=RequestId(2)),
    ]


def test_a_cancelled_request_that_was_sent_is_taken_back() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    scheduler.handle(a_request(1), 0.0)

    commands = scheduler.handle(RequestCancelled(request=RequestId(1)), 0.0)

    assert only(CancelDispatch, commands) == [CancelDispatch(replica=A, dispatch=DispatchId(0))]
    assert only(DeliverResult, scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)) == []


def test_a_failure_of_the_input_goes_to_the_caller_and_harms_no_replica() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    scheduler.handle(a_request(1), 0.0)

    failure = Failed(replica=A, dispatch=DispatchId(0), cause=FailureCause.INPUT, message="wrong shape")
    commands = scheduler.handle(failure, 0.1)

    assert commands == [DeliverError(request=RequestId(1), message="wrong shape")]
    assert scheduler.snapshot().replicas[0].state is ReplicaState.READY


def test_a_failure_of_the_device_is_retried_on_another_replica_even_a_slow_one() -> None:
    scheduler = a_scheduler(a_ready_replica("a", rate=1000.0), a_ready_replica("b", rate=1.0))
    assert sent_to(scheduler.handle(a_request(1), 0.0)) == {"a": [1]}

    failure = Failed(replica=A, dispatch=DispatchId(0), cause=FailureCause.DEVICE, message="hot")

    assert sent_to(scheduler.handle(failure, 0.1)) == {"b": [1]}


def test_requests_behind_one_that_may_not_go_there_pass_it() -> None:
    # 1. request 1 fails on a, b is full: it waits for b   2. request 3 comes and goes to a
    scheduler = a_scheduler(a_ready_replica("a", request_window=1), a_ready_replica("b", request_window=1))
    handle_all(scheduler, [a_request(1), a_request(2)], 0.0)
    failure = Failed(replica=A, dispatch=DispatchId(0), cause=FailureCause.DEVICE, message="hot")
    assert sent_to(scheduler.handle(failure, 0.1)) == {}

    assert sent_to(scheduler.handle(a_request(3), 0.1)) == {"a": [3]}


def test_a_request_that_three_replicas_died_of_is_poison() -> None:
    scheduler = a_scheduler(a_ready_replica("a"), a_ready_replica("b"), a_ready_replica("c"))
    commands = scheduler.handle(a_request(1), 0.0)

    for _ in range(3):
        [name] = sent_to(commands)
        commands = scheduler.handle(ReplicaLost(replica=ReplicaId(name), reason="signal 11"), 0.1)

    assert only(DeliverError, commands) == [
        DeliverError(
            request=RequestId(1),
            message="3 replicas died while they held this request, the last one: signal 11; "
            "given up as poison; look at its input or raise max_replicas_killed",
        )
    ]


@pytest.mark.parametrize("replicas", [1, 3])
def test_requests_that_were_beside_poison_are_never_blamed(replicas: int) -> None:
    # given: replicas that hold eight requests each, die of request 5, and come back
    names = "abc"[:replicas]
    scheduler = a_scheduler(*(a_ready_replica(name, request_window=8) for name in names))
    commands = handle_all(scheduler, [a_request(number) for number in range(60)], 0.0)
    held: dict[str, dict[DispatchId, RequestId]] = {name: {} for name in names}
    ended: list[RequestId] = []
    deaths, now_s = 0, 0.0

    # when: one thing after the other
    while len(ended) < 60:
        for sent in only(SendEnvelope, commands):
            held[sent.replica] |= dict(sent.requests)
        ended += [answer.request for answer in [*only(DeliverResult, commands), *only(DeliverError, commands)]]
        now_s += 0.1
        name = next((name for name in names if RequestId(5) in held[name].values()), None)
        if name is not None:
            deaths += 1
            held[name].clear()
            killed = ReplicaLost(replica=ReplicaId(name), reason="signal 11")
            commands = handle_all(scheduler, [killed, a_ready_replica(name, request_window=8)], now_s)
        elif any(held.values()):
            name = next(name for name in names if held[name])
            dispatch = next(iter(held[name]))
            del held[name][dispatch]
            commands = handle_all(scheduler, [Completed(replica=ReplicaId(name), dispatch=dispatch)], now_s)
        else:
            commands = handle_all(scheduler, [TimerFired()], now_s)

    # then
    assert sorted(ended) == list(range(60))
    assert deaths == 3
    assert scheduler.snapshot().counters["poisoned"] == 1


def test_a_replica_that_keeps_failing_is_evicted_probed_later_and_later_and_readmitted() -> None:
    scheduler = a_scheduler(a_ready_replica("a"), settings=SchedulerSettings(evict_after_failures=1, max_tries=9))
    scheduler.handle(a_request(1), 0.0)
    failure = Failed(replica=A, dispatch=DispatchId(0), cause=FailureCause.DEVICE, message="hot")

    # 1. it fails   2. its wait is over   3. it fails the probe   4. a longer wait is over   5. it passes
    [first] = only(WakeAt, scheduler.handle(failure, 0.0))
    assert ProbeReplica(replica=A) in scheduler.handle(TimerFired(), first.at_s)
    scheduler.handle(TimerFired(), first.at_s + 1.0)
    [second] = only(WakeAt, scheduler.handle(ProbeFailed(replica=A, message="hot"), first.at_s + 1.0))
    assert ProbeReplica(replica=A) in scheduler.handle(TimerFired(), second.at_s)
    commands = scheduler.handle(a_ready_replica("a"), second.at_s)

    assert 0.9 <= first.at_s <= 1.1
    assert 1.8 <= second.at_s - (first.at_s + 1.0) <= 2.2
    assert sent_to(commands) == {"a": [1]}


def test_what_waits_for_replicas_that_all_fail_ends_and_is_not_kept_waiting() -> None:
    scheduler = a_scheduler(a_ready_replica("a"), settings=SchedulerSettings(evict_after_failures=1, max_tries=2))
    scheduler.handle(a_request(1, pinned_to="a/CPU.0"), 0.0)
    failure = Failed(replica=A, dispatch=DispatchId(0), cause=FailureCause.DEVICE, message="hot")
    commands = scheduler.handle(failure, 0.0)
    scheduler.handle(a_request(2), 0.5)

    probed_s, ended = [0.0], []
    while len(probed_s) < 9:
        if waking := only(WakeAt, commands):
            now_s = waking[-1].at_s
        commands = scheduler.handle(TimerFired(), now_s)
        if ProbeReplica(replica=A) in commands:
            probed_s.append(now_s)
            commands = [*commands, *scheduler.handle(ProbeFailed(replica=A, message="hot"), now_s)]
            ended += only(DeliverError, commands)

    assert [error.request for error in ended] == [1, 2]
    assert all("hot; no replica is left" in error.message for error in ended)
    assert max(after - before for before, after in itertools.pairwise(probed_s)) <= 11.0


def test_what_waits_for_a_replica_that_fails_goes_on_waiting_where_another_may_take_it() -> None:
    settings = SchedulerSettings(evict_after_failures=1, max_tries=1)
    scheduler = a_scheduler(a_ready_replica("a"), a_ready_replica("b"), settings=settings)
    scheduler.handle(ReplicaLost(replica=ReplicaId("b"), reason="killed"), 0.0)
    scheduler.handle(a_request(1), 0.0)
    scheduler.handle(Failed(replica=A, dispatch=DispatchId(0), cause=FailureCause.DEVICE, message="hot"), 0.0)
    scheduler.handle(a_request(2), 0.0)

    commands = handle_all(scheduler, [TimerFired(), ProbeFailed(replica=A, message="hot")], 2.0)

    assert only(DeliverError, commands) == []
    assert sent_to(handle_all(scheduler, [a_ready_replica("b")], 3.0)) == {"b": [2]}


def test_a_replica_that_is_lost_again_and_again_rests_before_it_works() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))

    for _ in range(2):
        scheduler.handle(ReplicaLost(replica=A, reason="killed"), 1.0)
        [wake, *_] = [*only(WakeAt, scheduler.handle(a_ready_replica("a"), 1.0)), None]

    assert wake is not None
    assert sent_to(scheduler.handle(a_request(1), 1.1)) == {}
    assert sent_to(scheduler.handle(TimerFired(), wake.at_s)) == {"a": [1]}


def test_a_released_replica_is_not_looked_after_any_more() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    scheduler.handle(a_request(1), 0.0)
    scheduler.handle(ReplicaDraining(replica=A), 0.0)
    released = scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)

    assert only(ReleaseReplica, released) == [ReleaseReplica(replica=A)]
    assert scheduler.handle(TimerFired(), 1000.0) == []


def test_a_silent_replica_gets_no_new_work_until_it_is_heard_again() -> None:
    scheduler = a_scheduler(a_ready_replica("a", request_window=2))
    scheduler.handle(a_request(0), 0.0)
    scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)
    scheduler.handle(a_request(1), 0.1)

    # 1 row at 10 rows/s: 5 times that is less than the least, 2 s
    scheduler.handle(TimerFired(), 2.0)
    was_stalled = scheduler.snapshot().replicas[0].is_stalled
    scheduler.handle(TimerFired(), 2.1)

    assert not was_stalled
    assert scheduler.snapshot().replicas[0].is_stalled
    assert sent_to(scheduler.handle(a_request(2), 9.0)) == {}
    assert sent_to(scheduler.handle(Completed(replica=A, dispatch=DispatchId(1)), 9.0)) == {"a": [2]}


def test_what_a_silent_replica_holds_is_sent_to_others_and_the_first_answer_counts() -> None:
    # given: a holds both requests and says nothing; b is heard of
    scheduler = a_scheduler(a_ready_replica("a"))
    scheduler.handle(a_request(0), 0.0)
    scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)
    handle_all(scheduler, [a_request(1), a_request(2)], 0.1)
    handle_all(scheduler, [a_ready_replica("b")], 1.0)

    # when: five times what they should take has gone by
    copies = handle_all(scheduler, [TimerFired()], 2.1)
    first, late = (
        handle_all(scheduler, [Completed(replica=ReplicaId(name), dispatch=DispatchId(number))], 2.2)
        for name, number in [("b", 3), ("a", 1)]
    )

    # then: nothing was withdrawn, and who is heard again gets work again
    assert sent_to(copies) == {"b": [1, 2]}
    assert only(DeliverResult, first) == [DeliverResult(request=RequestId(1), dispatch=DispatchId(3))]
    assert only(CancelDispatch, first) == [CancelDispatch(replica=A, dispatch=DispatchId(1))]
    assert only(DeliverResult, late) == []
    counters = scheduler.snapshot().counters
    assert (counters["backups_sent"], counters["backups_won"], counters["late_answers"]) == (2, 1, 1)
    assert not scheduler.snapshot().replicas[0].is_stalled


def test_where_nobody_else_is_a_silent_replicas_own_answer_counts() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    scheduler.handle(a_request(0), 0.0)
    scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)
    scheduler.handle(a_request(1), 0.1)

    waiting = handle_all(scheduler, [TimerFired()], 9.0)
    commands = handle_all(scheduler, [Completed(replica=A, dispatch=DispatchId(1)), a_ready_replica("b")], 9.5)

    assert sent_to(waiting) == {}
    assert only(DeliverResult, commands) == [DeliverResult(request=RequestId(1), dispatch=DispatchId(1))]
    assert sent_to(commands) == {}
    assert scheduler.snapshot().requests_waiting == 0


def test_a_copy_that_waits_is_not_sent_once_its_replica_is_heard_again() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    scheduler.handle(a_request(0), 0.0)
    scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)
    handle_all(scheduler, [a_request(1), a_request(2)], 0.1)
    handle_all(scheduler, [TimerFired()], 9.0)

    handle_all(scheduler, [Completed(replica=A, dispatch=DispatchId(1))], 9.5)
    commands = handle_all(scheduler, [a_ready_replica("b")], 9.6)

    assert sent_to(commands) == {}


def test_copies_that_wait_for_room_cost_an_event_next_to_nothing() -> None:
    # given: a is silent with 3,000 requests; b has room for few
    scheduler = a_scheduler(a_ready_replica("a", rate=1e6, request_window=3_000))
    scheduler.handle(a_request(0), 0.0)
    scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)
    scheduler.handle_all([a_request(number) for number in range(1, 3_001)], 0.1)
    scheduler.handle(a_ready_replica("b", rate=1e6, request_window=4), 0.2)
    scheduler.handle(TimerFired(), 3.0)
    picks = 0
    pick = Requests._pick

    def counted(*arguments: Any) -> Any:
        nonlocal picks
        picks += 1
        return pick(*arguments)

    # when: b answers them all, one after the other
    ended = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Requests, "_pick", counted)
        dispatch = 3_001
        while ended < 3_000:
            commands = scheduler.handle(Completed(replica=B, dispatch=DispatchId(dispatch)), 3.0)
            ended += len(only(DeliverResult, commands))
            dispatch += 1

    # then: each looks at a few, not at all that wait
    assert picks < 5 * 3_000


@pytest.mark.parametrize("first_to_die", ["a", "b"])
def test_a_request_and_its_copy_may_lose_their_replicas_in_any_order(first_to_die: str) -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    scheduler.handle(a_request(0), 0.0)
    scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)
    scheduler.handle(a_request(1), 0.1)
    handle_all(scheduler, [a_ready_replica("b"), TimerFired()], 2.1)

    second_to_die = "ab".replace(first_to_die, "")
    after_one = handle_all(scheduler, [ReplicaLost(replica=ReplicaId(first_to_die), reason="killed")], 2.2)
    after_two = handle_all(scheduler, [ReplicaLost(replica=ReplicaId(second_to_die), reason="killed")], 2.3)
    back = handle_all(scheduler, [a_ready_replica("c")], 2.4)

    assert (sent_to(after_one), sent_to(after_two)) == ({}, {})
    assert sent_to(back) == {"c": [1]}


def test_an_input_that_is_to_blame_ends_its_request_at_the_silent_replica_too() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    scheduler.handle(a_request(0), 0.0)
    scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)
    scheduler.handle(a_request(1), 0.1)
    handle_all(scheduler, [a_ready_replica("b"), TimerFired()], 2.1)

    refused = Failed(replica=ReplicaId("b"), dispatch=DispatchId(2), cause=FailureCause.INPUT, message="odd")
    commands = handle_all(scheduler, [refused], 2.2)

    assert only(DeliverError, commands) == [DeliverError(request=RequestId(1), message="odd")]
    assert only(CancelDispatch, commands) == [CancelDispatch(replica=A, dispatch=DispatchId(1))]


def test_a_probe_that_is_not_answered_is_silence_too() -> None:
    settings = SchedulerSettings(evict_after_failures=1, max_tries=9)
    scheduler = a_scheduler(a_ready_replica("a"), a_ready_replica("b", rate=1.0), settings=settings)
    scheduler.handle(a_request(0), 0.0)
    scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.1)
    scheduler.handle(a_request(1), 0.1)
    failure = Failed(replica=A, dispatch=DispatchId(1), cause=FailureCause.DEVICE, message="hot")
    scheduler.handle(failure, 0.2)
    handle_all(scheduler, [TimerFired()], 2.0)

    handle_all(scheduler, [TimerFired()], 4.1)
    was_stalled = scheduler.snapshot().replicas[0].is_stalled
    handle_all(scheduler, [a_ready_replica("a")], 5.0)

    assert was_stalled
    assert not scheduler.snapshot().replicas[0].is_stalled


def test_a_replica_that_has_done_nothing_yet_is_given_a_minute_to_answer() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))

    [wake] = only(WakeAt, scheduler.handle(a_request(1), 0.0))

    assert wake.at_s == 60.0


def test_priorities_can_be_changed_while_work_is_running() -> None:
    replicas = [a_ready_replica("a", device="GPU"), a_ready_replica("b", device="CPU")]
    scheduler = a_scheduler(*replicas, policy=SchedulePolicy.DEVICE_PRIORITY)
    first = scheduler.handle(a_request(1), 0.0)

    scheduler.handle(PrioritiesChanged(devices=("CPU", "GPU")), 0.0)
    second = scheduler.handle(a_request(2), 0.0)
    scheduler.handle(PrioritiesChanged(devices=("GPU",)), 0.0)
    others = handle_all(scheduler, [a_request(3), a_request(4)], 0.0)

    assert sent_to(first) == {"a": [1]}
    assert sent_to(second) == {"b": [2]}
    assert sent_to(others) == {"a": [3]}
    assert scheduler.snapshot().requests_waiting == 1


def test_priorities_may_name_replicas_of_one_device() -> None:
    replicas = [a_ready_replica("a", device="GPU"), a_ready_replica("b", device="GPU")]
    scheduler = a_scheduler(*replicas, policy=SchedulePolicy.DEVICE_PRIORITY)

    scheduler.handle(PrioritiesChanged(devices=("b",)), 0.0)
    only_one = handle_all(scheduler, [a_request(number) for number in range(3)], 0.0)
    scheduler.handle(PrioritiesChanged(devices=()), 0.0)
    none = scheduler.handle(a_request(3), 0.0)

    assert set(sent_to(only_one)) == {"b"}
    assert sent_to(none) == {}


@pytest.mark.parametrize("nonsense", [a_request(1, rows=0), a_request(1, deadline_s=float("nan"))])
def test_an_impossible_request_is_refused_and_changes_nothing(nonsense: object) -> None:
    scheduler = a_scheduler()
    before = scheduler.snapshot()

    with pytest.raises(InvariantError, match="at least one row"):
        scheduler.handle(nonsense, 0.0)  # type: ignore[arg-type]

    assert scheduler.snapshot() == before


def test_an_error_of_the_invariants_tells_the_last_events() -> None:
    scheduler = a_scheduler(a_ready_replica("a"))
    scheduler._ledger.replicas[A].rows_outstanding = 5

    with pytest.raises(InvariantError, match=r"a holds 0 rows, 5 are counted\n0\.000000 ReplicaReady"):
        scheduler.check_invariants()
