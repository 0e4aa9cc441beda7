"""Scripts written for OpenVINO give the same output with one import changed, from the one to the other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

REPOSITORY = Path(__file__).parents[3]
MODEL = REPOSITORY / "ovray/digits/model.xml"
SCRIPTS = sorted((REPOSITORY / "examples/openvino_scripts").glob("*.py"))
OURS, ORIGINAL = "import ovray as ov\n", "import openvino as ov\n"


def output_of(source: str, folder: Path) -> str:
    script = folder / "script.py"
    script.write_text(source, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        # Cores are this test's alone, whoever else leases some on this machine.
        "OVRAY_LEASE_DIR": str(folder),
    }
    done = subprocess.run(
        [sys.executable, str(script), str(MODEL)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_five_scripts() -> None:
    assert len(SCRIPTS) == 5


@pytest.mark.ray
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_prints_the_same_with_either_import(script: Path, tmp_path: Path, local_ray: None) -> None:
    source = script.read_text(encoding="utf-8")
    assert source.count(OURS) == 1

    printed = output_of(source, tmp_path)

    assert printed == output_of(source.replace(OURS, ORIGINAL), tmp_path)
    assert len(printed.splitlines()) >= 2
