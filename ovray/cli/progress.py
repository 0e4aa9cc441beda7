"""Shows a scoring job: a bar and a line a replica while it runs, a table at its end.

On a terminal the display is drawn anew; elsewhere a line appears now and then.  May not enter: how a job runs.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ovray.cli.printing import standard_output
from ovray.cli.terminal import messages
from ovray.devices.cpulist import format_cpu_list
from ovray.devices.records import Plan
from ovray.driver.job import Progress
from ovray.scoring.report import ScoreReport
from ovray.scoring.running import Stage, Watch

#: Between lines where no terminal is.
LINE_EVERY_S = 10.0

#: A replica's lines beyond this many are left out: the display must fit on the screen.
REPLICAS_SHOWN = 16


class _Display(Protocol):
    def update(self, news: Stage | Plan | Progress) -> None: ...


@contextmanager
def display(*, shown: bool) -> Iterator[Watch]:
    """Gives the function that is to be told how a job goes."""
    if not shown:
        yield lambda _: None
    elif messages.console.is_terminal:
        with Live(console=messages.console, refresh_per_second=4, transient=True) as live:
            yield _LiveDisplay(live).update
    else:
        yield _LineDisplay(standard_output()).update


def print_report(report: ScoreReport) -> None:
    """Prints what came out of a job."""
    console = standard_output()
    scored = report.rows - report.resumed_rows
    if not scored:
        console.print(
            f"an earlier run had done all {report.rows:,} rows; results in {report.output}",
            markup=False,
            highlight=False,
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("replica", "device", "host", "cores", "rows", "share", "busy %"):
        table.add_column(column, justify="right" if column in ("rows", "share", "busy %") else "left")
    for replica in report.to_json()["replicas"]:
        table.add_row(
            replica["id"],
            replica["device"],
            replica["host"],
            format_cpu_list(replica["cpus"]),
            f"{replica['rows']:,}",
            f"{replica['rows'] / scored:.0%}",
            f"{min(replica['busy_s'] / max(report.run_seconds, 1e-9), 1.0):.0%}",
        )
    console.print(table)
    before = f"; an earlier run had done {report.resumed_rows:,}" if report.resumed_rows else ""
    console.print(
        f"{scored:,} rows in {report.run_seconds:.2f} s, {report.rows_per_s:,.0f} rows/s"
        f" ({report.seconds:.1f} s with start-up){before}; results in {report.output}",
        markup=False,
        highlight=False,
    )
    for warning in report.warnings:
        messages.say(f"ovray: warning: {warning}")


class _LiveDisplay:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self._task = self._bars.add_task("starting", total=None, rate="")
        live.update(self._bars)

    def update(self, news: Stage | Plan | Progress) -> None:
        if isinstance(news, Stage):
            self._bars.update(self._task, description=news.text)
        elif isinstance(news, Plan):
            self._bars.update(self._task, description=_starting(news))
        else:
            self._bars.update(
                self._task,
                description="scoring" if news.running_s else "compiling",
                total=news.rows_total,
                completed=news.rows_done,
                rate=_rate_and_rest(news),
            )
            self._live.update(Group(self._bars, _replica_lines(news)))


class _LineDisplay:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_line_s = time.monotonic()

    def update(self, news: Stage | Plan | Progress) -> None:
        if isinstance(news, Stage):
            return
        if isinstance(news, Plan):
            self._print(_starting(news))
        elif time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self._print(f"{news.rows_done:,} of {news.rows_total:,} rows  {_rate_and_rest(news)}".rstrip())

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


def _starting(plan: Plan) -> str:
    count = len(plan.replicas)
    return f"starting {count} replica{'s' * (count != 1)}"


def _rate_and_rest(progress: Progress) -> str:
    if not progress.rows_done or not progress.running_s:
        return ""
    rows_per_s = progress.rows_done / progress.running_s
    left_s = (progress.rows_total - progress.rows_done) / rows_per_s
    minutes, seconds = divmod(round(left_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{rows_per_s:,.0f} rows/s, {hours}:{minutes:02}:{seconds:02} left"


def _replica_lines(progress: Progress) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("replica", "state", "rows", "rows/s"):
        table.add_column(column, justify="right" if column.startswith("rows") else "left")
    standings = progress.snapshot.replicas
    for standing in standings[:REPLICAS_SHOWN]:
        state = "silent" if standing.is_stalled else standing.state.value
        rate = "" if standing.rows_per_s is None else f"{standing.rows_per_s:,.0f}"
        table.add_row(standing.id, state, f"{standing.rows_done:,}", rate)
    for replica in progress.starting[: max(0, REPLICAS_SHOWN - len(standings))]:
        table.add_row(replica, "compiling", "", "")
    left_out = len(standings) + len(progress.starting) - REPLICAS_SHOWN
    if left_out > 0:
        table.add_row(f"and {left_out} more", "", "", "")
    return table
