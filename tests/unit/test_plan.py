from collections.abc import Sequence

import pytest

from ovray.devices.cpulist import format_cpu_list
from ovray.devices.grammar import parse
from ovray.devices.plan import PlanOptions, make_plan
from ovray.devices.records import CoreSharing, Hint, Host, Measurement, OpenVINODevice, Plan
from tests.fixtures.hosts import CPU, GPU, NPU, OLD_CPU, TWO_GPUS, a_host
from tests.fixtures.sysfs import (
    HYBRID_CLIENT,
    MEMORY_ONLY_NODE,
    ONE_SOCKET,
    ONE_SOCKET_SMT,
    QUOTA_CONTAINER,
    SUB_NUMA_CLUSTERS,
    TWO_SOCKETS,
    TWO_SOCKETS_SMT,
    Machine,
)

LATENCY = PlanOptions(hint=Hint.LATENCY)
SHARED = PlanOptions(sharing=CoreSharing.SHARED)


def plan(devices: str, *hosts: Host, options: PlanOptions | None = None) -> Plan:
    return make_plan(parse(devices), hosts, options)


def placed(plan: Plan) -> list[str]:
    """Returns ``id cpus`` for each replica, as short as people would write it."""
    return [f"{spec.id} {format_cpu_list(spec.cpus)}".strip() for spec in plan.replicas]


@pytest.mark.parametrize(
    ("devices", "machine", "replicas"),
    [
        pytest.param("CPU", ONE_SOCKET, ["CPU.0#0 0-7"], id="one socket"),
        pytest.param("CPU", ONE_SOCKET_SMT, ["CPU.0#0 0-15"], id="siblings are used"),
        pytest.param(
            "CPU", TWO_SOCKETS_SMT, ["CPU.0#0 0-15,32-47", "CPU.1#0 16-31,48-63"], id="a replica each socket"
        ),
        pytest.param(
            "CPU",
            SUB_NUMA_CLUSTERS,
            [f"CPU.{n}#0 {8 * n}-{8 * n + 7},{64 + 8 * n}-{71 + 8 * n}" for n in range(8)],
            id="a replica each sub-NUMA cluster",
        ),
        pytest.param("CPU", MEMORY_ONLY_NODE, ["CPU.0#0 0-7", "CPU.1#0 8-15"], id="none on a memory-only node"),
        pytest.param("CPU", HYBRID_CLIENT, ["CPU.0#0 0-19"], id="P-cores and E-cores"),
        pytest.param("CPU.1", TWO_SOCKETS, ["CPU.1#0 16-31"], id="one node"),
        pytest.param(
            "CPU*2", ONE_SOCKET_SMT, ["CPU.0#0 0-3,8-11", "CPU.0#1 4-7,12-15"], id="halves of whole cores"
        ),
        pytest.param(
            "CPU*2", HYBRID_CLIENT, ["CPU.0#0 0-7,16-17", "CPU.0#1 8-15,18-19"], id="halves of both kinds of cores"
        ),
        pytest.param("CPU*3", ONE_SOCKET, ["CPU.0#0 0-1", "CPU.0#1 2-3", "CPU.0#2 4-5"], id="equal thirds"),
        pytest.param("CPU@1-2+5", ONE_SOCKET_SMT, ["CPU.0#0 1-2,5"], id="exactly these CPUs"),
        pytest.param(
            "CPU@0-1,CPU@2-3,CPU.1",
            TWO_SOCKETS,
            ["CPU.0#0 0-1", "CPU.0#1 2-3", "CPU.1#0 16-31"],
            id="core sets beside a node",
        ),
        pytest.param("CPU@0-3*2", ONE_SOCKET, ["CPU.0#0 0-1", "CPU.0#1 2-3"], id="a core set in halves"),
        pytest.param("CPU@14-17", TWO_SOCKETS, ["CPU#0 14-17"], id="a core set over two nodes"),
        pytest.param("CPU,-CPU.0", TWO_SOCKETS, ["CPU.1#0 16-31"], id="a node left out"),
        pytest.param("CPU,-CPU@0-1", ONE_SOCKET_SMT, ["CPU.0#0 2-7,10-15"], id="cores left out whole"),
        pytest.param("CPU.1,CPU.0", TWO_SOCKETS, ["CPU.1#0 16-31", "CPU.0#0 0-15"], id="in the string's order"),
    ],
)
def test_where_throughput_replicas_go(devices: str, machine: Machine, replicas: list[str]) -> None:
    result = plan(devices, a_host(machine))

    assert placed(result) == [f"node-a/{replica}" for replica in replicas]


