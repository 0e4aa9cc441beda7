"""Collects what each fault cost, for the table that closes the test run.

May not enter: judging; the tests assert, and then put down here what they saw.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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
