"""Events that are taken in together keep every promise that they keep one by one."""

import random

import pytest

from ovray.core.commands import Command, DeliverError, DeliverResult, SendEnvelope
from ovray.core.events import Completed, Event, ReplicaLost, ReplicaReady, RequestSubmitted
from ovray.core.ids import DispatchId, ReplicaId, RequestId
from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler

REQUESTS = 600


class _Driver:
    """Plays groups of events against a scheduler and notes what it says."""

    def __init__(self, policy: SchedulePolicy, seed: int) -> None:
        self.chance = random.Random(seed)
        self.scheduler = Scheduler(policy)
        self.held: dict[DispatchId, ReplicaId] = {}
        self.ended: list[RequestId] = []
        self.now_s = 0.0

    def feed(self, together: list[Event]) -> None:
        self.now_s += self.chance.random() * 0.01
        for event in together:
            if isinstance(event, ReplicaLost):
                lost = [dispatch for dispatch, holder in self.held.items() if holder == event.replica]
                for dispatch in lost:
                    del self.held[dispatch]
        for command in self.scheduler.handle_all(together, self.now_s):
            self._note(command)
        self.scheduler.check_invariants()

    def _note(self, command: Command) -> None:
        if isinstance(command, SendEnvelope):
            self.held |= {dispatch: command.replica for dispatch, _ in command.requests}
        elif isinstance(command, (DeliverResult, DeliverError)):
            self.ended.append(command.request)

    def some_completions(self) -> list[Event]:
        chosen = self.chance.sample(list(self.held), self.chance.randint(0, len(self.held)))
        return [Completed(replica=self.held.pop(dispatch), dispatch=dispatch) for dispatch in chosen]


@pytest.mark.parametrize("policy", list(SchedulePolicy))
def test_groups_of_events_lose_and_double_nothing(policy: SchedulePolicy) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    driver = _Driver(policy, seed)
    driver.feed(
        [
            ReplicaReady(
                replica=ReplicaId(f"r{index}"),
                device=f"h/CPU.{index}",
                request_window=8,
                chunk_window=1,
                nireq=2,
                rate_rows_per_s=100.0 * (index + 1),
            )
            for index in range(4)
        ]
    )
    waiting = [RequestId(number) for number in range(REQUESTS)]

    while waiting or driver.held:
        group: list[Event] = driver.some_completions()
        size = driver.chance.randint(0, 40)
        group += [RequestSubmitted(request=request) for request in waiting[:size]]
        del waiting[:size]
        driver.chance.shuffle(group)
        if len(waiting) == REQUESTS // 2:
            group.append(ReplicaLost(replica=ReplicaId("r3"), reason="gone"))
        driver.feed(group)

    assert sorted(driver.ended) == list(range(REQUESTS))


def test_what_came_together_is_answered_with_one_envelope_a_replica() -> None:
    scheduler = Scheduler()
    scheduler.handle(
        ReplicaReady(
            replica=ReplicaId("r"), device="h/CPU", request_window=64, chunk_window=1, rate_rows_per_s=100.0
        ),
        0.0,
    )

    said = scheduler.handle_all([RequestSubmitted(request=RequestId(number)) for number in range(50)], 0.0)

    envelopes = [command for command in said if isinstance(command, SendEnvelope)]
    assert [len(envelope.requests) for envelope in envelopes] == [50]
