"""``ovray top``: arguments in, a table that follows a cluster, or one that is printed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ovray.cli.keys import keys
from ovray.cli.printing import print_json, standard_output

if TYPE_CHECKING:
    from ovray.driver.named_pools import PoolListing
    from ovray.driver.status import ReplicaStatus, Status
    from ovray.driver.status_board import Entry

T = TypeVar("T")


def top(
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Head of the Ray cluster. Default: the one that runs here."),
    ] = None,
    interval_s: Annotated[
        float, typer.Option("--interval-s", metavar="SECONDS", min=0.2, help="Between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one table and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and end.")] = False,
) -> None:
    """Follow what the drivers of a cluster do: models that serve, jobs that score, their replicas; q ends it."""
    from ovray.driver.named_pools import list_pools, require_cluster  # slow: they import ray
    from ovray.driver.session import ray_session
    from ovray.driver.status_board import read_board

    require_cluster(address)
    with ray_session(address):
        if as_json:
            print_json(_as_json(read_board(), list_pools(address)))
            return
        console = standard_output()
        if once or not console.is_terminal:
            console.print(_picture(console.width, read_board(), list_pools(address)))
            return
        _follow(console, lambda: (read_board(), list_pools(address)), interval_s)


def _follow(console: Console, look: Any, interval_s: float) -> None:
    """Shows the cluster until somebody types ``q`` or Ctrl-C."""
    try:
        with keys() as typed, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                began_s = time.monotonic()
                picture = Group(_picture(console.width, *look()), Text("q ends", style="dim"))
                live.update(picture, refresh=True)
                if typed.wait(max(0.05, began_s + interval_s - time.monotonic()), "qQ"):
                    return
    except KeyboardInterrupt:
        return  # to look is to leave nothing behind


def _picture(width: int, entries: Sequence[Entry], pools: Sequence[PoolListing]) -> RenderableType:
    if not entries and not pools:
        return Text("no driver of this cluster serves or scores anything with ovray now")
    parts: list[RenderableType] = []
    if entries:
        parts += [_runs(width, entries), Text(), _replicas(width, entries)]
    left_out = sum(entry.status.replicas_left_out for entry in entries)
    if left_out:
        parts.append(Text(f"and {left_out} more replicas"))
    if pools:
        parts += [Text(), _pools(width, pools)]
    return Group(*parts)


def _runs(width: int, entries: Sequence[Entry]) -> Table:
    table, shown = _table(width, _RUN_COLUMNS)
    for entry in entries:
        cells = [Text(cell(entry)) for cell in shown]
        table.add_row(*cells, style="dim" if entry.is_silent else "")
    return table


def _replicas(width: int, entries: Sequence[Entry]) -> Table:
    table, shown = _table(width, _REPLICA_COLUMNS)
    for entry in entries:
        for replica in entry.status.replicas:
            style = "" if replica.state == "ready" else "yellow"
            cells = [Text(cell((entry, replica))) for cell in shown]
            table.add_row(*cells, style="dim" if entry.is_silent else style)
    return table


def _pools(width: int, pools: Sequence[PoolListing]) -> Table:
    table, shown = _table(width, _POOL_COLUMNS)
    for pool in pools:
        table.add_row(*[Text(cell(pool)) for cell in shown])
    return table


def _table(width: int, columns: Sequence[_Column[T]]) -> tuple[Table, list[Callable[[T], str]]]:
    """Makes a table with the columns that there is room for, and returns what fills them."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = [column for column in columns if width >= column.from_width]
    for column in shown:
        if column.is_number:
            table.add_column(column.heading, justify="right", no_wrap=True)
        else:
            table.add_column(column.heading, overflow="fold")
    return table, [column.cell for column in shown]


def _does(entry: Entry) -> str:
    work = {"requests": "serves", "chunks": "scores"}.get(entry.status.work, entry.status.work)
    return f"{work}, silent {entry.age_s:.0f} s" if entry.is_silent else work


def _done(status: Status) -> str:
    if status.rows_total:
        return f"{status.rows_done:,}/{status.rows_total:,} rows"
    return f"{status.done:,}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.1f}"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:,.0f}" if seconds >= 0.1 else f"{seconds * 1000:.1f}"


def _few(hosts: Sequence[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= 3 else f"{hosts[0]} and {len(hosts) - 1} more"


def _as_json(entries: Sequence[Entry], pools: Sequence[PoolListing]) -> dict[str, Any]:
    return {
        "runs": [
            {**entry.status.to_json(), "age_s": entry.age_s, "is_silent": entry.is_silent} for entry in entries
        ],
        "pools": [
            {
                "name": pool.record.name,
                "model": pool.record.model_name,
                "state": pool.state,
                "replicas": len(pool.view.replicas),
                "replicas_ready": pool.ready,
                "requests_served": pool.requests_served,
            }
            for pool in pools
        ],
    }


@dataclass(frozen=True, slots=True)
class _Column(Generic[T]):
    """Is a column, and how wide a terminal must be to have it."""

    heading: str
    cell: Callable[[T], str]
    from_width: int = 0
    is_number: bool = True


_RUN_COLUMNS: tuple[_Column[Entry], ...] = (
    _Column("model", lambda entry: entry.status.model, is_number=False),
    _Column("does", _does, is_number=False),
    _Column("per s", lambda entry: _rate(entry.status.per_s)),
    _Column("p50 ms", lambda entry: _ms(entry.status.p50_s), 70),
    _Column("p99 ms", lambda entry: _ms(entry.status.p99_s)),
    _Column("queue", lambda entry: f"{entry.status.waiting:,}", 60),
    _Column("held", lambda entry: f"{entry.status.outstanding:,}", 80),
    _Column("done", lambda entry: _done(entry.status), 90),
    _Column("errors", lambda entry: f"{entry.status.failed + entry.status.rejected:,}", 50),
    _Column(
        "replicas",
        lambda entry: f"{entry.status.states.get('ready', 0)}/{sum(entry.status.states.values())}",
        80,
    ),
    _Column("hosts", lambda entry: _few(entry.status.hosts), 110, is_number=False),
    _Column("driver", lambda entry: f"{entry.status.host}:{entry.status.pid}", 120, is_number=False),
    _Column("run", lambda entry: entry.status.run, 100, is_number=False),
)

_REPLICA_COLUMNS: tuple[_Column[tuple[Entry, ReplicaStatus]], ...] = (
    _Column("replica", lambda of: of[1].id, is_number=False),
    # Several models, or a model and a job, may have replicas of one name.
    _Column("model", lambda of: of[0].status.model, 60, is_number=False),
    _Column("per s", lambda of: _rate(of[1].per_s)),
    _Column("p50 ms", lambda of: _ms(of[1].p50_s), 80),
    _Column("p99 ms", lambda of: _ms(of[1].p99_s), 50),
    _Column("held", lambda of: f"{of[1].outstanding:,}", 70),
    _Column("errors", lambda of: f"{of[1].failed:,}", 70),
    _Column("state", lambda of: of[1].state, is_number=False),
)

_POOL_COLUMNS: tuple[_Column[PoolListing], ...] = (
    _Column("named pool", lambda pool: pool.record.name, is_number=False),
    _Column("model", lambda pool: pool.record.model_name, 60, is_number=False),
    _Column("state", lambda pool: pool.state, is_number=False),
    _Column("replicas", lambda pool: f"{pool.ready}/{len(pool.view.replicas)}"),
    _Column("requests", lambda pool: "-" if pool.requests_served is None else f"{pool.requests_served:,}", 50),
)
