"""``ovray top``: arguments in, a table that follows a cluster, or one that is printed once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ovray.cli.keys import keys
from ovray.cli.printing import print_json, standard_output

if TYPE_CHECKING:
    from ovray.driver.named_pools import PoolListing
    from ovray.driver.status import ReplicaStatus
    from ovray.driver.status_board import Entry

#: Below so many columns, what can be done without is left out.
_NARROW = 100

_WORK = {"requests": "serves", "chunks": "scores"}


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
        parts += [Text(), _pools(pools)]
    return Group(*parts)


def _runs(width: int, entries: Sequence[Entry]) -> Table:
    is_wide = width >= _NARROW
    table = _table(["model", "does"], ["per s", "p50 ms", "p99 ms", "queue", "held", "done", "errors", "replicas"])
    if is_wide:
        table.add_column("hosts", overflow="fold")
        table.add_column("driver", overflow="fold")
        table.add_column("run", overflow="fold")
    for entry in entries:
        status = entry.status
        done = f"{status.done:,}"
        if status.rows_total:
            done = f"{status.rows_done:,}/{status.rows_total:,} rows"
        silent = f", silent {entry.age_s:.0f} s" if entry.is_silent else ""
        cells = [
            *(status.model, _WORK.get(status.work, status.work) + silent),
            *(_rate(status.per_s), _ms(status.p50_s), _ms(status.p99_s)),
            *(f"{status.waiting:,}", f"{status.outstanding:,}", done, f"{status.failed + status.rejected:,}"),
            f"{status.states.get('ready', 0)}/{sum(status.states.values())}",
        ]
        if is_wide:
            cells += [_few(status.hosts), f"{status.host}:{status.pid}", status.run]
        table.add_row(*map(Text, cells), style="dim" if entry.is_silent else "")
    return table


def _replicas(width: int, entries: Sequence[Entry]) -> Table:
    table = _table(["replica"], ["per s", "p50 ms", "p99 ms", "held", "errors"])
    table.add_column("state")
    if width >= _NARROW:
        table.add_column("model", overflow="fold")
    for entry in entries:
        for replica in entry.status.replicas:
            cells = _replica(replica)
            if width >= _NARROW:
                cells.append(entry.status.model)
            style = "" if replica.state == "ready" else "yellow"
            table.add_row(*map(Text, cells), style="dim" if entry.is_silent else style)
    return table


def _replica(replica: ReplicaStatus) -> list[str]:
    return [
        replica.id,
        *(_rate(replica.per_s), _ms(replica.p50_s), _ms(replica.p99_s)),
        *(f"{replica.outstanding:,}", f"{replica.failed:,}", replica.state),
    ]


def _pools(pools: Sequence[PoolListing]) -> Table:
    table = _table(["named pool", "model", "state"], ["replicas", "requests"])
    for pool in pools:
        served = "-" if pool.requests_served is None else f"{pool.requests_served:,}"
        cells = (pool.record.name, pool.record.model_name, pool.state)
        table.add_row(*map(Text, (*cells, f"{pool.ready}/{len(pool.view.replicas)}", served)))
    return table


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in left:
        table.add_column(heading, overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


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
