"""What becomes of replicas whose processes, hosts and heads come and go, by a clock of the test's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ovray.core import events
from ovray.core.ids import DispatchId, JobId, ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.devices.leases import CoresTakenError
from ovray.devices.records import ReplicaSpec
from ovray.driver.lifecycle import ReplicaSet, Upkeep
from ovray.driver.messages import (
    ClusterSeen,
    Gone,
    HostsJoined,
    ReplicaStart,
    RoomFound,
    Started,
    StartFailed,
)
from ovray.errors import CompileError, ConfigError, ReplicaError, ReplicaLostError
from ovray.replica.envelope import Envelope
from tests.unit.answering_transport import a_report

A, B = ReplicaId("h1/CPU.0#0"), ReplicaId("h2/CPU.0#0")


class ListTransport:
    """Notes what is started and stopped."""

    def __init__(self) -> None:
        self.started: list[tuple[ReplicaId, int]] = []
        self.stopped: list[ReplicaId] = []

    def start(self, spec: ReplicaSpec, properties: Mapping[str, str], life: int = 0) -> None:
        self.started.append((spec.id, life))

    def stop(self, replica: ReplicaId) -> None:
        self.stopped.append(replica)

    def send(self, replica: ReplicaId, dispatch: DispatchId, job: int, piece: Any) -> None:
        raise AssertionError("lives only")

    def send_requests(self, replica: ReplicaId, envelope: Envelope) -> None:
        raise AssertionError("lives only")

    def cancel(self, replica: ReplicaId, dispatch: DispatchId) -> None:
        raise AssertionError("lives only")

    def probe(self, replica: ReplicaId) -> None:
        raise AssertionError("lives only")

    def close(self) -> None:
        raise AssertionError("lives only")


class Stage:
    """Holds a set of replicas and a scheduler that is told what becomes of them."""

    def __init__(self, *replicas: ReplicaId, upkeep: Upkeep | None = None) -> None:
        self.now_s = 0.0
        self.transport = ListTransport()
        self.replicas = ReplicaSet(self.transport, lambda: self.now_s, upkeep)
        self.scheduler = Scheduler()
        self.replicas.start(map(a_start, replicas))
        for replica in replicas:
            self.hear(Started(replica=replica, report=a_report()))

    def hear(self, message: Any) -> list[events.Event]:
        return self._told(self.replicas.take(message))

    def pass_time(self, seconds: float) -> list[events.Event]:
        """Let time pass as it does for a driver that listens."""
        said: list[events.Event] = []
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + 0.25)
            self._told([events.TimerFired()])
            said += self._told(self.replicas.look_after(self.scheduler.snapshot()))
        return said

    def error(self) -> Exception | None:
        return self.replicas.error_if_none_is_left(self.scheduler.snapshot())

    def _told(self, said: list[events.Event]) -> list[events.Event]:
        for event in said:
            self.scheduler.handle(event, self.now_s)
        return said


def a_start(replica: ReplicaId) -> ReplicaStart:
    host = replica.split("/")[0]
    spec = ReplicaSpec(
        id=replica,
        host=host,
        node_id=host.replace("h", "n"),
        device="CPU.0",
        openvino_device="CPU",
        numa_node=0,
        cpus=(0,),
    )
    return ReplicaStart(spec=spec, properties={})


def seen(*alive: str, draining: tuple[str, ...] = ()) -> ClusterSeen:
    return ClusterSeen(alive=frozenset(alive), draining=frozenset(draining))


def test_a_lost_replica_is_started_again_and_its_earlier_life_is_not_heard_any_more() -> None:
    stage = Stage(A, B)
    stage.pass_time(5)

    lost = stage.hear(Gone(replica=A, reason="killed"))
    stage.pass_time(0.25)
    echoes = [*stage.hear(Gone(replica=A, reason="killed")), *stage.hear(Started(replica=A, report=a_report()))]
    ready = stage.hear(Started(replica=A, report=a_report(), life=1))

    assert [type(event) for event in (*lost, *ready)] == [events.ReplicaLost, events.ReplicaReady]
    assert echoes == []
    assert stage.transport.started == [(A, 0), (B, 0), (A, 1)]
    assert stage.replicas.failures == {}


def test_nothing_is_started_on_a_host_that_is_gone_until_it_is_back() -> None:
    stage = Stage(A, B)
    stage.hear(seen("n1", "n2"))

    lost = stage.hear(seen("n2"))
    stage.pass_time(20)
    assert [event.replica for event in lost if isinstance(event, events.ReplicaLost)] == [A]
    assert stage.transport.started == [(A, 0), (B, 0)]

    stage.hear(seen("n1", "n2"))
    stage.pass_time(0.25)
    assert stage.transport.started[2:] == [(A, 1)]


def test_a_replica_on_a_draining_host_finishes_and_leaves_and_is_not_started_again() -> None:
    stage = Stage(A, B)

    said = stage.hear(seen("n1", "n2", draining=("n1",)))
    again = stage.hear(seen("n1", "n2", draining=("n1",)))
    stage.replicas.released(A)
    stage.pass_time(60)

    assert said == [events.ReplicaDraining(replica=A)]
    assert again == []
    assert stage.transport.stopped == [A]
    assert stage.transport.started == [(A, 0), (B, 0)]
    assert "leaving" in str(stage.replicas.failures[A])


def test_hosts_that_join_get_what_is_missing_and_no_more() -> None:
    stage = Stage(A)

    stage.hear(HostsJoined(starts=(a_start(B), a_start(ReplicaId("h3/CPU.0#0"))), replicas_wanted=2))

    assert stage.transport.started == [(A, 0), (B, 0)]


def test_a_replica_that_could_not_start_is_the_end_where_there_is_no_other() -> None:
    stage = Stage()
    stage.replicas.start([a_start(A)])
    assert stage.error() is None

    stage.hear(StartFailed(replica=A, error=CompileError("no such layer")))

    assert isinstance(stage.error(), ConfigError)


def test_while_a_lost_replica_is_to_be_started_again_nobody_gives_up() -> None:
    stage = Stage(A)
    stage.pass_time(5)

    stage.hear(Gone(replica=A, reason="killed"))
    assert stage.error() is None

    for life in (1, 2, 3):
        stage.pass_time(40)
        stage.hear(StartFailed(replica=A, error=ReplicaLostError("killed again"), life=life))
    error = stage.error()
    assert isinstance(error, ReplicaError)
    assert "killed again" in str(error)


@pytest.mark.parametrize(("asked_s", "silence_s"), [(1.0, 3.0), (5.0, 5.0), (30.0, 30.0)])
def test_a_head_that_says_nothing_for_too_long_ends_it_all(asked_s: float, silence_s: float) -> None:
    stage = Stage(A, upkeep=Upkeep(head_timeout_s=asked_s))
    stage.hear(seen("n1"))

    stage.pass_time(silence_s)
    assert stage.error() is None
    stage.pass_time(0.5)

    assert f"has not answered for {silence_s:g} s" in str(stage.error())


def test_silence_does_not_count_in_which_the_driver_itself_was_stopped() -> None:
    stage = Stage(A, upkeep=Upkeep(head_timeout_s=5))
    stage.hear(seen("n1"))
    stage.pass_time(1)

    stage.now_s += 3600
    stage.pass_time(0.25)

    assert stage.error() is None


def test_a_replica_that_holds_work_and_says_nothing_is_lost_in_the_end() -> None:
    stage = Stage(A, B, upkeep=Upkeep(silence_timeout_s=3))
    stage.scheduler.handle(events.JobSubmitted(job=JobId(0), ranges=((0, 1000),), max_chunk_rows=10), stage.now_s)

    lost = stage.pass_time(70)

    assert {event.replica for event in lost if isinstance(event, events.ReplicaLost)} == {A, B}
    assert "silent for 3 s" in str(stage.replicas.failures[A])


# --- what is wanted changes ---------------------------------------------------------------------------------

C = ReplicaId("h1/CPU.0#1")


def on_cores(replica: ReplicaId, *cores: int) -> ReplicaStart:
    start = a_start(replica)
    return ReplicaStart(spec=replace(start.spec, cores=cores), properties={})


def rearrange(stage: Stage, *wanted: ReplicaStart) -> list[events.Event]:
    said = stage.replicas.rearrange(wanted)
    for event in said:
        stage.scheduler.handle(event, stage.now_s)
    return said


def test_what_is_wanted_still_goes_on_what_is_missing_starts_and_the_rest_drains_and_is_forgotten() -> None:
    stage = Stage(A, B)

    said = rearrange(stage, a_start(B), a_start(C))

    assert said == [events.ReplicaDraining(replica=A)]
    assert stage.transport.started == [(A, 0), (B, 0), (C, 0)]
    assert [spec.id for spec in stage.replicas.specs] == [B, C, A]
    assert [spec.id for spec in stage.replicas.present.leaving] == [A]
    stage.replicas.released(A)
    assert stage.transport.stopped == [A]
    assert [spec.id for spec in stage.replicas.specs] == [B, C]
    assert stage.replicas.failures == {}
    stage.pass_time(60)
    assert stage.transport.started[3:] == []


def test_a_replica_waits_until_the_one_that_has_its_cores_has_ended() -> None:
    stage = Stage()
    stage.replicas.start([on_cores(A, 0, 1)])
    stage.hear(Started(replica=A, report=a_report()))

    rearrange(stage, on_cores(C, 1), on_cores(B, 0, 1))

    assert stage.transport.started == [(A, 0), (B, 0)]  # another host's cores are others
    assert stage.replicas.starting == (C, B)
    assert stage.error() is None
    stage.replicas.released(A)
    assert stage.transport.started[2:] == [(C, 0)]


def test_a_dismissed_replica_that_dies_is_not_started_again() -> None:
    stage = Stage(A, B)
    stage.pass_time(5)
    rearrange(stage, a_start(B))

    lost = stage.hear(Gone(replica=A, reason="killed"))
    stage.pass_time(60)

    assert [type(event) for event in lost] == [events.ReplicaLost]
    assert stage.transport.started == [(A, 0), (B, 0)]
    assert [spec.id for spec in stage.replicas.specs] == [B]


def test_one_that_starts_or_is_down_is_forgotten_at_once() -> None:
    stage = Stage(A)
    stage.replicas.start([a_start(B)])
    stage.pass_time(5)
    stage.hear(Gone(replica=A, reason="killed"))

    assert rearrange(stage, a_start(C)) == []

    assert [spec.id for spec in stage.replicas.specs] == [C]
    assert B in stage.transport.stopped
    assert stage.hear(Started(replica=B, report=a_report())) == []
    stage.pass_time(60)
    assert stage.transport.started == [(A, 0), (B, 0), (C, 0)]


def test_a_name_that_comes_back_has_lives_of_its_own() -> None:
    stage = Stage(A, B)
    rearrange(stage, a_start(B))
    stage.replicas.released(A)

    rearrange(stage, a_start(A), a_start(B))

    assert stage.transport.started == [(A, 0), (B, 0), (A, 1)]
    assert stage.hear(Gone(replica=A, reason="the last words of the first", life=0)) == []


def test_what_was_given_up_is_tried_again() -> None:
    stage = Stage(B)
    stage.replicas.start([a_start(A)])
    stage.hear(StartFailed(replica=A, error=CompileError("no such layer")))

    rearrange(stage, a_start(A), a_start(B))

    assert stage.transport.started == [(B, 0), (A, 0), (A, 1)]
    assert stage.replicas.failures == {}


def test_who_looked_for_the_earlier_layout_is_not_heeded() -> None:
    earlier = Watcher()
    stage = Stage(A, upkeep=Upkeep(newcomers=earlier))
    stage.replicas.rearrange([a_start(A)], Upkeep(newcomers=Watcher()))

    stage.hear(HostsJoined(starts=(a_start(B),), replicas_wanted=2, seen_by=earlier))

    assert stage.transport.started == [(A, 0)]


# --- cores become free --------------------------------------------------------------------------------------


class Watcher:
    """Notes who has a place."""

    def __init__(self) -> None:
        self.placed: list[ReplicaId] = []

    def consider(self, seen: ClusterSeen, placed: Sequence[ReplicaSpec]) -> None:
        self.placed = [spec.id for spec in placed]


def test_one_for_which_there_were_no_cores_has_no_place_and_all_others_have() -> None:
    watcher = Watcher()
    stage = Stage(A, upkeep=Upkeep(newcomers=watcher))
    stage.replicas.start([a_start(B), a_start(C)])
    stage.hear(StartFailed(replica=B, error=CoresTakenError("others hold them")))
    stage.hear(StartFailed(replica=C, error=CompileError("no such layer")))

    stage.hear(seen("n1", "n2"))

    assert watcher.placed == [A, C]


def test_cores_that_became_free_get_replicas_up_to_the_bound_and_hosts_that_join_are_not_short_of_them() -> None:
    watcher = Watcher()
    stage = Stage(A, upkeep=Upkeep(newcomers=watcher))

    stage.hear(RoomFound(starts=(a_start(C), a_start(ReplicaId("h1/CPU.0#2"))), replicas_max=2, seen_by=watcher))
    assert stage.transport.started == [(A, 0), (C, 0)]

    stage.hear(HostsJoined(starts=(a_start(B),), replicas_wanted=2, seen_by=watcher))
    assert stage.transport.started[2:] == [(B, 0)]
