"""Checks the manifests as the API server and the KubeRay operator would, and what they promise beyond that."""

import copy
import re
from typing import Any

import jsonschema
import pytest
from packaging.version import Version
from ray._private.label_utils import validate_node_labels

import ovray
from ovray.devices.grammar import parse
from ovray.devices.records import Hint, Host, HostTopology, OpenVINODevice
from ovray.devices.selection import DeviceClaim, select, sites_of
from tests.cluster.files import (
    REPOSITORY,
    Fields,
    containers,
    documents,
    kuberay_rules,
    kubernetes_rules,
    of_kind,
    pods,
    ray_cluster_specs,
)

DOCUMENTS = documents()
PODS = [(f"{name}{path}", pod) for name, document in DOCUMENTS for path, pod in pods(document)]
CONTAINERS = [(f"{where}/{one['name']}", one) for where, pod in PODS for one in containers(pod)]
SPECS = ray_cluster_specs()

#: Those that run Ray, and so answer to probes.
RAY_CONTAINERS = [(where, one) for where, one in CONTAINERS if one["name"] in ("ray-head", "ray-worker")]

#: Of KubeRay: token authentication, and labels of groups, came with these.
LEAST_RAY = Version("2.52.0")


def named(pairs: list[tuple[str, Any]]) -> Any:
    return pytest.mark.parametrize("fields", [one for _, one in pairs], ids=[name for name, _ in pairs])


def check(document: Fields) -> None:
    if document["apiVersion"] == "ray.io/v1":
        kuberay_rules(document["kind"]).validate(document)
        for _, pod in pods(document):
            # The CRD knows a pod's fields, and Kubernetes their rules.
            bare = {"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"], "spec": pod["spec"]}
            kubernetes_rules("pod-v1").validate(bare)
    else:
        group, _, version = document["apiVersion"].rpartition("/")
        kind = [document["kind"].lower(), *group.split(".")[:1], version]
        kubernetes_rules("-".join(word for word in kind if word)).validate(document)


@named(DOCUMENTS)
def test_a_manifest_is_what_its_kind_may_be(fields: Fields) -> None:
    check(fields)


def test_all_kinds_are_there() -> None:
    kinds = sorted(document["kind"] for _, document in DOCUMENTS)

    assert kinds == ["Namespace", "NetworkPolicy", "PersistentVolumeClaim", "RayCluster", "RayJob"]


