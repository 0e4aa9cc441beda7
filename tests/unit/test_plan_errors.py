import re

import pytest

from ovray.devices.grammar import parse
from ovray.devices.plan import PlanOptions, make_plan
from ovray.devices.records import CoreSharing, Host
from ovray.errors import ConfigError
from tests.fixtures.hosts import CPU, GPU, TWO_GPUS, a_host
from tests.fixtures.sysfs import ONE_SOCKET_SMT, QUOTA_CONTAINER, TWO_SOCKETS_SMT, Machine

TWO_SOCKETS = a_host(TWO_SOCKETS_SMT)
ONE_SOCKET = a_host(ONE_SOCKET_SMT)
QUOTA = a_host(QUOTA_CONTAINER)
WITH_GPUS = a_host(ONE_SOCKET_SMT, devices=(CPU, *TWO_GPUS))


@pytest.mark.parametrize(
    ("devices", "host", "place", "says"),
    [
        ("GPU", TWO_SOCKETS, 0, "nothing here is 'GPU'; there are node-a: CPU.0, CPU.1"),
        ("CPU.0,CPU.7", TWO_SOCKETS, 6, "nothing here is 'CPU.7'; there are node-a: CPU.0, CPU.1"),
        ("node-b/CPU", TWO_SOCKETS, 0, "no host is meant by 'node-b'; there are node-a: CPU.0, CPU.1"),
        ("{rack=1}/CPU", TWO_SOCKETS, 0, "no host is meant by '{rack=1}'; there are node-a"),
        ("CPU,-node-b/CPU", TWO_SOCKETS, 4, "no host is meant by 'node-b'"),
        ("GPU.0.2", WITH_GPUS, 0, "nothing here is 'GPU.0.2'; there are node-a: CPU.0, GPU.0, GPU.0.0, GPU.0.1"),
        ("CPU.0,CPU.0", TWO_SOCKETS, 6, "'CPU.0' and 'CPU.0' both claim the physical core of CPUs 0,32 on node-a"),
        ("CPU,CPU.1", TWO_SOCKETS, 4, "'CPU.1' and 'CPU' both claim the physical core of CPUs 16,48"),
        ("CPU@0-3,CPU@3-5", ONE_SOCKET, 8, "'CPU@3-5' and 'CPU@0-3' both claim the physical core of CPUs 3,11"),
        ("CPU@0,CPU@8", ONE_SOCKET, 6, "'CPU@8' and 'CPU@0' both claim the physical core of CPUs 0,8"),
        ("CPU@0-3,CPU", ONE_SOCKET, 8, "'CPU' and 'CPU@0-3' both claim"),
        ("GPU,GPU.1", WITH_GPUS, 4, "'GPU.1' and 'GPU' both claim GPU.1 on node-a"),
        ("GPU.0,GPU.0.1", WITH_GPUS, 6, "'GPU.0.1' and 'GPU.0' both claim GPU.0.1 on node-a"),
        ("CPU@14-17", ONE_SOCKET, 0, "CPU 16-17 cannot be used on node-a: not there, offline, left out, "
         "or outside of the affinity mask or cpuset; usable are 0-15"),
        ("CPU.1@0-3", TWO_SOCKETS, 0, "CPU 0-3 cannot be used on NUMA node 1 of node-a"),
        ("CPU@0-3,-CPU@2", ONE_SOCKET, 0, "CPU 2 cannot be used on node-a: not there, offline, left out"),
        ("CPU*9", ONE_SOCKET, 0, "NUMA node 0 of node-a has 8 usable cores, too few for 9 replicas"),
        ("CPU@0+8*2", ONE_SOCKET, 0, "the core set of node-a has 1 usable core, too few for 2 replicas"),
        ("CPU@0-2", QUOTA, 0, "the CPU quota of node-a (2.5) allows 2 CPUs, fewer than the core sets claim"),
        ("CPU*3", QUOTA, 0, "no cores are left for 'CPU*3' on node-a"),
        ("CPU?PERFORMANCE_HINT=FAST", ONE_SOCKET, 0, "PERFORMANCE_HINT=FAST: legal are LATENCY, THROUGHPUT"),
    ],
)  # fmt: skip
def test_a_string_that_cannot_be_is_refused_at_its_place(devices: str, host: Host, place: int, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"character {place + 1}: {says}")) as caught:
        make_plan(parse(devices), [host])

    assert str(caught.value).endswith(f"  {devices}\n  {' ' * place}^")


def test_a_named_node_that_the_quota_leaves_nothing_is_refused() -> None:
    host = a_host(Machine(packages=2, cpu_max="100000 100000"))

    with pytest.raises(ConfigError, match="allows 1 CPU, none of them left for this entry"):
        make_plan(parse("CPU.0,CPU.1"), [host])


def test_a_string_that_leaves_everything_out_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'-CPU' leaves no device; there are node-a: CPU\.0"):
        make_plan(parse("-CPU"), [ONE_SOCKET])


def test_no_host_at_all_is_told() -> None:
    with pytest.raises(ConfigError, match="there is no host at all"):
        make_plan(parse("CPU"), [])


def test_a_long_list_of_hosts_is_cut_short() -> None:
    hosts = [a_host(ONE_SOCKET_SMT, f"n{number}") for number in range(40)]

    with pytest.raises(ConfigError, match=r"n11: CPU\.0; and 28 hosts more; nothing was started"):
        make_plan(parse("GPU"), hosts)


def test_entries_that_meet_are_fine_where_cores_are_shared_on_request() -> None:
    host = a_host(ONE_SOCKET_SMT, devices=(CPU, GPU))

    plan = make_plan(parse("CPU,CPU.0,GPU,GPU.0"), [host], PlanOptions(sharing=CoreSharing.SHARED))

    assert [spec.id.split("/")[1] for spec in plan.replicas] == ["CPU.0#0", "CPU.0#1", "GPU#0", "GPU#1"]


def test_two_precisions_for_one_entry_are_refused() -> None:
    with pytest.raises(ConfigError, match="INFERENCE_PRECISION_HINT=bf16 contradicts --precision f32"):
        make_plan(parse("CPU?INFERENCE_PRECISION_HINT=bf16"), [ONE_SOCKET], PlanOptions(precision="f32"))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision 'fp32' is unknown; legal are f32, f16, bf16"):
        PlanOptions(precision="fp32")
