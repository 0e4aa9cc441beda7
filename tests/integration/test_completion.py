"""Has a real bash complete command lines of ``ovray``, set up as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import DEADLINE_S

BIN = Path(sys.executable).parent

#: What bash does when somebody presses Tab behind ``$1``: the last word is completed.
_PRESS_TAB = """
source "$HOME/.bashrc"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
$(complete -p ovray | sed 's/.*-F \\([^ ]*\\).*/\\1/') ovray
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where ``ovray --install-completion bash`` was typed once."""
    folder = tmp_path_factory.mktemp("home")
    done = typed(folder, "ovray --install-completion bash")
    assert "completion installed" in done
    return folder


def run(home: Path, command: list[str]) -> str:
    environment = {**os.environ, "HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def typed(home: Path, line: str) -> str:
    """Run a line in a bash that stays, because the command looks for the shell that it was started from."""
    return run(home, ["bash", "-c", f"{line}; exit $?"])


def completed(home: Path, *words: str) -> list[str]:
    return run(home, ["bash", "-c", _PRESS_TAB, "bash", *words]).split()


def test_a_command_is_completed(home: Path) -> None:
    assert completed(home, "ovray", "sc") == ["score"]


def test_an_option_is_completed(home: Path) -> None:
    assert completed(home, "ovray", "score", "model.xml", "data", "--max-e") == ["--max-errors"]


def test_a_file_is_left_to_bash(home: Path) -> None:
    assert completed(home, "ovray", "score", "model.x") == []
    assert "-o default" in run(home, ["bash", "-c", 'source "$HOME/.bashrc"; complete -p ovray'])


def test_the_script_for_bash_is_shown(home: Path) -> None:
    assert "complete -o default" in typed(home, "ovray --show-completion bash")
