import json
from typing import Any

import pytest

from ovray.devices import wire
from ovray.devices.probe import NodeAnswer, RayNode, host_of, problem_of
from ovray.devices.records import Core, CoreKind, Host, HostTopology, NumaNode, OpenVINODevice

VERSIONS = {"python": "3.11", "openvino": "2026.4.1", "ray": "2.60.0", "ovray": "0.1.0"}
NODE = RayNode(id="abc", host="node-a", address="10.0.0.1", labels={"rack": "r1"}, resources={"CPU": 4.0})


def a_host() -> Host:
    cores = (
        Core(id=0, cpus=(0, 4), numa_node=0, package=0, cache=0),
        Core(id=1, cpus=(1,), numa_node=0, package=0, cache=0, kind=CoreKind.EFFICIENT),
    )
    return Host(
        name="as-it-calls-itself",
        topology=HostTopology(
            nodes=(NumaNode(id=0, cores=cores, memory_bytes=2**30), NumaNode(id=1, cores=())),
            online_cpus=(0, 1, 4),
            quota_cpus=2.5,
        ),
        devices=(OpenVINODevice(name="GPU.0", full_name="Arc", capabilities=("FP16",), tiles=("GPU.0.0",)),),
        leased_cpus=frozenset({1}),
        versions=VERSIONS,
    )


def an_answer(**fields: Any) -> NodeAnswer:
    return NodeAnswer(node=NODE, fields={"versions": VERSIONS, **fields}, asked_s=1.0, answered_s=2.0)


def test_a_host_comes_back_from_json_as_it_was() -> None:
    text = json.dumps(wire.to_json(a_host()))

    assert wire.host_from_json(json.loads(text)) == a_host()


def test_an_answer_is_joined_with_what_ray_knows() -> None:
    host = host_of(an_answer(host=wire.to_json(a_host())))

    assert (host.name, host.node_id, host.address) == ("node-a", "abc", "10.0.0.1")
    assert (host.labels, host.resources) == ({"rack": "r1"}, {"CPU": 4.0})
    assert host.topology == a_host().topology


def test_a_node_with_equal_versions_can_take_part() -> None:
    assert problem_of(an_answer(host=wire.to_json(a_host())), VERSIONS) == ""


@pytest.mark.parametrize("name", ["python", "openvino", "ray", "ovray"])
def test_each_version_has_to_be_equal(name: str) -> None:
    answer = an_answer(host=wire.to_json(a_host()))

    problem = problem_of(answer, {**VERSIONS, name: "9.9"})

    assert problem == f"its versions differ: {name} {VERSIONS[name]} (here: 9.9)"


@pytest.mark.parametrize("own", [VERSIONS, {**VERSIONS, "ovray": "none"}])
def test_an_ovray_that_came_with_the_job_has_no_version_to_differ(own: dict[str, str]) -> None:
    answer = an_answer(versions={**VERSIONS, "ovray": "none"}, host=wire.to_json(a_host()))

    assert problem_of(answer, own) == ""


def test_versions_are_named_before_what_they_broke() -> None:
    answer = an_answer(error="OpenVINO cannot be loaded there", versions={**VERSIONS, "openvino": "2023.1"})

    assert problem_of(answer, VERSIONS).startswith("its versions differ: openvino 2023.1")


@pytest.mark.parametrize("fields", [{}, {"host": {}}, {"host": {**wire.to_json(a_host()), "new_in_2030": 1}}])
def test_an_answer_in_another_form_is_a_reason_to_leave_a_node_out(fields: dict[str, Any]) -> None:
    assert "another version of ovray" in problem_of(an_answer(**fields), VERSIONS)
