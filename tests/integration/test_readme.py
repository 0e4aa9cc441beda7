"""Runs what the README shows, as it is written there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

#: What a reader types before ovray is installed, or what CI runs by itself.
_NOT_HERE = ("git clone", "make ", ". .venv/bin/activate")


def shown_commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [line for line in lines if not line.startswith(_NOT_HERE)]


def shown_scripts() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for the reader's clone: the package is there, results go beside it."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "ovray").symlink_to(ROOT / "ovray")
    return folder


def run(command: list[str], folder: Path) -> str:
    # Not the Ray of somebody else who tests on this machine.
    environment = {
        **os.environ,
        "RAY_ADDRESS": "local",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_commands_of_the_readme_run(reader_folder: Path) -> None:
    commands = shown_commands()
    assert any(command.startswith("ovray score") for command in commands)

    printed = [run(["bash", "-c", command], reader_folder) for command in commands]

    assert "540 rows" in printed[0]
    assert any("probabilities" in text for text in printed)


@pytest.mark.parametrize("script", shown_scripts())
def test_the_scripts_of_the_readme_run(script: str, reader_folder: Path) -> None:
    printed = run([sys.executable, "-c", script], reader_folder)

    assert printed.startswith("540 ")
    assert "CPU.0" in printed


def test_every_option_of_score_is_in_the_readme() -> None:
    helped = run([sys.executable, "-m", "ovray.cli.main", "score", "--help"], ROOT)
    options = set(re.findall(r"--[a-z][a-z-]+", helped)) - {"--help"}

    assert options
    assert sorted(option for option in options if option not in README) == []
