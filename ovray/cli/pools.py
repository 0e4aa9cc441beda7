"""``ovray pools``: arguments in, a table or JSON out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ovray.cli.printing import print_json, standard_output

if TYPE_CHECKING:
    from ovray.driver.named_pools import PoolListing


def pools(
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Head of the Ray cluster. Default: the one that runs here."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the named pools of a cluster: model, replicas, hosts, devices, state, requests served."""
    from ovray.driver.named_pools import list_pools  # slow: it imports ray

    rows = [_row(listing) for listing in list_pools(address)]
    if as_json:
        print_json({"pools": rows})
        return
    console = standard_output()
    if not rows:
        console.print("there are no pools in this cluster")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("name", "model", "lifetime", "opened by", "replicas", "hosts", "devices", "state", "requests"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            row["name"],
            row["model"],
            row["lifetime"],
            row["opened_by"],
            f"{row['replicas_ready']}/{row['replicas']}",
            ", ".join(row["hosts"]),
            ", ".join(f"{device}*{count}" if count > 1 else device for device, count in row["devices"].items()),
            row["state"],
            "" if row["requests_served"] is None else str(row["requests_served"]),
        )
    console.print(table)


def _row(listing: PoolListing) -> dict[str, Any]:
    record, replicas = listing.record, listing.view.replicas
    return {
        "name": record.name,
        "model": record.model_name,
        "lifetime": record.options.lifetime.value,
        "opened_by": record.opened_by,
        "replicas": len(replicas),
        "replicas_ready": listing.ready,
        "hosts": list(dict.fromkeys(kept.spec.host for kept in replicas)),
        "devices": dict(Counter(kept.spec.device for kept in replicas)),
        "state": listing.state,
        "requests_served": listing.requests_served,
        "failures": {str(kept.spec.id): str(kept.failure) for kept in replicas if kept.failure is not None},
    }