@pytest.mark.parametrize(
    ("machine", "replicas"),
    [
        pytest.param(ONE_SOCKET_SMT, ["CPU.0#0 0-7"], id="no siblings"),
        pytest.param(TWO_SOCKETS_SMT, ["CPU.0#0 0-15", "CPU.1#0 16-31"], id="a request each socket"),
        pytest.param(HYBRID_CLIENT, ["CPU.0#0 0,2,4,6,8,10,12,14"], id="one thread of each P-core"),
    ],
)
def test_where_latency_replicas_go(machine: Machine, replicas: list[str]) -> None:
    result = plan("CPU", a_host(machine), options=LATENCY)

    assert placed(result) == [f"node-a/{replica}" for replica in replicas]
    assert {(spec.streams, spec.nireq) for spec in result.replicas} == {(1, 1)}


def test_throughput_leaves_streams_and_requests_to_openvino() -> None:
    (spec,) = plan("CPU", a_host(ONE_SOCKET)).replicas

    assert (spec.streams, spec.nireq, spec.threads) == (None, None, None)


def test_a_latency_replica_leases_the_siblings_it_does_not_use() -> None:
    (spec,) = plan("CPU@0-1+8-9", a_host(ONE_SOCKET_SMT), options=LATENCY).replicas

    assert spec.cpus == (0, 1, 8, 9)
    assert spec.cores == (0, 1)
    assert spec.threads == 2


@pytest.mark.parametrize(
    ("devices", "machine", "replicas"),
    [
        pytest.param("CPU", QUOTA_CONTAINER, ["CPU.0#0 0-1"], id="2.5 is two cores, one thread each"),
        pytest.param("CPU*2", QUOTA_CONTAINER, ["CPU.0#0 0", "CPU.0#1 1"], id="a core each"),
        pytest.param("CPU@3+5", QUOTA_CONTAINER, ["CPU.0#0 3,5"], id="a core set within it"),
        pytest.param("CPU", Machine(cpu_max="10000 100000"), ["CPU.0#0 0"], id="at least one core"),
        pytest.param(
            "CPU", Machine(packages=2, cpu_max="400000 100000"), ["CPU.0#0 0-3"], id="as few nodes as it takes"
        ),
        pytest.param(
            "CPU.0,CPU.1",
            Machine(packages=2, cpu_max="600000 100000"),
            ["CPU.0#0 0-2", "CPU.1#0 8-10"],
            id="named nodes share it equally",
        ),
        pytest.param(
            "CPU@8-9,CPU.0",
            Machine(packages=2, cpu_max="600000 100000"),
            ["CPU.1#0 8-9", "CPU.0#0 0-3"],
            id="core sets take theirs first",
        ),
        pytest.param(
            "CPU",
            Machine(threads_per_core=2, cpu_max="1200000 100000"),
            ["CPU.0#0 0-7"],
            id="physical cores first, siblings only if all fit",
        ),
        pytest.param(
            "CPU", Machine(threads_per_core=2, cpu_max="1600000 100000"), ["CPU.0#0 0-15"], id="all of them fit"
        ),
        pytest.param(
            "CPU",
            Machine(threads_per_core=2, siblings_are_adjacent=True, efficient_cores=4, cpu_max="200000 100000"),
            ["CPU.0#0 0,2"],
            id="P-cores before E-cores",
        ),
    ],
)
def test_a_quota_bounds_all_replicas_of_a_host(devices: str, machine: Machine, replicas: list[str]) -> None:
    result = plan(devices, a_host(machine))

    assert placed(result) == [f"node-a/{replica}" for replica in replicas]


def test_a_quota_that_leaves_cores_idle_is_told() -> None:
    result = plan("CPU", a_host(QUOTA_CONTAINER))

    assert result.warnings == ("the CPU quota of node-a (2.5) allows 2 CPUs: 2 of 8 cores used",)


def test_cores_that_cannot_be_divided_equally_stay_idle_and_are_told() -> None:
    result = plan("CPU*3", a_host(ONE_SOCKET))

    assert result.warnings == ("NUMA node 0 of node-a: 2 cores of 8 idle; its 3 replicas are equal",)


