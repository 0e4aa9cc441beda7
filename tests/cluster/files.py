"""Reads the files of ``cluster/`` for the tests here; may not enter: what they should say."""

import gzip
import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = REPOSITORY / "cluster"
KUBERNETES = CLUSTER / "kubernetes"

Fields = dict[str, Any]


def documents(*folders: Path) -> list[tuple[str, Fields]]:
    """Return each document of each YAML file, with a name that tells where it is."""
    found = []
    for file in sorted(file for folder in folders or (KUBERNETES,) for file in folder.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            found.append((f"{file.name}:{document['kind']}", document))
    return found


def of_kind(kind: str) -> Fields:
    (found,) = [document for _, document in documents() if document["kind"] == kind]
    return found


def ray_cluster_specs() -> list[tuple[str, Fields]]:
    """Return what the operator makes clusters of: that of RayCluster, and that within RayJob."""
    return [("RayCluster", of_kind("RayCluster")["spec"]), ("RayJob", of_kind("RayJob")["spec"]["rayClusterSpec"])]


def pods(document: Fields) -> Iterator[tuple[str, Fields]]:
    """Go over the pod templates in a document, each with the path to it."""

    def walk(fields: Any, path: str) -> Iterator[tuple[str, Fields]]:
        if isinstance(fields, dict):
            for key, value in fields.items():
                if key in ("template", "submitterPodTemplate") and "spec" in value:
                    yield f"{path}.{key}", value
                else:
                    yield from walk(value, f"{path}.{key}")
        elif isinstance(fields, list):
            for number, value in enumerate(fields):
                yield from walk(value, f"{path}[{number}]")

    return walk(document, document["kind"])


def containers(pod: Fields) -> list[Fields]:
    """Return all containers of a pod, those that run before the others too."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


@cache
def kuberay_rules(kind: str) -> Draft202012Validator:
    """Return what checks a kind by KubeRay's own schema; fields that it does not know are errors.

    A Kubernetes API server drops such fields, or refuses them where kubectl asks it to.
    """
    packed = Path(__file__).with_name("schemas") / "kuberay-v1.json.gz"
    return Draft202012Validator(_closed(json.loads(gzip.decompress(packed.read_bytes()))[kind]))


@cache
def kubernetes_rules(kind: str) -> Draft202012Validator:
    """Return what checks a kind of Kubernetes itself, named as in ``pod-v1``; unknown fields are errors.

    The package's own ``validate`` reads two megabytes of definitions at each call.
    """
    schemas = resources.files("kubernetes_validate") / "kubernetes-json-schema"
    folder = schemas / f"v{kubernetes_validate.latest_version()}-local-strict"
    schema, definitions = (
        Resource.from_contents(json.loads((folder / name).read_text()))
        for name in (f"{kind}.json", "_definitions.json")
    )
    return Draft202012Validator(
        schema.contents, registry=Registry().with_resources([("", schema), ("_definitions.json", definitions)])
    )


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
