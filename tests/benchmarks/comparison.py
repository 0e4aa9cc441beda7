"""Compares ways of doing the same work: all sides in one run, in turn, medians, ratios with their spread.

A machine is never the same for an hour: sides are measured one after the other, round by round, and a ratio is the
median of the rounds' ratios.  May not enter: what is measured.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich.table import Table

from ovray.cli.printing import standard_output

T = TypeVar("T")

ROUNDS = 5

#: A side that takes longer is ended, and counts as not measured: some hang.
TIMEOUT_S = 900.0

#: What a process may take to end after its answer.
END_TIMEOUT_S = 10.0

_VERSIONS_OF = ("ovray", "openvino", "ray", "pyarrow", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Says which ratios will do."""

    at_least: float | None = None
    at_most: float | None = None

    def holds(self, ratio: float) -> bool:
        """Whether a ratio will do."""
        is_enough = self.at_least is None or ratio >= self.at_least
        return is_enough and (self.at_most is None or ratio <= self.at_most)

    def __str__(self) -> str:
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


class By(Enum):
    """Says how two sides are compared; what is said of ratios in here goes for differences, too."""

    RATIO = "ratio"
    DIFFERENCE = "difference"  # ours less theirs

    def __call__(self, ours: float, theirs: float) -> float:
        return ours / theirs if self is By.RATIO else ours - theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Asks for the ratio of one side to the best of some others.

    The best has the highest median where the ratio is to be at least something, else the lowest.
    """

    name: str
    ours: str
    others: tuple[str, ...]
    wanted: Wanted
    by: By = By.RATIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Is some work, and the sides that do it; each side gives one number a round."""

    name: str
    #: Of the numbers, such as ``rows/s``.
    unit: str
    sides: Mapping[str, Callable[[], float]]
    verdicts: tuple[Verdict, ...]
    #: Fewer than are asked for, where a round takes very long.
    most_rounds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Is one of several numbers that are measured of some work."""

    name: str
    unit: str
    verdicts: tuple[Verdict, ...]


#: What one process measured: numbers by the name of the figure and of the side.
Measured = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Is some work, and the processes that do it: each starts once a round and measures several figures."""

    name: str
    processes: Mapping[str, Callable[[], Measured]]
    figures: tuple[Figure, ...]
    #: Fewer than are asked for, where a round takes very long.
    most_rounds: int | None = None