@pytest.mark.parametrize(
    ("devices", "replicas"),
    [
        ("GPU", ["big/GPU.0#0", "big/GPU.1#0", "small/GPU#0"]),
        ("GPU.0", ["big/GPU.0#0", "small/GPU#0"]),
        ("GPU.1*2", ["big/GPU.1#0", "big/GPU.1#1"]),
        ("GPU.0.1", ["big/GPU.0.1#0"]),
        ("NPU", ["small/NPU#0"]),
        ("small/GPU,big/CPU", ["small/GPU#0", "big/CPU.0#0 0-7"]),
        (
            "MULTI",
            ["big/GPU.0#0", "big/GPU.1#0", "small/GPU#0", "small/NPU#0", "big/CPU.0#0 0-7", "small/CPU.0#0 0-7"],
        ),
        ("MULTI:-CPU,-GPU", ["small/NPU#0"]),
        ("GPU,-big/GPU.0", ["big/GPU.1#0", "small/GPU#0"]),
        ("CPU,-small/CPU", ["big/CPU.0#0 0-7"]),
    ],
)
def test_devices_are_found_as_openvino_names_them(devices: str, replicas: list[str]) -> None:
    hosts = (
        a_host(ONE_SOCKET, "big", devices=(CPU, *TWO_GPUS)),
        a_host(ONE_SOCKET, "small", devices=(CPU, GPU, NPU)),
    )

    assert placed(plan(devices, *hosts)) == replicas


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("node-a", ["node-a"]),
        ("NODE-A", ["node-a"]),
        ("10.0.0.2", ["node-b"]),
        ("node-*", ["node-a", "node-b"]),
        ("10.0.0.?", ["node-a", "node-b"]),
        ("f00", ["node-b"]),
        ("{rack=1}", ["node-a"]),
        ("{rack in (1,2)}", ["node-a", "node-b"]),
        ("{rack!=1}", ["node-b"]),
    ],
)
def test_hosts_are_found_by_name_address_glob_and_label(pattern: str, found: list[str]) -> None:
    hosts = (
        a_host(ONE_SOCKET, "node-a", address="10.0.0.1", labels={"rack": "1"}),
        a_host(ONE_SOCKET, "node-b", address="10.0.0.2", labels={"rack": "2"}, node_id="f00"),
    )

    assert [spec.host for spec in plan(f"{pattern}/CPU", *hosts).replicas] == found


def test_simulated_devices_are_dealt_out_over_hosts_and_cost_nothing() -> None:
    hosts = a_host(ONE_SOCKET, "a"), a_host(ONE_SOCKET, "b")

    result = plan("SIM*3?ms=5&nireq=2,b/SIM?ms=50", *hosts)

    assert placed(result) == ["a/SIM#0", "b/SIM#0", "a/SIM#1", "b/SIM#1"]
    assert [spec.nireq for spec in result.replicas] == [2, 2, 2, 1]
    assert {(spec.ray_num_cpus, spec.openvino_device) for spec in result.replicas} == {(0, "")}
    assert result.replicas[3].properties == {"ms": "50"}


def test_cores_that_others_hold_are_left_out() -> None:
    host = a_host(TWO_SOCKETS_SMT, leased_cpus=frozenset({*range(8), *range(16, 32), *range(48, 64)}))

    result = plan("CPU", host)

    assert placed(result) == ["node-a/CPU.0#0 8-15,40-47"]
    assert result.warnings == (
        "NUMA node 0 of node-a: 8 cores of 16 held by other replicas and left out",
        "NUMA node 1 of node-a: 16 cores of 16 held by other replicas and left out",
    )


@pytest.mark.parametrize("devices", ["CPU", "CPU@0-7"])
def test_replicas_wait_for_their_cores_where_others_hold_all_of_them(devices: str) -> None:
    result = plan(devices, a_host(ONE_SOCKET, leased_cpus=frozenset(range(8))))

    assert placed(result) == ["node-a/CPU.0#0 0-7"]
    assert "has to wait for them" in result.warnings[0]


def two_ray_nodes(machine: Machine) -> Sequence[Host]:
    return [
        a_host(machine, address=f"10.0.0.{number}", machine_id="boot", node_id=f"{number}") for number in (1, 2)
    ]


