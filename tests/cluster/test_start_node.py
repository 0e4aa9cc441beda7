"""Runs ``start_node.sh`` up to where it would start Ray; that it does is shown by the tests over several hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private.label_utils import parse_node_labels_string, validate_node_labels

from ovray.devices.grammar import parse
from ovray.devices.probe import probe_local_host
from tests.cluster.files import CLUSTER

SCRIPT = CLUSTER / "start_node.sh"


def run(home: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [SCRIPT, *options],
        env={**bare, "HOME": str(home), "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Is that of a user who has the token."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef")
    return tmp_path


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")

    done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (0, "")


def test_it_can_be_run_as_it_is_checked_out() -> None:
    assert os.access(SCRIPT, os.X_OK)


def test_it_starts_ray_with_what_the_probe_finds(home: Path) -> None:
    host = probe_local_host()

    done = run(
        home, "--address", "10.0.0.5:6379", "--dry-run", "--label", "rack=1", "--", "--node-ip-address=10.0.0.6"
    )

    assert done.returncode == 0, done.stderr
    command = done.stderr.replace("\\", "")
    cpus = sum(len(core.cpus) for core in host.topology.cores)
    quota = host.topology.quota_cpus
    assert f" --num-cpus={cpus if quota is None else max(1, min(cpus, int(quota)))} " in command
    assert " --address=10.0.0.5:6379 --node-ip-address=10.0.0.6" in command
    (text,) = re.findall(r" --labels=(\S+) ", command)
    labels = parse_node_labels_string(text)
    validate_node_labels(labels)
    assert labels["rack"] == "1"
    assert labels["ovray-numa-nodes"] == str(len([node for node in host.topology.nodes if node.cores]))
    gpus = sum(device.name.split(".")[0] == "GPU" for device in host.devices)
    assert labels["ovray-gpus"] == str(gpus)
    for key, value in labels.items():
        (entry,) = parse(f"{{{key}={value}}}/CPU").entries
        assert all(term.matches(labels) for term in entry.host.terms)


def test_the_dashboard_of_a_head_stays_on_loopback(home: Path) -> None:
    done = run(home, "--head", "--dry-run")

    assert done.returncode == 0, done.stderr
    assert " --head --port=6379 --dashboard-host=127.0.0.1" in done.stderr


def test_a_head_without_a_token_would_get_one_and_a_node_is_told_where_it_is(tmp_path: Path) -> None:
    assert run(tmp_path, "--head", "--dry-run").returncode == 0

    done = run(tmp_path, "--address", "10.0.0.5:6379", "--dry-run")

    assert done.returncode == 2
    assert done.stderr == (
        f"start_node.sh: there is no token in {tmp_path}/.ray/auth_token; copy that of the head here: "
        f"scp HEAD:.ray/auth_token {tmp_path}/.ray/auth_token\n"
    )


def test_nobody_else_on_the_machine_may_read_the_token(home: Path) -> None:
    file = home / ".ray" / "auth_token"
    file.chmod(0o644)

    assert run(home, "--head", "--dry-run").returncode == 0

    assert file.stat().st_mode & 0o777 == 0o600


def test_who_switches_the_token_off_is_told_what_that_means(home: Path) -> None:
    done = run(home, "--head", "--dry-run", RAY_AUTH_MODE="disabled")

    assert "whoever reaches this machine can run code on it" in done.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "give --head on one machine, and --address HEAD:PORT on the others"),
        (("--head", "--address", "10.0.0.5:6379"), "either --head or joins one with --address, not both"),
        (("--address", "10.0.0.5"), "--address '10.0.0.5': give HEAD:PORT, such as 10.0.0.5:6379"),
        (("--address", "http://10.0.0.5:8265"), "give HEAD:PORT"),
        (("--address",), "--address needs a value"),
        (("--head", "--label", "rack 1"), "--label 'rack 1': give KEY=VALUE"),
        (("--head", "--block"), "'--block' is no option of this script; options of `ray start` go behind --"),
    ],
)
def test_what_is_wrong_ends_it_with_one_line(home: Path, options: tuple[str, ...], complaint: str) -> None:
    done = run(home, *options)

    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_interpreter_without_ovray_is_named(home: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E -I "$@"\n')
    bare.chmod(0o755)

    done = run(home, "--head", "--dry-run", PYTHON=str(bare))
    nowhere = run(home, "--head", "--dry-run", PYTHON="/nowhere/python")

    assert (done.returncode, nowhere.returncode) == (2, 2)
    assert f"{bare} has no ovray, ray, openvino; install them there" in done.stderr
    assert "there is no '/nowhere/python'" in nowhere.stderr


def test_help_says_what_there_is(home: Path) -> None:
    done = run(home, "--help")

    assert done.returncode == 0
    options = set(re.findall(r"^ +(--[a-z-]+)", SCRIPT.read_text(), re.MULTILINE))
    assert {"--head", "--address", "--label", "--dry-run", "--help"} <= options
    assert all(option in done.stdout for option in options)
