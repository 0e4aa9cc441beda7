"""Collects what each fault cost, and closes a test run with a table of it: a plugin of pytest's.

May not enter: judging; the tests assert, and then put down here what they saw.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

#: Also written here, below the root of the repository.
FILE = Path("build", "faults.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Is what one fault did to one load."""

    fault: str
    load: str
    lost: int
    twice: int
    #: What was measured, and what was asked, in words.
    goes_on: str
    asked: str


rows: list[Row] = []


def as_markdown(rows: Iterable[Row]) -> list[str]:
    """Return the lines of the table."""
    head = ("fault", "during", "lost", "twice", "goes on", "asked")
    body = [(row.fault, row.load, str(row.lost), str(row.twice), row.goes_on, row.asked) for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *body)]
    return [lines[0], "|" + " --- |" * len(head), *lines[1:]]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the rows of a worker, one of several that share the tests, to where they are summed up."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["rows"] = [asdict(row) for row in rows]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    rows.extend(Row(**row) for row in getattr(node, "workeroutput", {}).get("rows", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not rows:
        return
    lines = as_markdown(rows)
    terminalreporter.section("what faults cost")
    for line in lines:
        terminalreporter.write_line(line)
    file = config.rootpath / FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