def test_ray_nodes_of_one_machine_divide_its_cores() -> None:
    result = plan("CPU", *two_ray_nodes(ONE_SOCKET))

    assert placed(result) == ["10.0.0.1/CPU.0#0 0-3", "10.0.0.2/CPU.0#0 4-7"]
    assert result.warnings == (
        "10.0.0.1, 10.0.0.2 are Ray nodes of one machine: its cores are divided between them",
    )


def test_a_machine_of_one_core_gives_it_to_its_first_ray_node() -> None:
    result = plan("CPU", *two_ray_nodes(Machine(cores_per_node=1)))

    assert placed(result) == ["10.0.0.1/CPU.0#0 0"]


def test_hosts_of_the_same_name_and_address_are_told_apart_by_node_id() -> None:
    hosts = [a_host(ONE_SOCKET, address="127.0.0.1", node_id=f"{digit * 12}") for digit in "ab"]

    assert [spec.id for spec in plan("CPU", *hosts).replicas] == [
        "node-a.aaaaaaaa/CPU.0#0",
        "node-a.bbbbbbbb/CPU.0#0",
    ]


def test_shared_cores_divide_threads_and_claim_nothing() -> None:
    result = plan("CPU,CPU.0,CPU@0-3", a_host(TWO_SOCKETS), options=SHARED)

    assert [spec.threads for spec in result.replicas] == [7, 16, 7, 1]
    assert {spec.sharing for spec in result.replicas} == {CoreSharing.SHARED}
    assert {spec.ray_num_cpus for spec in result.replicas} == {0}
    assert "cores are shared: nothing is leased or pinned" in result.warnings[-1]


def test_the_precision_of_each_device_is_shown_and_a_mixture_is_told() -> None:
    result = plan("GPU,CPU", a_host(ONE_SOCKET, devices=(CPU, GPU)), a_host(ONE_SOCKET, "old", devices=(OLD_CPU,)))

    assert [spec.precision for spec in result.replicas] == ["f16", "bf16", "f32"]
    assert result.warnings == (
        "replicas compute in different precisions, so the same input gives different numbers: f16 on "
        "node-a/GPU#0, bf16 on node-a/CPU.0#0, f32 on old/CPU.0#0; --precision f32 makes them equal",
    )


def test_one_precision_for_all_makes_replicas_equal() -> None:
    result = plan("GPU,CPU", a_host(ONE_SOCKET, devices=(CPU, GPU)), options=PlanOptions(precision="f32"))

    assert [spec.precision for spec in result.replicas] == ["f32", "f32"]
    assert [spec.properties for spec in result.replicas] == [{"INFERENCE_PRECISION_HINT": "f32"}] * 2
    assert result.warnings == ()


def test_a_device_without_the_wanted_precision_keeps_its_own_and_says_so() -> None:
    hosts = a_host(ONE_SOCKET, devices=(OLD_CPU, NPU))

    result = plan("CPU,NPU", hosts, options=PlanOptions(precision="bf16"))

    assert [spec.precision for spec in result.replicas] == ["f32", "f16"]
    assert result.replicas[1].properties == {}  # the NPU plugin refuses a precision that it does not have
    assert result.warnings[:2] == (
        "node-a/CPU.0 cannot compute in bf16 and uses f32",
        "node-a/NPU cannot compute in bf16 and uses f16",
    )


def test_accuracy_mode_computes_in_the_model_s_own_precision() -> None:
    (spec,) = plan("CPU?EXECUTION_MODE_HINT=ACCURACY", a_host(ONE_SOCKET)).replicas

    assert spec.precision == "dynamic"


def test_an_entry_s_own_properties_count() -> None:
    devices = "CPU.0(3)?NUM_STREAMS=2&INFERENCE_NUM_THREADS=4&PERFORMANCE_HINT=LATENCY,CPU.1"

    first, second = plan(devices, a_host(TWO_SOCKETS_SMT)).replicas

    assert (first.nireq, first.streams, first.threads, first.hint) == (3, 2, 4, Hint.LATENCY)
    assert (second.hint, len(second.cpus)) == (Hint.THROUGHPUT, 32)


