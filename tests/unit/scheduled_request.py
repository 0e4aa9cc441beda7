"""One scheduled request on a cluster of any size: what the benchmark times and unit tests count."""

import random

from ovray.core.commands import SendEnvelope
from ovray.core.events import Completed, ReplicaReady, RequestSubmitted
from ovray.core.ids import DispatchId, ReplicaId, RequestId
from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler


def a_cluster(replicas: int, policy: SchedulePolicy) -> Scheduler:
    """Make a scheduler with fast and slow replicas."""
    scheduler = Scheduler(policy)
    for number in range(replicas):
        scheduler.handle(
            ReplicaReady(
                replica=ReplicaId(f"r{number}"),
                device="SIM",
                request_window=4,
                chunk_window=1,
                nireq=2,
                rate_rows_per_s=500.0 if number % 5 == 0 else 50.0,
            ),
            0.0,
        )
    return scheduler


class LoneRequests:
    """Submits a request when the one before it is done."""

    def __init__(self, replicas: int, policy: SchedulePolicy) -> None:
        self._scheduler = a_cluster(replicas, policy)
        self._now_s = 0.0
        self._requests = 0

    def step(self) -> None:
        """Submit one request and complete it."""
        self._requests += 1
        request = RequestSubmitted(request=RequestId(self._requests))
        commands = self._scheduler.handle(request, self._now_s)
        (sent,) = [command for command in commands if isinstance(command, SendEnvelope)]
        self._now_s += 0.002
        self._scheduler.handle(Completed(replica=sent.replica, dispatch=sent.requests[0][0]), self._now_s)
        self._now_s += 0.001


class SteadyLoad:
    """Keeps a cluster of fast and slow replicas four fifths busy, one request in and one out at each step."""

    def __init__(self, replicas: int, policy: SchedulePolicy = SchedulePolicy.FASTEST_COMPLETION) -> None:
        self._chance = random.Random(0)
        self._scheduler = a_cluster(replicas, policy)
        self._now_s = 0.0
        self._next_request = 0
        self._open: list[tuple[ReplicaId, DispatchId]] = []
        self._step_s = 0.001 / replicas
        for _ in range(replicas * 8 // 5):
            self._submit()

    def step(self) -> None:
        """Complete one request and submit another."""
        self._now_s += self._step_s
        at = self._chance.randrange(len(self._open))
        self._open[at], self._open[-1] = self._open[-1], self._open[at]
        replica, dispatch = self._open.pop()
        self._obey(self._scheduler.handle(Completed(replica=replica, dispatch=dispatch), self._now_s))
        self._submit()

    def _submit(self) -> None:
        self._next_request += 1
        request = RequestSubmitted(request=RequestId(self._next_request))
        self._obey(self._scheduler.handle(request, self._now_s))

    def _obey(self, commands: list[object]) -> None:
        for command in commands:
            if isinstance(command, SendEnvelope):
                self._open.extend((command.replica, dispatch) for dispatch, _ in command.requests)