class InOneProcess:
    """Measures all rounds of a contest at the first, and then gives one after the other.

    For sides that would differ more by the processes that they are in than by what is asked.
    """

    def __init__(self, measure: Callable[[int], Sequence[Measured]], rounds: int) -> None:
        """Stores; ``measure`` is told how many rounds there are to be."""
        self._measure = measure
        self._rounds = rounds
        self._found: Iterator[Measured] | None = None

    def __call__(self) -> Measured:
        if self._found is None:
            self._found = iter(())
            self._found = iter(self._measure(self._rounds))
        for measured in self._found:
            return measured
        raise SideError("there are no more rounds of it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Says what came out for one verdict; of a side that was never measured, nothing did."""

    name: str
    unit: str
    ours: float
    #: The best of the others, and its median.
    against: str
    theirs: float
    ratio: float
    lowest: float
    highest: float
    wanted: str
    is_reached: bool
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Holds what was measured in one race; ``None`` where a side did not end, or failed."""

    race: str
    unit: str
    rounds: Mapping[str, Sequence[float | None]]
    ratios: tuple[Ratio, ...]


class SideError(Exception):
    """Says that a side could not be measured, and why."""


def run(race: Race, rounds: int, say: Callable[[str], None] = print) -> Outcome:
    """Measures every side in turn, round by round."""
    measured: dict[str, list[float | None]] = {name: [] for name in race.sides}
    for number in range(min(rounds, race.most_rounds or rounds)):
        for name, measure in race.sides.items():
            try:
                value = measure()
            except SideError as error:
                measured[name].append(None)
                say(f"{race.name}, round {number + 1}: {name}: {error}")
            else:
                measured[name].append(value)
                say(f"{race.name}, round {number + 1}: {name}: {value:,.4g} {race.unit}")
    ratios = (_judge(verdict, race.unit, measured) for verdict in race.verdicts)
    return Outcome(
        race=race.name,
        unit=race.unit,
        rounds=measured,
        ratios=tuple(ratio for ratio in ratios if ratio is not None),
    )


def run_contest(contest: Contest, rounds: int, say: Callable[[str], None] = print) -> list[Outcome]:
    """Has every process measure in turn, round by round; gives an outcome for each figure."""
    rounds = min(rounds, contest.most_rounds or rounds)
    found: list[dict[tuple[str, str], float]] = []
    for number in range(rounds):
        found.append({})
        for name, measure in contest.processes.items():
            try:
                found[-1].update(measure())
            except SideError as error:
                say(f"{contest.name}, round {number + 1}: {name}: {error}")
        for (figure, side), value in found[-1].items():
            say(f"{contest.name}, round {number + 1}: {figure}: {side}: {value:,.4g}")
    return [_outcome(contest.name, figure, found) for figure in contest.figures]


def _outcome(race: str, figure: Figure, found: Sequence[Measured]) -> Outcome:
    judged = [name for verdict in figure.verdicts for name in (verdict.ours, *verdict.others)]
    others = [side for one in found for name, side in one if name == figure.name]
    measured = {
        side: [one.get((figure.name, side)) for one in found] for side in dict.fromkeys([*judged, *others])
    }
    ratios = (_judge(verdict, figure.unit, measured) for verdict in figure.verdicts)
    return Outcome(
        race=f"{race}, {figure.name}",
        unit=figure.unit,
        rounds=measured,
        ratios=tuple(ratio for ratio in ratios if ratio is not None),
    )


def _judge(verdict: Verdict, unit: str, measured: Mapping[str, Sequence[float | None]]) -> Ratio | None:
    medians = {
        name: statistics.median(found)
        for name in (verdict.ours, *verdict.others)
        if (found := [value for value in measured.get(name, ()) if value is not None])
    }
    others = {name: medians[name] for name in verdict.others if name in medians}
    if verdict.ours not in medians or not others:
        return None
    best = max if verdict.wanted.at_least is not None else min
    against = best(others, key=lambda name: others[name])
    pairs = zip(measured[verdict.ours], measured[against], strict=True)
    ratios = [verdict.by(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    if not ratios:
        return None
    ratio = statistics.median(ratios)
    return Ratio(
        name=verdict.name,
        unit=unit,
        ours=medians[verdict.ours],
        against=against,
        theirs=others[against],
        ratio=ratio,
        lowest=min(ratios),
        highest=max(ratios),
        wanted=str(verdict.wanted),
        is_reached=verdict.wanted.holds(ratio),
        by=verdict.by.value,
    )


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Prints one line for each ratio."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("case", "ours", "theirs", "unit", "by", "ratio", "lowest", "highest", "wanted", "", "against"):
        is_number = heading in ("ours", "theirs", "ratio", "lowest", "highest", "wanted")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    for ratio in (ratio for outcome in outcomes for ratio in outcome.ratios):
        table.add_row(
            ratio.name,
            *(f"{ratio.ours:,.4g}", f"{ratio.theirs:,.4g}", ratio.unit, ratio.by),
            *(f"{number:.3f}" for number in (ratio.ratio, ratio.lowest, ratio.highest)),
            *(ratio.wanted, "reached" if ratio.is_reached else "missed", ratio.against),
        )
    standard_output().print(table)


def write_json(outcomes: Sequence[Outcome], path: Path) -> None:
    """Writes all that was measured, and on what."""
    document = {
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": {"cpu": _cpu_model(), "cpus": len(os.sched_getaffinity(0)), "load": os.getloadavg()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS_OF}},
        "races": [asdict(outcome) for outcome in outcomes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Returns what every benchmark takes on its command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--rounds", type=int, help=f"of each side (default {ROUNDS}, or 1 with --quick)")
    parser.add_argument(
        "--quick", action="store_true", help="little data and one round: shows that all of it works"
    )
    parser.add_argument("--only", metavar="WORD", default="", help="races whose name has this word")
    return parser


def rounds_of(options: argparse.Namespace) -> int:
    """Says how many rounds are wanted."""
    return options.rounds or (1 if options.quick else ROUNDS)


def run_all(races: Iterable[Race | Contest], options: argparse.Namespace) -> list[Outcome]:
    """Runs the races that are wanted, prints the table, and writes the file."""
    rounds = rounds_of(options)
    outcomes: list[Outcome] = []
    for race in races:
        if options.only in race.name:
            outcomes += [run(race, rounds)] if isinstance(race, Race) else run_contest(race, rounds)
    print_table(outcomes)
    if options.json:
        write_json(outcomes, options.json)
    return outcomes


def in_a_new_process(measure: Callable[..., T], *arguments: Any, timeout_s: float = TIMEOUT_S) -> T:
    """Measures in a process that has done nothing else; ends it, and what it started, if it takes too long.

    Raises SideError where it did, or failed.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, measure, arguments))
    process.start()
    theirs.close()
    patience_s = 0.0
    try:
        if not mine.poll(timeout_s):
            raise SideError(f"not done after {timeout_s:g} s")
        answer: T | _Failure = mine.recv()
        patience_s = END_TIMEOUT_S
    except EOFError:
        raise SideError("its process ended without a word") from None
    finally:
        _end(process.pid, patience_s)
        process.join()
    if isinstance(answer, _Failure):
        raise SideError(answer.text)
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Is what a process sends that could not measure."""

    text: str


def _answer(to: Connection, measure: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        to.send(measure(*arguments))
    except Exception as error:  # noqa: BLE001 (it is told to the one who asked)
        to.send(_Failure(text=f"{type(error).__name__}: {error}"))


def _end(pid: int | None, patience_s: float) -> None:
    """Waits until a process and all that it started have ended; kills what does not."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs(family, timeout=patience_s)
    for one in alive:
        one.kill()


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
