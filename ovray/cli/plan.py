"""``ovray plan``: arguments in, a table or JSON out."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ovray.cli.placement_options import (
    AddressOption,
    DevicesOption,
    HintOption,
    LeaseTimeoutOption,
    PrecisionOption,
    ShareCoresOption,
)
from ovray.cli.printing import print_json, standard_output
from ovray.devices.cpulist import format_cpu_list
from ovray.devices.records import Plan

#: Columns of the table: heading, and the key of the row it shows.
COLUMNS = (
    ("replica", "id"),
    ("device", "device"),
    ("host", "host"),
    ("NUMA node", "numa_node"),
    ("CPUs", "cpus"),
    ("threads", "threads"),
    ("streams", "streams"),
    ("nireq", "nireq"),
    ("precision", "precision"),
    ("memory", "memory_policy"),
)
#: Further columns once a model was compiled on each.
MEASURED = (("compile s", "compile_s"), ("first ms", "first_inference_ms"), ("RSS MB", "rss_mb"))


def plan(
    model: Annotated[
        str | None, typer.Argument(help="A model file; it is compiled and run on every replica, then they end.")
    ] = None,
    devices: DevicesOption = "MULTI",
    hint: HintOption = "THROUGHPUT",
    precision: PrecisionOption = None,
    share_cores: ShareCoresOption = False,
    lease_timeout: LeaseTimeoutOption = 30.0,
    address: AddressOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show where every replica would run; with MODEL also what it turns out to be there.

    Without MODEL nothing is compiled, and no core is taken.
    """
    from ovray.driver import planning

    found = planning.plan(
        model,
        devices=devices,
        hint=hint,
        precision=precision,
        share_cores=share_cores,
        lease_timeout_s=lease_timeout,
        address=address,
    )
    if as_json:
        print_json({"replicas": found.rows(), "warnings": found.warnings})
    else:
        _print(found)


def _print(found: Plan) -> None:
    console = standard_output()
    columns = COLUMNS + (MEASURED if found.measurements else ())
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading, _ in columns:
        table.add_column(heading, overflow="fold")
    for row in found.rows():
        table.add_row(*(Text(_shown(row[key])) for _, key in columns))
    console.print(table)
    for warning in found.warnings:
        console.print(Text(f"warning: {warning}"), style="yellow")


def _shown(value: str | int | float | tuple[int, ...] | None) -> str:
    """Returns a cell as people read it; a dash for what only compiling a model can tell."""
    if isinstance(value, tuple):
        return format_cpu_list(value) or "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return "-" if value is None else str(value)
