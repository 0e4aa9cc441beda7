"""Reads what a page shows of a terminal, and holds it against what the same commands print for real.

A session is a run of lines, each a command behind ``$``, or what it prints; ``...`` stands for anything. It is
read from a page's ``console`` blocks, or from the indented lines in the docstring or the first comment of a
script.
"""

import ast
import doctest
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Of one page; each is to take some seconds, on a machine that does nothing else.
TIMEOUT_S = 280.0

#: What a reader does once, before the first example.
_PREPARATION = ". .venv/bin/activate"

_MARKER = "--- shown session:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Is one command, and what the page says that it prints."""

    command: str
    printed: str


def session_of(page: Path) -> list[Step]:
    """Returns the commands that a page shows, in turn."""
    steps: list[Step] = []
    for line in _shown_lines(page):
        if line.startswith("$ "):
            steps.append(Step(command=line[2:], printed=""))
        else:
            steps[-1] = Step(command=steps[-1].command, printed=f"{steps[-1].printed}{line}\n")
    return [step for step in steps if step.command != _PREPARATION]


def check_session(page: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Runs what a page shows in one shell in a folder, and fails where something else comes out."""
    steps = session_of(page)
    assert steps, f"{page} shows no command"
    printed, told = _run([step.command for step in steps], folder, environment)
    assert len(printed) == len(steps), f"{page} stopped behind {printed}\n{told}"
    checker = doctest.OutputChecker()
    for step, (code, text) in zip(steps, printed, strict=True):
        assert code == 0, f"$ {step.command}\n{text}\n{told}"
        is_right = checker.check_output(step.printed, text, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        assert is_right, f"$ {step.command}\nshown:\n{step.printed}\nprinted:\n{text}\n{told}"


def _run(commands: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[list[tuple[int, str]], str]:
    """Returns each command's exit code and output, and all that went to standard error."""
    # Job control, so that what runs behind `&` can be interrupted as in a terminal.
    lines = ["set -m"]
    for command in commands:
        lines += [command, f'printf "\\n%s %s\\n" "{_MARKER}" $?']
    lines += ["wait"]
    # A file, because what runs in the background may hold a pipe open.
    with (folder / "stdout").open("w+") as out, (folder / "stderr").open("w+") as told:
        shell = subprocess.Popen(
            ["bash", "-c", "\n".join(lines)],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=told,
            start_new_session=True,
        )
        try:
            shell.wait(TIMEOUT_S)
        finally:
            shell.kill()
        out.seek(0)
        told.seek(0)
        *parts, _ = re.split(rf"^{_MARKER} (\d+)\n", out.read(), flags=re.MULTILINE)
        texts, codes = parts[::2], parts[1::2]
        return [(int(code), text) for code, text in zip(codes, texts, strict=True)], told.read()


def _shown_lines(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
        return [line for block in blocks for line in block.splitlines()]
    if page.suffix == ".py":
        text = ast.get_docstring(ast.parse(text), clean=False) or ""
    else:
        comment = re.match(r"(#.*\n)+", text)
        text = re.sub(r"^# ?", "", comment[0] if comment else "", flags=re.MULTILINE)
    return [line[4:] for line in text.splitlines() if line.startswith("    ")]
