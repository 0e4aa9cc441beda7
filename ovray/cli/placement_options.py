"""The options that every command takes which places or starts replicas: written once."""

from pathlib import Path
from typing import Annotated

import typer

DevicesOption = Annotated[
    str,
    typer.Option(
        "--devices",
        "-d",
        metavar="DEVICES",
        help="Device string: MULTI (all there are), CPU, CPU.1, CPU@0-3, CPU*2, GPU, 'CPU(4)', HOST/CPU, lists of"
        " these, '-GPU' to leave one out.",
    ),
]
HintOption = Annotated[
    str, typer.Option(metavar="HINT", help="THROUGHPUT, LATENCY or CUMULATIVE_THROUGHPUT, as OpenVINO means them.")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(metavar="TYPE", help="f32, f16 or bf16 on every replica. Default: each device's own choice."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Head of a Ray cluster. Default: RAY_ADDRESS, a Ray running here, or one of its own for the command.",
    ),
]
ShareCoresOption = Annotated[
    bool, typer.Option("--share-cores", help="Run on cores that others hold, unpinned; slower for both.")
]
MaxReplicasOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="At most so many replicas, also when hosts join."),
]
ReplicaTimeoutOption = Annotated[
    float,
    typer.Option(metavar="SECONDS", help="A replica, or the head, that is silent for so long is given up."),
]
AutoscaleOption = Annotated[
    bool,
    typer.Option(
        "--autoscale",
        help="Tell Ray's autoscaler what is missing of --max-replicas, or of what --devices means; hosts that it"
        " brings get replicas.",
    ),
]
LeaseTimeoutOption = Annotated[
    float, typer.Option(metavar="SECONDS", help="How long to wait for cores that others hold.")
]
TraceOption = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE.json",
        help="Write what ran where and when, the last 20,000 pieces of work; ui.perfetto.dev opens it.",
    ),
]
