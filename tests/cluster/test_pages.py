"""Checks that what ``cluster/README.md`` and the main page say of files, commands and options is there."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from ovray.cli.main import app
from tests.cluster.files import CLUSTER, REPOSITORY

PAGE = (CLUSTER / "README.md").read_text()
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


def links(page: str) -> list[str]:
    found = re.findall(r"\]\(([^)]+)\)", page)
    return [link for link in found if not link.startswith(("http://", "https://"))]


@pytest.mark.parametrize("folder", [REPOSITORY, CLUSTER], ids=["README.md", "cluster/README.md"])
def test_links_lead_somewhere(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    for link in links(page):
        file, _, heading = link.partition("#")
        target = folder / file if file else folder / "README.md"
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}
            assert heading in slugs, link


def test_every_file_of_the_folder_is_on_the_page() -> None:
    for file in CLUSTER.rglob("*"):
        if file.is_file() and file.name != "README.md":
            assert file.name in PAGE, file


def test_paths_in_commands_are_there() -> None:
    named = {path for command in COMMANDS for path in re.findall(r"(?<![\w/])cluster/[\w./-]+", command)}

    assert len(named) > 6
    for path in named:
        assert (REPOSITORY / path).exists(), path


def test_commands_of_ovray_take_the_options_that_are_shown() -> None:
    commands = get_command(app).commands
    shown = [match for line in COMMANDS if (match := re.search(r"(?:^|-- )ovray (.+)$", line))]

    assert len(shown) >= 4
    for line in shown:
        name, *arguments = shlex.split(line[1])
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= options, line[0]
