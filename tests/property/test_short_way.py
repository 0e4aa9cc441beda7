"""A request that finds nothing else under way takes a shorter way through the scheduler: to the same end."""

from hypothesis import given
from hypothesis import strategies as st

from ovray.core.commands import Command, DeliverResult, SendEnvelope, WakeAt
from ovray.core.events import (
    Completed,
    Event,
    Failed,
    FailureCause,
    ReplicaLost,
    ReplicaReady,
    RequestCancelled,
    RequestSubmitted,
    TimerFired,
)
from ovray.core.ids import DispatchId, ReplicaId, RequestId
from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler

#: What happens after a request was submitted, and how long after.
FATES = st.tuples(
    st.sampled_from(
        ["done", "done", "done", "done", "failed", "lost", "cancelled", "silent", "joined by another"]
    ),
    st.sampled_from([0.0001, 0.001, 0.5, 3.0]),
    st.integers(1, 4),
)


class Watched:
    """Is a scheduler and what it has said."""

    def __init__(self, policy: SchedulePolicy, replicas: int) -> None:
        self.scheduler = Scheduler(policy)
        self.commands: list[Command] = []
        self.held: list[tuple[ReplicaId, DispatchId]] = []
        for number in range(replicas):
            self.tell(_ready(f"r{number}"), 0.0)

    def tell(self, event: Event, now_s: float) -> None:
        said = self.scheduler.handle(event, now_s)
        for command in said:
            if isinstance(command, SendEnvelope):
                self.held += [(command.replica, dispatch) for dispatch, _ in command.requests]
        self.commands += [command for command in said if not isinstance(command, WakeAt)]

    def answer_all(self, now_s: float) -> None:
        while self.held:
            replica, dispatch = self.held.pop(0)
            self.tell(Completed(replica=replica, dispatch=dispatch), now_s)


class LookedAt(Watched):
    """Is looked at after each event, so that nothing stays out of its books."""

    def tell(self, event: Event, now_s: float) -> None:
        super().tell(event, now_s)
        self.scheduler.check_invariants()


def _ready(name: str) -> ReplicaReady:
    return ReplicaReady(replica=ReplicaId(name), device="SIM", request_window=3, chunk_window=1, nireq=2)


def run(watched: Watched, fates: list[tuple[str, float, int]]) -> None:
    now_s, number = 1.0, 0
    for fate, after_s, rows in fates:
        number += 1
        watched.tell(RequestSubmitted(request=RequestId(number), rows=rows), now_s)
        now_s += after_s
        replica, dispatch = watched.held[-1]
        if fate == "failed":
            watched.held.pop()
            cause = FailureCause.INPUT
            watched.tell(Failed(replica=replica, dispatch=dispatch, cause=cause, message="ragged"), now_s)
        elif fate == "lost":
            watched.held.clear()
            watched.tell(ReplicaLost(replica=replica, reason="killed"), now_s)
            watched.tell(_ready(replica), now_s)
            now_s += 5.0
            watched.tell(TimerFired(), now_s)  # it may have had to rest
        elif fate == "cancelled":
            watched.tell(RequestCancelled(request=RequestId(number)), now_s)
        elif fate == "silent":
            now_s += 100.0
            watched.tell(TimerFired(), now_s)
        elif fate == "joined by another":
            number += 1
            watched.tell(RequestSubmitted(request=RequestId(number)), now_s)
        watched.answer_all(now_s)
        now_s += 0.25


@given(policy=st.sampled_from(SchedulePolicy), fates=st.lists(FATES, max_size=40))
def test_on_one_replica_all_is_said_and_learnt_as_on_the_long_way(
    policy: SchedulePolicy, fates: list[tuple[str, float, int]]
) -> None:
    short, long = Watched(policy, 1), LookedAt(policy, 1)
    for watched in (short, long):
        run(watched, fates)

    assert short.commands == long.commands
    assert short.scheduler.snapshot().replicas == long.scheduler.snapshot().replicas


@given(policy=st.sampled_from(SchedulePolicy), fates=st.lists(FATES, max_size=40))
def test_on_several_each_request_ends_once(policy: SchedulePolicy, fates: list[tuple[str, float, int]]) -> None:
    watched = Watched(policy, 3)
    run(watched, fates)

    delivered = [command.request for command in watched.commands if isinstance(command, DeliverResult)]
    ended_otherwise = sum(fate in ("failed", "cancelled") for fate, _, _ in fates)
    asked = len(fates) + sum(fate == "joined by another" for fate, _, _ in fates)
    assert len(set(delivered)) == len(delivered) == asked - ended_otherwise
    watched.scheduler.check_invariants()
    assert sum(replica.requests_outstanding for replica in watched.scheduler.snapshot().replicas) == 0
