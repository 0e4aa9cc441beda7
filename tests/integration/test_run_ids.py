"""One id for a run: in the lines of driver and replicas, the output's record, and ``--json``."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from ovray import digits
from tests.integration.commands import ran

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_every_run_on_a_folder_is_named_and_its_lines_carry_its_id(tmp_path: Path) -> None:
    command = ["score", digits.model_file(), digits.held_out_file(), "--output", "scores", "--json"]
    command += ["--devices", "SIM?ms=0.2", "--share-cores"]  # of two, the second may start when all is done
    logs = {"OVRAY_LOG": "info,json"}
    run = f"first-{uuid.uuid4().hex}"

    first = ran(tmp_path, *command, OVRAY_RUN_ID=run, **logs)
    lost = sorted(Path(tmp_path, "scores").glob("part-*"))[0]
    lost.unlink()
    second = ran(tmp_path, *command, OVRAY_RUN_ID="second", **logs)
    third = ran(tmp_path, *command, OVRAY_RUN_ID="third")

    record = json.loads(Path(tmp_path, "scores", "_ovray.json").read_text())
    assert [run["run"] for run in record["runs"]] == [run, "second"]
    assert [command.json()["run"] for command in (first, second, third)] == [run, "second", "third"]
    lines = [json.loads(line) for line in first.stderr.splitlines()]
    assert {line["run"] for line in lines} == {run}
    ready = [line for line in lines if line["message"] == "replica is ready"]
    assert len({line["replica"] for line in ready}) == 1
    assert third.stderr == ""
    assert {line["process"] for line in lines_of_replicas(run)} == {line["replica"] for line in ready}


def lines_of_replicas(run: str) -> list[dict[str, Any]]:
    """Return what replicas of a run logged; Ray keeps that in files."""
    logs = Path("/tmp/ray").glob("session_*/logs/worker-*.err")
    lines = [line for log in logs for line in log.read_text(errors="replace").splitlines() if run in line]
    return [json.loads(line) for line in lines]
