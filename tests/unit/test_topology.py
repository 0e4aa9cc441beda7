from pathlib import Path

import pytest

from ovray.devices.cpulist import format_cpu_list, parse_cpu_list
from ovray.devices.records import CoreKind, HostTopology
from ovray.devices.topology import read_topology
from tests.fixtures.sysfs import (
    CPUSET_CONTAINER,
    HYBRID_CLIENT,
    MEMORY_ONLY_NODE,
    OFFLINE_CORES,
    ONE_SOCKET,
    ONE_SOCKET_SMT,
    QUOTA_CONTAINER,
    SUB_NUMA_CLUSTERS,
    TWO_SOCKETS,
    TWO_SOCKETS_SMT,
    Machine,
    write_sysfs,
)


def cpus_by_node(topology: HostTopology) -> dict[int, str]:
    return {node.id: format_cpu_list(cpu for core in node.cores for cpu in core.cpus) for node in topology.nodes}


@pytest.mark.parametrize(
    ("machine", "cores", "nodes"),
    [
        pytest.param(ONE_SOCKET, 8, {0: "0-7"}, id="one socket"),
        pytest.param(ONE_SOCKET_SMT, 8, {0: "0-15"}, id="one socket with SMT"),
        pytest.param(TWO_SOCKETS, 32, {0: "0-15", 1: "16-31"}, id="two sockets, SMT off"),
        pytest.param(TWO_SOCKETS_SMT, 32, {0: "0-15,32-47", 1: "16-31,48-63"}, id="two sockets"),
        pytest.param(
            SUB_NUMA_CLUSTERS,
            64,
            {node: f"{8 * node}-{8 * node + 7},{64 + 8 * node}-{71 + 8 * node}" for node in range(8)},
            id="sub-NUMA clusters",
        ),
        pytest.param(HYBRID_CLIENT, 12, {0: "0-19"}, id="hybrid client"),
        pytest.param(OFFLINE_CORES, 7, {0: "1-2,4-10,12-15"}, id="offline cores"),
        pytest.param(MEMORY_ONLY_NODE, 16, {0: "0-7", 1: "8-15", 2: ""}, id="memory-only node"),
        pytest.param(CPUSET_CONTAINER, 8, {0: "4-7,20-23", 1: "8-11,24-27"}, id="cpuset"),
        pytest.param(QUOTA_CONTAINER, 8, {0: "0-15"}, id="quota"),
        pytest.param(Machine(has_node_dir=False), 8, {0: "0-7"}, id="no node directory"),
    ],
)
def test_the_cores_of_a_recorded_machine(
    tmp_path: Path, machine: Machine, cores: int, nodes: dict[int, str]
) -> None:
    topology = read_topology(write_sysfs(tmp_path, machine))

    assert len(topology.cores) == cores
    assert cpus_by_node(topology) == nodes


def test_siblings_are_one_core(tmp_path: Path) -> None:
    topology = read_topology(write_sysfs(tmp_path, TWO_SOCKETS_SMT))

    assert [core.cpus for core in topology.nodes[1].cores][:2] == [(16, 48), (17, 49)]
    assert {core.package for core in topology.nodes[1].cores} == {1}


def test_cores_that_share_a_cache_say_so(tmp_path: Path) -> None:
    topology = read_topology(write_sysfs(tmp_path, SUB_NUMA_CLUSTERS))

    assert [{core.cache for core in node.cores} for node in topology.nodes][:3] == [{0}, {8}, {16}]


def test_a_hybrid_client_has_two_kinds_of_cores(tmp_path: Path) -> None:
    topology = read_topology(write_sysfs(tmp_path, HYBRID_CLIENT))

    kinds = {core.cpus: core.kind for core in topology.cores}
    assert kinds[(0, 1)] is CoreKind.PERFORMANCE
    assert [cpus for cpus, kind in kinds.items() if kind is CoreKind.EFFICIENT] == [(16,), (17,), (18,), (19,)]


def test_a_core_whose_first_thread_is_offline_is_used_through_its_sibling(tmp_path: Path) -> None:
    topology = read_topology(write_sysfs(tmp_path, OFFLINE_CORES))

    assert (8,) in [core.cpus for core in topology.cores]
    assert 0 not in topology.online_cpus


def test_a_core_keeps_its_number_where_the_cpuset_hides_its_first_thread(tmp_path: Path) -> None:
    topology = read_topology(write_sysfs(tmp_path, Machine(threads_per_core=2, cpuset="8-9")))

    assert [(core.id, core.cpus) for core in topology.cores] == [(0, (8,)), (1, (9,))]
    assert len(topology.online_cpus) == 16


def test_a_node_without_usable_cores_is_still_known(tmp_path: Path) -> None:
    topology = read_topology(write_sysfs(tmp_path, Machine(packages=2, cpuset="8-15")))

    assert [(node.id, len(node.cores)) for node in topology.nodes] == [(0, 0), (1, 8)]


def test_the_memory_of_a_node_is_read(tmp_path: Path) -> None:
    topology = read_topology(write_sysfs(tmp_path, MEMORY_ONLY_NODE))

    assert topology.nodes[2].memory_bytes == 16 << 30


def test_an_affinity_mask_cuts_a_tree_down(tmp_path: Path) -> None:
    topology = read_topology(write_sysfs(tmp_path, ONE_SOCKET_SMT), affinity=frozenset({1, 9, 2}))

    assert [core.cpus for core in topology.cores] == [(1, 9), (2,)]


@pytest.mark.parametrize(
    ("cpu_max", "budget"),
    [("max 100000", None), ("250000 100000", 2), ("10000 100000", 1), ("800000 100000", 8), ("50000 10000", 5)],
)
def test_a_quota_is_rounded_down_to_at_least_one_cpu(tmp_path: Path, cpu_max: str, budget: int | None) -> None:
    topology = read_topology(write_sysfs(tmp_path, Machine(cpu_max=cpu_max)))

    assert topology.cpu_budget == budget


def test_the_older_name_of_the_sibling_list_will_do(tmp_path: Path) -> None:
    root = write_sysfs(tmp_path, ONE_SOCKET_SMT)
    for topology_dir in root.glob("devices/system/cpu/cpu*/topology"):
        (topology_dir / "core_cpus_list").rename(topology_dir / "thread_siblings_list")

    assert len(read_topology(root).cores) == 8


def test_where_no_siblings_are_listed_the_core_numbers_tell(tmp_path: Path) -> None:
    for cpu, (package, core) in enumerate([(0, 0), (0, 1), (1, 0), (0, 0), (0, 1), (1, 0)]):
        topology_dir = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        topology_dir.mkdir(parents=True)
        (topology_dir / "physical_package_id").write_text(str(package))
        (topology_dir / "core_id").write_text(str(core))

    assert [core.cpus for core in read_topology(tmp_path).cores] == [(0, 3), (1, 4), (2, 5)]


def test_a_tree_without_caches_and_lists_still_has_its_cores(tmp_path: Path) -> None:
    root = tmp_path
    for cpu in range(4):
        (root / f"devices/system/cpu/cpu{cpu}").mkdir(parents=True)

    assert [core.cpus for core in read_topology(root).cores] == [(0,), (1,), (2,), (3,)]


def test_this_machine_is_read_within_this_process_s_own_mask() -> None:
    topology = read_topology()

    own = parse_cpu_list(
        next(
            line.split(":")[1]
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("Cpus_allowed_list")
        )
    )
    assert topology.cores
    assert set(topology.allowed_cpus) <= own
