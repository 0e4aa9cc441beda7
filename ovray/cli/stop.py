"""``ovray stop``: the name of a pool in, one line out."""

from typing import Annotated

import typer

from ovray.cli.printing import standard_output


def stop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the pool, as `ovray pools` shows it.")],
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Head of the Ray cluster. Default: the one that runs here."),
    ] = None,
) -> None:
    """End a named pool: its replicas, their leases and cores. Returns when they are gone."""
    from ovray.driver.named_pools import stop_pool  # slow: it imports ray

    stop_pool(name, address)
    standard_output().print(f"stopped {name}: its replicas have ended, their cores are free", highlight=False)
