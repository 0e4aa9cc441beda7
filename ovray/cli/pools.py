"""``ovray pools`` and ``ovray pools scale``: arguments in, a table, a line or JSON out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ovray.cli.printing import print_json, standard_output
from ovray.cli.terminal import messages
from ovray.errors import ConfigError

if TYPE_CHECKING:
    from ovray.driver.named_pools import PoolListing


AddressOption = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Head of the Ray cluster. Default: the one that runs here."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

app = typer.Typer(invoke_without_command=True)


@app.callback()
def pools(context: typer.Context, address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Show the named pools of a cluster: model, replicas, hosts, devices, state, requests served."""
    if context.invoked_subcommand is None:
        _show(address, as_json=as_json)
    elif address is not None or as_json:
        raise ConfigError(
            f"options of `ovray pools {context.invoked_subcommand}` stand behind that word; nothing was changed"
        )


@app.command()
def scale(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the pool, as `ovray pools` shows it.")],
    devices: Annotated[
        str,
        typer.Argument(
            metavar="DEVICES",
            help="Device string that the pool is to have from now on: MULTI, 'CPU*2', 'node-a/GPU,node-b/CPU' ...",
        ),
    ],
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a pool that serves other devices.

    Replicas that the string means as they are go on; missing ones are started; the others finish what they hold
    and end.  All drivers of the pool follow, and no request is lost.  Returns as soon as that is settled.
    """
    from ovray.driver.named_pools import scale_pool  # slow: it imports ray

    change = scale_pool(name, devices, address)
    for warning in change.warnings:
        messages.say(f"ovray: {warning}")
    if as_json:
        print_json({"name": name, "stay": change.stay, "start": change.start, "leave": change.leave})
        return
    standard_output().print(
        f"{name} has {devices} now; replicas: {len(change.stay)} staying, {len(change.start)} starting,"
        f" {len(change.leave)} leaving; `ovray pools` shows how far they are",
        highlight=False,
    )


def _show(address: str | None, *, as_json: bool) -> None:
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
    record = listing.record
    replicas = [kept for kept in listing.view.replicas if not kept.is_leaving]
    return {
        "name": record.name,
        "model": record.model_name,
        "lifetime": record.options.lifetime.value,
        "opened_by": record.opened_by,
        "device_string": record.options.placement.devices,
        "replicas": len(replicas),
        "replicas_ready": listing.ready,
        "hosts": list(dict.fromkeys(kept.spec.host for kept in replicas)),
        "devices": dict(Counter(kept.spec.device for kept in replicas)),
        "replicas_leaving": len(listing.view.replicas) - len(replicas),
        "state": listing.state,
        "requests_served": listing.requests_served,
        "failures": {str(kept.spec.id): str(kept.failure) for kept in replicas if kept.failure is not None},
    }
