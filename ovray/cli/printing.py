"""Where commands print: rich on a terminal, plain and unwrapped text where the output is piped."""

import json
from typing import Any

from rich.console import Console

#: Of lines that no terminal shows: wide enough that nothing is folded.
PIPED_COLUMNS = 240


def standard_output() -> Console:
    """Return a console on standard output as it is now."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_COLUMNS)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(document))
