import pytest

from ovray.devices.inventory import ClusterProbe, LeftOut, precisions
from ovray.devices.records import Core, Host, HostTopology, NumaNode, OpenVINODevice


def a_core(number: int, *cpus: int, numa_node: int) -> Core:
    return Core(id=number, cpus=cpus, numa_node=numa_node, package=numa_node, cache=number)


def a_two_socket_host() -> Host:
    return Host(
        name="node-a",
        address="10.0.0.1",
        topology=HostTopology(
            nodes=(
                NumaNode(id=0, cores=(a_core(0, 0, 4, numa_node=0), a_core(1, 1, 5, numa_node=0)), memory_bytes=7),
                NumaNode(id=1, cores=(a_core(2, 2, 6, numa_node=1),), memory_bytes=8),
                NumaNode(id=2, cores=(), memory_bytes=9),
            ),
            online_cpus=(0, 1, 2, 4, 5, 6),
            quota_cpus=2.5,
        ),
        devices=(
            OpenVINODevice(name="CPU", full_name="Xeon", capabilities=("BF16", "WINOGRAD"), precision="bf16"),
            OpenVINODevice(name="GPU.0", full_name="Arc", capabilities=("FP32", "FP16"), precision="f16"),
        ),
        leased_cpus=frozenset({2, 6}),
    )


FOUND = ClusterProbe(
    hosts=(a_two_socket_host(),), left_out=(LeftOut(host="node-b", node_id="b", reason="no answer within 60 s"),)
)


def test_there_is_one_row_for_each_thing_that_an_entry_can_name() -> None:
    rows = [(row["device"], row["numa_node"], row["cpus"], row["leased_cpus"]) for row in FOUND.rows()]

    assert rows == [("CPU.0", 0, (0, 1, 4, 5), ()), ("CPU.1", 1, (2, 6), (2, 6)), ("GPU.0", None, (), ())]


def test_the_table_and_the_rows_agree() -> None:
    frame = FOUND.to_pandas()

    assert list(frame["device"]) == ["CPU.0", "CPU.1", "GPU.0"]
    assert frame.attrs["left_out"] == [{"host": "node-b", "node_id": "b", "reason": "no answer within 60 s"}]


def test_an_empty_cluster_still_has_columns() -> None:
    assert "device" in ClusterProbe(hosts=()).to_pandas().columns


def test_json_shows_devices_nodes_quota_and_memory() -> None:
    (host,) = FOUND.to_json()["hosts"]

    assert host["host"] == "node-a"
    assert [(device["device"], device["precisions"]) for device in host["devices"]] == [
        ("CPU", ["BF16"]),
        ("GPU.0", ["FP32", "FP16"]),
    ]
    assert [(node["numa_node"], node["cpus"], node["memory_bytes"]) for node in host["numa_nodes"]] == [
        (0, [0, 1, 4, 5], 7),
        (1, [2, 6], 8),
        (2, [], 9),
    ]
    assert host["quota_cpus"] == 2.5
    assert host["leased_cpus"] == [2, 6]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (("FP32", "FP16", "BF16", "INT8"), ("FP32", "FP16", "BF16", "INT8")),
        (("WINOGRAD", "BIN", "EXPORT_IMPORT", "GPU_HW_MATMUL"), ()),
    ],
)
def test_capabilities_that_are_no_precisions_are_left_out(
    capabilities: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert precisions(OpenVINODevice(name="GPU", capabilities=capabilities)) == expected
