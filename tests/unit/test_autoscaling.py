import threading
from typing import Any

import pytest

from ovray.core.ids import ReplicaId
from ovray.devices.records import ReplicaSpec
from ovray.driver.autoscaling import Asked, Bundles, Demand

HEAD = {"head": 2.0}


def a_replica(node: str, cores: int = 2) -> ReplicaSpec:
    return ReplicaSpec(
        id=ReplicaId(f"{node}/CPU.0#0"),
        host=node,
        node_id=node,
        device="CPU.0",
        openvino_device="CPU",
        numa_node=0,
        cpus=tuple(range(cores)),
        cores=tuple(range(cores)),
    )


class Heard:
    """Is what an autoscaler was told, one after the other."""

    def __init__(self, fails: bool = False) -> None:
        self.told: list[Bundles] = []
        self._fails = fails
        self._one_more = threading.Semaphore(0)

    def __call__(self, bundles: Bundles) -> None:
        self.told.append(bundles)
        self._one_more.release()
        if self._fails:
            raise RuntimeError("the head is gone")

    def wait(self) -> None:
        assert self._one_more.acquire(timeout=60)


def test_one_bundle_for_each_missing_replica_beside_the_nodes_that_there_are() -> None:
    asked = Asked(nodes={"head": 2.0, "w0": 4.0, "idle": 0.0}, replicas=4, cpus_each=2)

    bundles = asked.bundles(frozenset({"head", "w0", "idle"}), [a_replica("head"), a_replica("w0", 4)])

    assert bundles == [{"CPU": 2.0}, {"CPU": 4.0}, {"CPU": 2}, {"CPU": 2}]


def test_a_node_that_came_is_not_asked_for_again_before_or_after_it_has_its_replica() -> None:
    asked = Asked(nodes=HEAD, replicas=2, cpus_each=2)
    before = asked.bundles(frozenset({"head"}), [a_replica("head")])

    assert asked.bundles(frozenset({"head", "new"}), [a_replica("head")]) == before
    assert asked.bundles(frozenset({"head", "new"}), [a_replica("head"), a_replica("new")]) == before


def test_a_first_node_that_is_gone_is_replaced() -> None:
    asked = Asked(nodes={"head": 2.0, "w0": 2.0}, replicas=2, cpus_each=2)
    assert asked.bundles(frozenset({"head", "w0"}), [a_replica("head"), a_replica("w0")]) == []

    assert asked.bundles(frozenset({"head"}), [a_replica("head"), a_replica("w0")]) == [{"CPU": 2.0}, {"CPU": 2}]


def test_only_changes_are_told_and_the_end_takes_all_back() -> None:
    heard = Heard()
    demand = Demand(Asked(nodes=HEAD, replicas=2, cpus_each=1), heard)

    for _ in range(3):
        demand.look(frozenset({"head"}), [a_replica("head")])
    heard.wait()
    demand.withdraw()
    demand.withdraw()

    assert heard.told == [[{"CPU": 2.0}, {"CPU": 1}], []]


def test_where_nothing_was_missing_nothing_is_told_or_taken_back() -> None:
    heard = Heard()
    demand = Demand(Asked(nodes=HEAD, replicas=1), heard)

    demand.look(frozenset({"head"}), [a_replica("head")])
    demand.withdraw()

    assert heard.told == []


def test_what_was_announced_before_the_first_replica_is_taken_back_too() -> None:
    heard = Heard()

    Demand(Asked(nodes=HEAD, replicas=1, is_announced=True), heard).withdraw()

    assert heard.told == [[]]


def test_an_autoscaler_that_cannot_be_told_is_said(caplog: pytest.LogCaptureFixture) -> None:
    heard: Any = Heard(fails=True)
    demand = Demand(Asked(nodes=HEAD, replicas=2), heard)

    demand.look(frozenset({"head"}), [])
    demand.withdraw()

    assert "could not be told what is missing: the head is gone" in caplog.text