@pytest.mark.parametrize(
    ("devices", "options", "cpus"),
    [
        ("CPU?ENABLE_HYPER_THREADING=NO", PlanOptions(), "0,2,4,6,8,10,12,14,16-19"),
        ("CPU?ENABLE_HYPER_THREADING=YES", LATENCY, "0-15"),
        ("CPU?SCHEDULING_CORE_TYPE=ECORE_ONLY", PlanOptions(), "16-19"),
        ("CPU?SCHEDULING_CORE_TYPE=PCORE_ONLY", PlanOptions(), "0-15"),
        ("CPU?SCHEDULING_CORE_TYPE=ANY_CORE", LATENCY, "0,2,4,6,8,10,12,14,16-19"),
    ],
)
def test_properties_of_an_entry_choose_other_threads_and_kinds_of_cores(
    devices: str, options: PlanOptions, cpus: str
) -> None:
    (spec,) = plan(devices, a_host(HYBRID_CLIENT), options=options).replicas

    assert format_cpu_list(spec.cpus) == cpus


def test_memory_comes_from_the_replica_s_own_node_where_the_host_allows_it() -> None:
    bound = plan("CPU", a_host(TWO_SOCKETS)).replicas
    free = plan("CPU", a_host(TWO_SOCKETS, can_bind_memory=False)).replicas

    assert [spec.memory_policy for spec in bound] == ["preferred:0", "preferred:1"]
    assert [spec.memory_policy for spec in free] == ["first-touch", "first-touch"]


def test_a_core_set_over_two_nodes_touches_memory_first_and_is_told() -> None:
    result = plan("CPU@15-16", a_host(TWO_SOCKETS))

    assert result.replicas[0].memory_policy == "first-touch"
    assert "'CPU@15-16' spans NUMA nodes of node-a" in result.warnings[0]


def test_a_row_has_the_promised_keys_and_measured_values_replace_planned_ones() -> None:
    result = plan("CPU", a_host(ONE_SOCKET))
    (spec,) = result.replicas

    (planned,) = result.rows()
    (measured,) = result.with_measurements({spec.id: Measurement(nireq=4, streams=4, compile_s=0.5)}).rows()

    assert planned == {
        "id": "node-a/CPU.0#0",
        "host": "node-a",
        "device": "CPU.0",
        "numa_node": 0,
        "cpus": tuple(range(8)),
        "threads": 8,
        "streams": None,
        "nireq": None,
        "precision": "bf16",
        "memory_policy": "preferred:0",
        "compile_s": None,
        "first_inference_ms": None,
        "rss_mb": None,
    }
    assert measured == {**planned, "nireq": 4, "streams": 4, "compile_s": 0.5}


def test_a_plan_becomes_a_data_frame_with_its_warnings_beside_it() -> None:
    frame = plan("CPU", a_host(QUOTA_CONTAINER)).to_pandas()

    assert list(frame["id"]) == ["node-a/CPU.0#0"]
    assert frame.attrs["warnings"] == ["the CPU quota of node-a (2.5) allows 2 CPUs: 2 of 8 cores used"]


IGPU_AND_DGPU = (
    OpenVINODevice(name="GPU.0", precision="f16", type="integrated"),
    OpenVINODevice(name="GPU.1", precision="f16", type="discrete"),
)


@pytest.mark.parametrize(
    ("devices", "ranks"),
    [
        ("AUTO", [("GPU.1", 0), ("GPU.0", 1), ("CPU.0", 3)]),
        ("AUTO:-GPU.1", [("GPU.0", 1), ("CPU.0", 3)]),
        ("MULTI", [("GPU.1", 0), ("GPU.0", 1), ("NPU", 2), ("CPU.0", 3)]),
        ("AUTO:CPU,GPU", [("CPU.0", 0), ("GPU.0", 1), ("GPU.1", 1)]),
        ("AUTO:NPU,SIM,SIM?ms=2", [("NPU", 0), ("SIM", 1), ("SIM", 2)]),
        ("AUTO:GPU.1,NPU,-CPU", [("GPU.1", 0), ("NPU", 1)]),
    ],
)
def test_devices_rank_as_listed_or_as_openvinos_auto_ranks_them(
    devices: str, ranks: list[tuple[str, int]]
) -> None:
    result = plan(devices, a_host(ONE_SOCKET, devices=(CPU, NPU, *IGPU_AND_DGPU)))

    assert [(spec.device, spec.rank) for spec in result.replicas] == ranks
