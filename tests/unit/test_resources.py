import pytest

from ovray.devices.grammar import parse
from ovray.devices.plan import PlanOptions, make_plan
from ovray.devices.records import CoreSharing, Host
from ovray.devices.resources import CpusTakenError, check_resources
from ovray.errors import ConfigError
from tests.fixtures.hosts import a_host
from tests.fixtures.sysfs import ONE_SOCKET, ONE_SOCKET_SMT


def a_ray_node(name: str, total: float, free: float) -> Host:
    return a_host(ONE_SOCKET, name, resources={"CPU": total}, available_resources={"CPU": free, "memory": 1.0})


def test_a_plan_that_ray_can_hold_passes() -> None:
    hosts = [a_ray_node("a", 8, 8), a_ray_node("b", 16, 8)]

    check_resources(make_plan(parse("CPU"), hosts), hosts)


def test_a_core_with_two_threads_is_claimed_as_one_cpu() -> None:
    hosts = [a_host(ONE_SOCKET_SMT, resources={"CPU": 8.0})]

    check_resources(make_plan(parse("CPU"), hosts), hosts)


def test_what_others_hold_is_told_and_who_has_some_left() -> None:
    hosts = [a_ray_node("a", 8, 3), a_ray_node("b", 16, 16)]

    with pytest.raises(CpusTakenError) as caught:
        check_resources(make_plan(parse("CPU"), hosts), hosts)

    assert "a has 3 of 8 free and 8 are claimed; other jobs and actors hold 5" in str(caught.value)
    assert "free CPUs are left on b (8)" in str(caught.value)


def test_a_node_that_was_started_too_small_is_told() -> None:
    hosts = [a_ray_node("a", 2, 2)]

    with pytest.raises(ConfigError) as caught:
        check_resources(make_plan(parse("CPU"), hosts), hosts)

    assert (
        "a was started with 2 of the 8 that are claimed; restart that node with 'ray start --num-cpus=8'"
        in str(caught.value)
    )
    assert "no other node has CPUs left" in str(caught.value)
    assert not isinstance(caught.value, CpusTakenError)


@pytest.mark.parametrize(
    ("devices", "options"), [("SIM*100", PlanOptions()), ("CPU", PlanOptions(sharing=CoreSharing.SHARED))]
)
def test_simulated_devices_and_shared_cores_claim_nothing(devices: str, options: PlanOptions) -> None:
    hosts = [a_ray_node("a", 1, 0)]

    check_resources(make_plan(parse(devices), hosts, options), hosts)
