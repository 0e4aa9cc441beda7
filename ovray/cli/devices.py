"""``ovray devices``: arguments in, a table or JSON out."""

from typing import Annotated

import typer
from rich.table import Table

from ovray.cli.printing import print_json, standard_output
from ovray.devices.cpulist import format_cpu_list
from ovray.devices.inventory import ClusterProbe, rows_of
from ovray.devices.records import Host


def devices(
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster; without it, a running one or one of its own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show every host of the cluster: its OpenVINO devices, NUMA nodes, cores, CPU quota and memory."""
    from ovray.driver import inspection  # slow: it imports ray

    found = inspection.devices(address)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)


def _print(found: ClusterProbe) -> None:
    console = standard_output()
    for host in found.hosts:
        console.print(_headline(host), markup=False, highlight=False)
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("device", "name", "computes in", "NUMA node", "cores", "CPUs", "leased", "memory"):
            table.add_column(column, overflow="fold")
        for row in rows_of(host):
            table.add_row(
                row["device"],
                row["full_name"],
                _precisions(row["precisions"], row["default_precision"]),
                _or_blank(row["numa_node"]),
                _or_blank(row["cores"]),
                format_cpu_list(row["cpus"]),
                format_cpu_list(row["leased_cpus"]),
                _gib(row["memory_bytes"]),
            )
        console.print(table)
        console.print()
    for left in found.left_out:
        console.print(f"{left.host} is left out: {left.reason}", markup=False, highlight=False, style="yellow")


def _headline(host: Host) -> str:
    topology = host.topology
    quota = "no CPU quota" if topology.quota_cpus is None else f"CPU quota {topology.quota_cpus:g}"
    parts = [
        host.name + (f" ({host.address})" if host.address else ""),
        f"{len(topology.cores)} cores, {len(topology.allowed_cpus)} CPUs, {quota}",
        f"memory {_gib(host.memory_bytes)}",
        f"OpenVINO {host.versions.get('openvino', '?')}, Ray {host.versions.get('ray', '?')}",
    ]
    return " · ".join(parts)


def _precisions(native: tuple[str, ...], default: str) -> str:
    """Show the precision that OpenVINO would compute in first, then what else the device has."""
    others = ", ".join(native)
    return f"{default} (has {others})" if default and others else default or others


def _or_blank(value: int | None) -> str:
    return "" if value is None else str(value)


def _gib(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 2**30:.1f} GiB"
