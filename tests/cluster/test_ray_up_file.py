"""Reads the file for ``ray up`` with Ray's own code, up to where it would open a connection."""

import re
import shlex
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import CLUSTER, REPOSITORY

FILE = CLUSTER / "ray-up.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    fields: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return fields


def test_ray_takes_the_file(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)

    # Ray's way to say: all machines of the list, always.
    (node_type,) = prepared["available_node_types"].values()
    workers = len(config["provider"]["worker_ips"])
    assert (node_type["min_workers"], node_type["max_workers"]) == (workers, workers)


def test_ray_would_refuse_a_slip_of_the_pen(config: dict[str, Any]) -> None:
    config["worker_start_commands"] = config.pop("worker_start_ray_commands")

    with pytest.raises(jsonschema.ValidationError, match="worker_start_commands"):
        validate_config(prepare_config(config))


def test_the_token_goes_to_every_machine_and_nobody_else_there_can_read_it(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in command for command in config["setup_commands"])


def test_each_file_that_commands_name_is_in_the_checkout(config: dict[str, Any]) -> None:
    commands = [line for key, value in config.items() if key.endswith("commands") for line in value]
    named = {name for command in commands for name in re.findall(r"~/ovray/(\S+)", command)}

    assert named == {"cluster/requirements.txt", "cluster/start_node.sh"}
    for name in named:
        assert (REPOSITORY / name).is_file()


def test_what_is_installed_there_is_what_is_copied(config: dict[str, Any]) -> None:
    copied = {there: here for there, here in config["file_mounts"].items() if there.startswith("~/ovray/")}
    for there, here in copied.items():
        assert there == f"~/ovray/{here}"
        assert (REPOSITORY / here).exists()
    # What a build reads: the package, and the files that pyproject.toml names.
    project = (REPOSITORY / "pyproject.toml").read_text()
    (licences,) = re.findall(r"^license-files = \[(.*)\]$", project, re.MULTILINE)
    readme = re.findall(r'^readme = "(.+)"$', project, re.MULTILINE)
    for needed in ("pyproject.toml", *readme, *re.findall(r'"(.+?)"', licences)):
        assert any(needed == here or needed.startswith(f"{here}/") for here in copied.values()), needed


def test_each_machine_starts_ray_by_the_script_and_the_head_says_how_to_scale(config: dict[str, Any]) -> None:
    (_, head), (_, worker) = config["head_start_ray_commands"], config["worker_start_ray_commands"]

    assert "start_node.sh --head" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in shlex.split(head)
    assert shlex.split(worker)[-2:] == ["--address", "$RAY_HEAD_IP:6379"]
