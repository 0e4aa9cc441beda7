from dataclasses import replace

from ovray.core.ids import ReplicaId
from ovray.devices.grammar import parse
from ovray.devices.plan import make_plan
from ovray.devices.records import Host, ReplicaSpec
from ovray.devices.replanning import Present, as_if_free, keep_standing
from tests.fixtures.hosts import a_host
from tests.fixtures.sysfs import ONE_SOCKET


def a_node(name: str, **details: object) -> Host:
    books = {"resources": {"CPU": 8.0}, "available_resources": {"CPU": 8.0}}
    return replace(a_host(ONE_SOCKET, name), node_id=f"id-{name}", **{**books, **details})


def planned(devices: str, *hosts: Host) -> tuple[ReplicaSpec, ...]:
    return make_plan(parse(devices), hosts or [a_node("a")]).replicas


def ids(specs: tuple[ReplicaSpec, ...]) -> list[str]:
    return [str(spec.id) for spec in specs]


def test_what_is_planned_as_it_runs_keeps_its_id_whatever_its_place() -> None:
    running = planned("SIM?ms=1,SIM?ms=2,SIM?ms=3")

    new = keep_standing(Present(staying=running), planned("SIM?ms=3,SIM?ms=1"))

    assert ids(new) == ["a/SIM#2", "a/SIM#0"]
    assert [spec.rank for spec in new] == [0, 1]


def test_what_is_new_gets_an_id_that_nobody_has_not_even_one_who_leaves() -> None:
    first, second = planned("SIM*2?ms=1")

    new = keep_standing(Present(staying=(first,), leaving=(second,)), planned("SIM*2?ms=1,SIM?ms=9"))

    assert ids(new) == ["a/SIM#0", "a/SIM#2", "a/SIM#3"]


def test_a_replica_that_is_to_have_other_cores_is_another_one() -> None:
    running = planned("CPU")

    assert ids(keep_standing(Present(staying=running), planned("CPU"))) == ["a/CPU.0#0"]
    assert ids(keep_standing(Present(staying=running), planned("CPU*2"))) == ["a/CPU.0#1", "a/CPU.0#2"]


def test_equal_replicas_keep_one_id_each() -> None:
    running = planned("SIM*3")

    assert ids(keep_standing(Present(staying=running), planned("SIM*2"))) == ["a/SIM#0", "a/SIM#1"]
    assert len(set(ids(keep_standing(Present(staying=running), planned("SIM*9"))))) == 9


def test_cores_and_claims_of_the_replicas_count_as_free_and_those_of_others_do_not() -> None:
    (spec,) = planned("CPU@0-3")
    host = a_node("a", leased_cpus=frozenset({0, 1, 2, 3, 6}), available_resources={"CPU": 3.0, "memory": 1.0})

    (free,) = as_if_free([host], [spec])

    assert free.leased_cpus == {6}
    assert free.available_resources == {"CPU": 7.0, "memory": 1.0}


def test_no_node_gets_more_free_cpus_than_it_has() -> None:
    (spec,) = planned("CPU")

    (free,) = as_if_free([a_node("a")], [spec])  # it has not claimed them yet

    assert free.available_resources["CPU"] == 8.0


def test_ray_nodes_of_one_machine_see_one_anothers_leases_go() -> None:
    first, second = a_node("a", machine_id="m"), a_node("b", machine_id="m")
    (spec,) = planned("a/CPU@0-3", first)
    held = frozenset(range(4))

    free = as_if_free([replace(first, leased_cpus=held), replace(second, leased_cpus=held)], [spec])

    assert [host.leased_cpus for host in free] == [frozenset(), frozenset()]
    assert spec.id == ReplicaId("a/CPU#0") or spec.numa_node == 0
