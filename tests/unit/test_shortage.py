from collections.abc import Sequence
from dataclasses import replace

import pytest

from ovray.devices.grammar import parse
from ovray.devices.plan import PlanOptions, make_plan
from ovray.devices.records import CoreSharing, Host, Plan
from ovray.devices.resources import CpusTakenError
from ovray.devices.shortage import lay_out_what_is_free
from ovray.errors import ConfigError
from tests.fixtures.hosts import a_host
from tests.fixtures.sysfs import ONE_SOCKET


def a_node(name: str, total: float = 8, free: float = 8, leased: Sequence[int] = ()) -> Host:
    """Eight cores of one thread each, on one NUMA node."""
    books = {"resources": {"CPU": total}, "available_resources": {"CPU": free, "memory": 1.0}}
    return replace(a_host(ONE_SOCKET, name, **books), node_id=f"id-{name}", leased_cpus=frozenset(leased))


def laid_out(devices: str, *hosts: Host, options: PlanOptions | None = None) -> Plan:
    return lay_out_what_is_free(lambda hosts: make_plan(parse(devices), hosts, options), hosts)


def places(plan: Plan) -> list[tuple[str, int]]:
    return [(str(spec.id), len(spec.cores)) for spec in plan.replicas]


def test_where_all_is_free_nothing_is_missing() -> None:
    plan = laid_out("CPU", a_node("a"), a_node("b"))

    assert places(plan) == [("a/CPU.0#0", 8), ("b/CPU.0#0", 8)]
    assert plan.shortage is None
    assert plan.warnings == ()


def test_a_node_whose_cpus_others_hold_in_part_gives_what_it_has() -> None:
    plan = laid_out("CPU", a_node("a", free=3), a_node("b"))

    assert places(plan) == [("a/CPU.0#0", 3), ("b/CPU.0#0", 8)]
    assert plan.shortage in plan.warnings
    assert "2 of 2 replicas are started, on 11 of 16 cores" in str(plan.shortage)
    assert "a/CPU.0 3 of 8 cores (Ray has 3 of 8 CPUs free there)" in str(plan.shortage)
    assert "b/CPU.0" not in str(plan.shortage)
    assert "`ray list actors" in str(plan.shortage)


def test_a_node_that_is_full_is_done_without() -> None:
    plan = laid_out("CPU,SIM", a_node("a", free=0), a_node("b"))

    assert places(plan) == [("b/CPU.0#0", 8), ("a/SIM#0", 0)]
    assert "2 of 3 replicas are started, on 8 of 16 cores: a/CPU.0 0 of 8 cores" in str(plan.shortage)


def test_a_node_that_was_started_too_small_is_used_as_far_as_it_goes() -> None:
    plan = laid_out("CPU", a_node("a", total=2, free=2))

    assert places(plan) == [("a/CPU.0#0", 2)]
    assert "Ray was started there with 2 CPUs, --num-cpus=8 would give all" in str(plan.shortage)


def test_leased_cores_are_named_once_and_by_their_cause() -> None:
    plan = laid_out("CPU", a_node("a", free=8, leased=range(6)))

    assert places(plan) == [("a/CPU.0#0", 2)]
    assert plan.warnings == (plan.shortage,)
    assert "a/CPU.0 2 of 8 cores (6 leased by other replicas)" in str(plan.shortage)


def test_leases_and_books_that_speak_of_the_same_replicas_count_once() -> None:
    plan = laid_out("CPU*2", a_node("a", free=2, leased=range(6)))

    assert places(plan) == [("a/CPU.0#0", 1), ("a/CPU.0#1", 1)]


def test_a_core_set_that_ray_cannot_give_whole_is_done_without() -> None:
    plan = laid_out("CPU@0-3,CPU@4-5", a_node("a", free=3))

    assert [spec.cores for spec in plan.replicas] == [(4, 5)]
    assert "1 of 2 replicas are started, on 2 of 6 cores" in str(plan.shortage)


def test_where_nothing_is_free_it_is_said_whether_waiting_can_help() -> None:
    with pytest.raises(CpusTakenError, match="a has 0 of 8 free"):
        laid_out("CPU", a_node("a", free=0))
    with pytest.raises(CpusTakenError):  # the other will never have any
        laid_out("CPU", a_node("a", free=0), a_node("b", total=0, free=0))
    with pytest.raises(ConfigError, match="started with 0 of the 8") as caught:
        laid_out("CPU", a_node("a", total=0, free=0))
    assert not isinstance(caught.value, CpusTakenError)


def test_replicas_that_share_cores_claim_none_and_so_lack_none() -> None:
    plan = laid_out("CPU", a_node("a", free=0), options=PlanOptions(sharing=CoreSharing.SHARED))

    assert len(plan.replicas) == 1
    assert plan.shortage is None


def test_replicas_that_wait_for_leases_are_told_apart() -> None:
    plan = laid_out("CPU", a_node("a", leased=range(8)))

    assert places(plan) == [("a/CPU.0#0", 8)]
    assert "1 of them wait for their cores first: a/CPU.0 0 of 8 cores (8 leased" in str(plan.shortage)
