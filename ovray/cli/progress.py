"""Shows a scoring job while it runs, such that a person can leave it on overnight.

On a terminal the display is drawn anew; elsewhere each line has its time and stays.  May not enter: how a job
runs, what is printed at its end (result_table.py), how fast it goes (pace.py).
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ovray.cli.pace import Pace
from ovray.cli.printing import standard_output
from ovray.core.ids import ReplicaId
from ovray.core.ledger import ReplicaState
from ovray.core.snapshot import ReplicaSnapshot
from ovray.devices.records import Plan
from ovray.driver.job import Progress
from ovray.scoring.running import News, Resumed, Stage, Watch

#: Between lines where no terminal is: often while one may still be looking, then as a night needs it.
LINE_EVERY_S = ((60.0, 5.0), (600.0, 30.0), (float("inf"), 60.0))

#: Replicas beyond this many are counted: the display must fit on the screen.
REPLICAS_SHOWN = 16

#: Changes of so many replicas at once are told one by one; more, as of a whole rack, are counted.
CHANGES_TOLD = 4

_STARTING, _SUSPECTED, _FAILED = "starting", "suspected", "failed"


@contextmanager
def display(*, shown: bool) -> Iterator[Watch]:
    """Gives the function that is to be told how a job goes."""
    console = standard_output()
    if not shown:
        yield lambda _: None
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield LiveDisplay(live).update
    else:
        yield LineDisplay(console).update


class LiveDisplay:
    """Draws a bar, what happened so far, and a line a replica."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pace = Pace()
        self._resumed_rows = 0
        self._bars = Bars(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        self._task = self._bars.add_task("starting", total=None)
        live.update(self._bars)

    def update(self, news: News) -> None:
        """Shows how things stand now."""
        match news:
            case Stage():
                self._bars.update(self._task, description=news.text)
            case Resumed():
                self._resumed_rows = news.rows
            case Plan():
                self._bars.update(self._task, description=_starting(news))
                if news.shortage is not None:
                    self._live.console.print(news.shortage, markup=False, highlight=False)
            case Progress():
                self._pace.look(news.running_s, news.rows_done)
                self._bars.update(
                    self._task,
                    description="scoring" if news.running_s else "compiling",
                    total=news.rows_total + self._resumed_rows,
                    completed=news.rows_done + self._resumed_rows,
                )
                facts = [_rows(news, self._resumed_rows), *_speed(news, self._pace), *_mishaps(news)]
                self._live.update(Group(self._bars, ", ".join(facts), _replica_lines(news)))


class LineDisplay:
    """Prints a line now and then, and one when something happens to a replica."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace = Pace()
        self._resumed_rows = 0
        self._began_s = self._last_line_s = time.monotonic()
        self._states: dict[ReplicaId, str] = {}

    def update(self, news: News) -> None:
        """Prints what is new, if anything is."""
        match news:
            case Resumed():
                self._resumed_rows = news.rows
                self._print(f"an earlier run had done {news.rows:,} of {news.rows_total:,} rows")
            case Plan():
                self._print(_starting(news))
                if news.shortage is not None:
                    self._print(news.shortage)
            case Progress():
                self._pace.look(news.running_s, news.rows_done)
                self._tell_changes(news)
                if self._is_due() or news.rows_done == news.rows_total:
                    facts = [_rows(news, self._resumed_rows), *_speed(news, self._pace), _states(news)]
                    self._print(", ".join([*facts, *_mishaps(news)]))

    def _is_due(self) -> bool:
        now_s = time.monotonic()
        every_s = next(every_s for until_s, every_s in LINE_EVERY_S if now_s - self._began_s < until_s)
        if now_s - self._last_line_s < every_s:
            return False
        self._last_line_s = now_s
        return True

    def _tell_changes(self, progress: Progress) -> None:
        now = _states_of(progress)
        changed = {id: state for id, state in now.items() if self._states.get(id, _STARTING) != state}
        self._states = now
        if len(changed) <= CHANGES_TOLD:
            for id, state in changed.items():
                why = progress.failures.get(id)
                self._print(f"{id}: {state}" + (f": {why}" if why else ""))
        else:
            counts = Counter(changed.values())
            self._print(", ".join(f"{count:,} replicas are now {state}" for state, count in counts.items()))

    def _print(self, text: str) -> None:
        line = f"{datetime.now():%Y-%m-%d %H:%M:%S} {' '.join(text.split())}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()


def _starting(plan: Plan) -> str:
    count = len(plan.replicas)
    return f"starting {count} replica{'s' * (count != 1)}"


def _rows(progress: Progress, resumed_rows: int) -> str:
    done, total = progress.rows_done + resumed_rows, progress.rows_total + resumed_rows
    before = f", {resumed_rows:,} of them before" if resumed_rows else ""
    return f"{done:,} of {total:,} rows ({done / total:.0%}{before})"


def _speed(progress: Progress, pace: Pace) -> list[str]:
    if not progress.rows_done:
        return []
    told = [f"{pace.rows_per_s_now:,.0f} rows/s now", f"{pace.rows_per_s:,.0f} on average"]
    rows_left = progress.rows_total - progress.rows_done
    if rows_left:
        left_s = pace.left_s(rows_left)
        told.append("nothing moves" if left_s is None else f"{_clock(left_s)} left")
    return told


def _mishaps(progress: Progress) -> list[str]:
    counters = progress.snapshot.counters
    told = [
        (progress.errors, "row put aside", "rows put aside"),
        (counters["retries"], "retry", "retries"),
        (counters["backups_sent"], "copy", "copies"),
    ]
    return [f"{number:,} {one if number == 1 else many}" for number, one, many in told if number]


def _states(progress: Progress) -> str:
    counts = Counter(_states_of(progress).values())
    return ", ".join(f"{count:,} {state}" for state, count in counts.most_common())


def _states_of(progress: Progress) -> dict[ReplicaId, str]:
    """Returns the state of each replica, in words; those that were lost or did not start, too."""
    states = {standing.id: _state(standing) for standing in progress.snapshot.replicas}
    states |= dict.fromkeys(progress.starting, _STARTING)
    return states | {id: _FAILED for id in progress.failures if id not in states}


def _state(standing: ReplicaSnapshot) -> str:
    return _SUSPECTED if standing.is_stalled else standing.state.value


def _replica_lines(progress: Progress) -> Table:
    """Shows the replicas that give cause for worry first."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("replica", "state", "rows", "share", "rows/s"):
        table.add_column(column, justify="left" if column in ("replica", "state") else "right")
    standings = {standing.id: standing for standing in progress.snapshot.replicas}
    states = _states_of(progress)
    order = sorted(states, key=lambda id: states[id] in (ReplicaState.READY.value, _STARTING))
    for id in order[:REPLICAS_SHOWN]:
        standing = standings.get(id)
        if standing is None:
            table.add_row(id, states[id], "", "", "")
            continue
        share = f"{standing.rows_done / progress.rows_done:.0%}" if progress.rows_done else ""
        rate = "" if standing.rows_per_s is None else f"{standing.rows_per_s:,.0f}"
        table.add_row(id, states[id], f"{standing.rows_done:,}", share, rate)
    if len(order) > REPLICAS_SHOWN:
        table.add_row(f"and {len(order) - REPLICAS_SHOWN} more", _states(progress), "", "", "")
    return table


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
