"""Prints the tables of runs that wrote what they measured: ``python -m tests.benchmarks.tables FILE.json...``."""

import argparse
import json
from pathlib import Path

from tests.benchmarks.comparison import Outcome, Ratio, print_table


def read_outcomes(path: Path) -> list[Outcome]:
    """Reads what ``comparison.write_json`` wrote."""
    races = json.loads(path.read_text())["races"]
    return [Outcome(**{**race, "ratios": tuple(Ratio(**ratio) for ratio in race["ratios"])}) for race in races]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    for path in parser.parse_args().files:
        print(f"\n{path}")
        print_table(read_outcomes(path))


if __name__ == "__main__":
    main()
