"""``ovray plan``: arguments in, a table or JSON out."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ovray.cli.printing import print_json, standard_output
from ovray.devices.cpulist import format_cpu_list
from ovray.devices.records import Plan
from ovray.driver import planning

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
    devices: Annotated[
        str, typer.Option(help="Device string, such as 'MULTI:GPU,CPU*2'; MULTI is every device of the cluster.")
    ] = "MULTI",
    hint: Annotated[str, typer.Option(help="LATENCY, THROUGHPUT or CUMULATIVE_THROUGHPUT.")] = "THROUGHPUT",
    precision: Annotated[
        str | None, typer.Option(help="f32, f16 or bf16 for every replica; without it, each device's own.")
    ] = None,
    share_cores: Annotated[
        bool, typer.Option("--share-cores", help="Use cores that others hold: no pinning, threads divided.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster; without it, a running one or this machine.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show where every replica would run, before anything is compiled."""
    found = planning.plan(
        devices=devices, hint=hint, precision=precision, share_cores=share_cores, address=address
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
        return f"{value:.3g}"
    return "-" if value is None else str(value)
