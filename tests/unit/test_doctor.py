from typing import Any

import pytest

from ovray.devices import doctor, wire
from ovray.devices.findings import Status
from ovray.devices.probe import NodeAnswer, RayNode
from ovray.devices.records import Core, Host, HostTopology, NumaNode

VERSIONS = {"python": "3.11", "openvino": "2026.4.1", "ray": "2.60.0", "ovray": "0.1.0"}
MIB = 2**20


def a_host(*, cores: int = 2, object_store_bytes: int = 2**30) -> Host:
    found = tuple(Core(id=cpu, cpus=(cpu,), numa_node=0, package=0, cache=0) for cpu in range(cores))
    return Host(
        name="node-a",
        topology=HostTopology(nodes=(NumaNode(id=0, cores=found),), online_cpus=tuple(range(cores))),
        resources={"object_store_memory": float(object_store_bytes)},
    )


def an_answer(*, address: str = "10.0.0.1", problem: str = "", **fields: Any) -> NodeAnswer:
    """What node-a said, asked at 100 s and read at 103 s."""
    said = {"versions": VERSIONS, "time_s": 101.0, "auth_mode": "token", "host": wire.to_json(a_host()), **fields}
    return NodeAnswer(
        node=RayNode(id="a", host="node-a", address=address),
        fields={} if problem else said,
        problem=problem,
        asked_s=100.0,
        answered_s=103.0,
    )


@pytest.mark.parametrize("time_s", [99.0, 100.0, 103.0, 104.0])
def test_a_clock_within_the_tolerance_is_fine(time_s: float) -> None:
    assert doctor.check_clock(an_answer(time_s=time_s)).status is Status.OK


@pytest.mark.parametrize(
    ("time_s", "direction"), [(80.0, "at least 20 s behind this one"), (163.0, "at least 60 s ahead of this one")]
)
def test_a_clock_that_cannot_be_right_is_named_with_its_error(time_s: float, direction: str) -> None:
    finding = doctor.check_clock(an_answer(time_s=time_s))

    assert finding.status is Status.WARN
    assert direction in finding.what
    assert "chrony" in finding.mend


def test_a_skewed_node_is_one_failure_and_says_which_versions() -> None:
    findings = doctor.check_node(an_answer(versions={**VERSIONS, "openvino": "2023.1"}, host={}), VERSIONS)

    failures = [finding for finding in findings if finding.status is Status.FAIL]
    assert [finding.check for finding in failures] == ["versions"]
    assert "openvino 2023.1 (here: 2026.4.1)" in failures[0].what


def test_a_node_that_does_not_answer_is_a_failure_with_the_reason() -> None:
    (finding,) = doctor.check_node(an_answer(problem="no answer within 60 s"), VERSIONS)

    assert (finding.check, finding.host, finding.status) == ("node", "node-a", Status.FAIL)
    assert finding.what.startswith("no answer within 60 s")


def test_what_a_host_found_comes_under_rays_name_for_it() -> None:
    said = {"check": "smt", "host": "", "status": "info", "what": "2 of 2 cores", "mend": ""}

    findings = doctor.check_node(an_answer(findings=[said]), VERSIONS)

    assert [(finding.host, finding.status) for finding in findings if finding.check == "smt"] == [
        ("node-a", Status.INFO)
    ]


@pytest.mark.parametrize(
    ("cores", "object_store_bytes", "status"),
    [
        (1, 256 * MIB - 1, Status.WARN),
        (1, 256 * MIB, Status.OK),
        (64, 4096 * MIB - 1, Status.WARN),
        (64, 4096 * MIB, Status.OK),
    ],
)
def test_the_object_store_has_to_hold_the_windows(cores: int, object_store_bytes: int, status: Status) -> None:
    host = a_host(cores=cores, object_store_bytes=object_store_bytes)

    assert doctor.check_object_store(host).status is status


def test_a_small_object_store_comes_with_the_command_that_enlarges_it() -> None:
    finding = doctor.check_object_store(a_host(cores=64, object_store_bytes=64 * MIB))

    assert "holds 64 MiB; the windows of 64 cores can fill 4,096 MiB" in finding.what
    assert f"--object-store-memory={4096 * MIB}" in finding.mend


@pytest.mark.parametrize("mode", ["disabled", "DISABLED", ""])
def test_a_cluster_without_tokens_on_a_network_is_a_warning(mode: str) -> None:
    finding = doctor.check_token_auth([an_answer(auth_mode=mode)])

    assert (finding.host, finding.status) == ("cluster", Status.WARN)
    assert "on node-a" in finding.what
    assert "ray get-auth-token --generate" in finding.mend


@pytest.mark.parametrize(
    ("mode", "address"),
    [("token", "10.0.0.1"), ("TOKEN", "10.0.0.1"), ("disabled", "127.0.0.1"), ("disabled", "::1")],
)
def test_tokens_or_a_loopback_address_are_fine(mode: str, address: str) -> None:
    assert doctor.check_token_auth([an_answer(auth_mode=mode, address=address)]).status is Status.OK