def head_container(fields: Fields) -> Fields:
    (ray,) = fields["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    found: Fields = ray
    return found


@pytest.mark.parametrize(
    ("kind", "slip"),
    [
        ("RayCluster", lambda fields: fields["spec"].update(authOption={"mode": "token"})),
        ("RayCluster", lambda fields: fields["spec"]["authOptions"].update(mode="tokens")),
        ("RayCluster", lambda fields: fields["spec"]["workerGroupSpecs"][0].update(replicas="two")),
        (
            "RayCluster",
            lambda fields: fields["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0].update(
                readyProbe={}
            ),
        ),
        ("RayJob", lambda fields: fields["spec"].update(backofLimit=3)),
        ("RayJob", lambda fields: fields["spec"]["submitterPodTemplate"]["spec"].update(restartPolicy=3)),
        ("NetworkPolicy", lambda fields: fields["spec"].update(podSelectors={})),
        ("PersistentVolumeClaim", lambda fields: fields["spec"].update(accessModes="ReadWriteMany")),
    ],
)
def test_a_slip_of_the_pen_would_be_noticed(kind: str, slip: Any) -> None:
    fields = copy.deepcopy(of_kind(kind))
    slip(fields)

    with pytest.raises(jsonschema.ValidationError):
        check(fields)


@named(SPECS)
def test_a_cluster_asks_for_a_token(fields: Fields) -> None:
    assert fields["authOptions"]["mode"] == "token"
    assert Version(fields["rayVersion"]) >= LEAST_RAY


@named(SPECS)
def test_there_is_a_group_for_each_kind_of_device(fields: Fields) -> None:
    groups = {group["groupName"]: group for group in fields["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "intel-gpu", "intel-npu"}
    assert asked_for(groups["cpu"]) == set()
    assert asked_for(groups["intel-gpu"]) == {"gpu.intel.com/i915"}
    assert asked_for(groups["intel-npu"]) == {"npu.intel.com/accel"}
    for group in groups.values():
        # Without the autoscaler KubeRay wants both.
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        # It refuses labels that are given to `ray start` in its place.
        assert "labels" not in group["rayStartParams"]
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", group["groupName"])


def asked_for(group: Fields) -> set[str]:
    (worker,) = group["template"]["spec"]["containers"]
    return set(worker["resources"]["limits"]) - {"cpu", "memory"}


@named(SPECS)
def test_device_strings_find_the_groups_by_their_labels(fields: Fields) -> None:
    device_of = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
    hosts = []
    for group in fields["workerGroupSpecs"]:
        validate_node_labels(group["labels"])
        devices = tuple(OpenVINODevice(name=device) for device in ("GPU", "NPU"))
        hosts.append(
            Host(
                name=group["groupName"],
                topology=HostTopology(nodes=(), online_cpus=()),
                devices=devices,
                labels=group["labels"],
                machine_id=group["groupName"],
            )
        )
    assert {host.labels["ovray-kind"] for host in hosts} == set(device_of)

    for kind in ("gpu", "npu"):
        claims = select(parse(f"{{ovray-kind={kind}}}/{device_of[kind]}"), sites_of(hosts), Hint.THROUGHPUT)

        assert all(isinstance(claim, DeviceClaim) for claim in claims)
        assert [claim.site.name for claim in claims] == [f"intel-{kind}"]


@named(CONTAINERS)
def test_a_container_says_what_it_needs_and_may_take(fields: Fields) -> None:
    for share in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(fields["resources"][share])


@named(CONTAINERS)
def test_an_image_is_pinned_to_the_version_of_this_checkout(fields: Fields) -> None:
    assert re.fullmatch(rf"registry\.example\.com/ovray:{re.escape(own_version())}(-gpu|-npu)?", fields["image"])


def test_the_images_are_those_that_the_dockerfile_says_how_to_build() -> None:
    text = (REPOSITORY / "cluster" / "Dockerfile").read_text() + (REPOSITORY / "cluster" / "README.md").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE))
    for image in {one["image"] for _, one in CONTAINERS}:
        assert f"-t {image} ." in text
        _, _, target = image.rpartition(":")[2].partition("-")
        assert (target or "cpu") in targets


@named(CONTAINERS)
def test_a_container_is_not_privileged(fields: Fields) -> None:
    security = fields["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    if security.get("runAsUser") == 0:
        # Makes a folder writable and ends.
        assert fields["command"] == ["chmod", "1777", "/var/lib/ovray-leases"]


@named(PODS)
def test_a_pod_does_not_run_as_root_and_has_no_key_to_kubernetes(fields: Fields) -> None:
    spec = fields["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False


@named(RAY_CONTAINERS)
def test_a_ray_container_has_probes_of_its_own(fields: Fields) -> None:
    for probe in ("livenessProbe", "readinessProbe"):
        # Asked without a token: see test_what_probes_ask_needs_no_token of the tests over several hosts.
        assert fields[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}


@named(SPECS)
def test_results_and_leases_outlive_the_pods(fields: Fields) -> None:
    for group in (fields["headGroupSpec"], *fields["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (ray,) = pod["containers"]
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in ray["volumeMounts"]}
        environment = {variable["name"]: variable["value"] for variable in ray["env"]}
        claim = mounts["/data"]["persistentVolumeClaim"]["claimName"]
        assert claim == of_kind("PersistentVolumeClaim")["metadata"]["name"]
        if group is not fields["headGroupSpec"]:
            assert "hostPath" in mounts[environment["OVRAY_LEASE_DIR"]]


@named(SPECS)
def test_the_object_store_fits_into_shared_memory_and_that_into_memory(fields: Fields) -> None:
    for group in (fields["headGroupSpec"], *fields["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (shared,) = [volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume]
        (ray,) = pod["containers"]
        assert shared["medium"] == "Memory"
        store = int(group["rayStartParams"]["object-store-memory"])
        assert store < gibibytes(shared["sizeLimit"]) < gibibytes(ray["resources"]["limits"]["memory"])


def gibibytes(text: str) -> int:
    number = re.fullmatch(r"(\d+)Gi", text)
    assert number is not None
    return int(number[1]) * 2**30


def test_a_job_keeps_its_results_on_the_shared_volume_and_is_tried_again() -> None:
    job = of_kind("RayJob")["spec"]

    words = job["entrypoint"].split()
    assert words[:2] == ["ovray", "score"]
    assert words[words.index("--output") + 1].startswith("/data/")
    assert job["backoffLimit"] > 0
    assert job["shutdownAfterJobFinishes"] is True


def test_the_network_policy_covers_every_pod_and_leaves_out_no_namespace() -> None:
    policy = of_kind("NetworkPolicy")
    mine = policy["spec"]["podSelector"]["matchLabels"].items()
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    for _, pod in PODS:
        assert mine <= pod["metadata"]["labels"].items()
    namespaced = [document["metadata"] for _, document in DOCUMENTS if document["kind"] != "Namespace"]
    assert {metadata["namespace"] for metadata in namespaced} == {of_kind("Namespace")["metadata"]["name"]}
    # Nobody is let in without saying on which port, but the pods themselves.
    for rule in policy["spec"]["ingress"]:
        peers = rule["from"]
        assert "ports" in rule or peers == [{"podSelector": policy["spec"]["podSelector"]}]


def own_version() -> str:
    match = re.search(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert match is not None, ovray.__file__
    return match[1]
