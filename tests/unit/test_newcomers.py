"""Where room is looked for while replicas run: on hosts that join, and on cores that others give back."""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ovray.devices.inventory import ClusterProbe
from ovray.devices.records import Host, ReplicaSpec
from ovray.driver import newcomers
from ovray.driver.messages import ClusterSeen, HostsJoined, ReplicaStart, RoomFound
from ovray.driver.newcomers import Newcomers
from ovray.driver.placement import Placed, PlacementOptions, lay_out_what_is_free, wanted_cores
from tests.fixtures.hosts import a_host
from tests.fixtures.sysfs import ONE_SOCKET


def a_node(name: str, total: float = 8, free: float = 8, leased: Collection[int] = ()) -> Host:
    """Eight cores of one thread each, on one NUMA node."""
    books = {"resources": {"CPU": total}, "available_resources": {"CPU": free, "memory": 1.0}}
    return replace(a_host(ONE_SOCKET, name, **books), node_id=name, leased_cpus=frozenset(leased))


class World:
    """Is a cluster that a test changes, with one who looks for room in it."""

    def __init__(self, patch: pytest.MonkeyPatch, *hosts: Host, devices: str = "CPU", **options: Any) -> None:
        self.hosts = {host.node_id: host for host in hosts}
        self.probed: list[set[str]] = []
        self.told: list[HostsJoined | RoomFound] = []
        wanted = PlacementOptions(devices=devices, **options)
        found = ClusterProbe(hosts=hosts)
        plan = lay_out_what_is_free(wanted, found)
        self.running: tuple[ReplicaSpec, ...] = plan.replicas
        patch.setattr(newcomers, "LOOK_FOR_ROOM_S", 0.0)
        patch.setattr(newcomers, "probe_cluster", self._probe)
        patch.setattr(newcomers, "available_resources_per_node", self._books)
        placed = Placed(plan=plan, found=found, wanted_cores=wanted_cores(wanted, hosts))
        self.looker = Newcomers(
            wanted, placed, lambda spec: ReplicaStart(spec=spec, properties={}), self.told.append
        )

    def _probe(self, *, sysfs_root: Path | None, only: Collection[str]) -> ClusterProbe:
        self.probed.append(set(only))
        return ClusterProbe(hosts=tuple(self.hosts[node] for node in only))

    def _books(self) -> dict[str, dict[str, float]]:
        return {node: dict(host.available_resources) for node, host in self.hosts.items()}

    def look(self) -> list[tuple[str, tuple[int, ...]]]:
        """Have it look once; returns what it wants to be started, by place and cores."""
        self.told.clear()
        seen = ClusterSeen(alive=frozenset(self.hosts), draining=frozenset())
        self.looker.consider(seen, self.running)
        for thread in threading.enumerate():
            if thread.name == "ovray-newcomers":
                thread.join(60)
        return [(str(start.spec.id), start.spec.cores) for told in self.told for start in told.starts]


Make = Callable[..., World]


def test_cores_that_ray_has_free_again_get_a_replica_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_node("a", free=3))
    held = world.running[0].cores
    assert len(held) == 3
    world.hosts["a"] = a_node("a", free=0, leased=held)
    assert world.look() == []
    assert world.probed == []  # the books say it already

    world.hosts["a"] = a_node("a", free=5, leased=held)

    assert world.look() == [("a/CPU.0#1", tuple(sorted({*range(8)} - {*held})))]
    assert isinstance(world.told[0], RoomFound)


def test_cores_that_are_leased_still_get_none_and_the_next_look_comes_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = {6, 7}
    world = World(monkeypatch, a_node("a", leased=others))
    held = world.running[0].cores
    monkeypatch.setattr(newcomers, "LOOK_FOR_ROOM_S", 1000.0)
    world.hosts["a"] = a_node("a", free=2, leased={*held, *others})

    assert world.look() == []
    assert world.probed == [{"a"}]
    monkeypatch.setattr(world.looker, "_look_at_s", time.monotonic())
    world.hosts["a"] = a_node("a", free=2, leased=held)
    assert world.look() == [("a/CPU.0#1", (6, 7))]


def test_where_all_have_what_they_wanted_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_node("a"), a_node("b"))
    world.hosts = {name: replace(host, leased_cpus=frozenset()) for name, host in world.hosts.items()}

    assert world.look() == []
    assert world.probed == []


def test_a_replica_that_is_away_keeps_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_node("a", free=0), a_node("b"))
    world.hosts["a"] = a_node("a", leased={0, 1})
    # The one on b has died and will be back: nobody holds its cores just now.
    world.hosts["b"] = a_node("b")

    assert world.look() == [("a/CPU.0#0", (2, 3, 4, 5, 6, 7))]


def test_the_bound_on_replicas_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_node("a", free=3), max_replicas=1)
    world.hosts["a"] = a_node("a", free=5, leased=world.running[0].cores)

    assert world.look() == []


def test_a_node_that_was_started_without_cpus_lacks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_node("head", total=0, free=0), a_node("a"))

    assert [str(spec.id) for spec in world.running] == ["a/CPU.0#0"]
    assert world.look() == []


def test_a_host_that_joins_gets_what_is_free_there_and_the_rest_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_node("a"))
    world.hosts["b"] = a_node("b", free=2)

    assert world.look() == [("b/CPU.0#0", (0, 1))]
    (joined,) = world.told
    assert isinstance(joined, HostsJoined)
    assert joined.replicas_wanted == 2

    world.running += tuple(start.spec for start in joined.starts)
    world.hosts["b"] = a_node("b", free=6, leased={0, 1})
    assert world.look() == [("b/CPU.0#1", (2, 3, 4, 5, 6, 7))]
