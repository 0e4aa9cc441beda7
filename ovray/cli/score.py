"""``ovray score``: arguments in, a progress display and a table or JSON out."""

from typing import Annotated, Literal

import typer

from ovray.cli.placement_options import (
    AddressOption,
    AutoscaleOption,
    DevicesOption,
    HintOption,
    LeaseTimeoutOption,
    MaxReplicasOption,
    PrecisionOption,
    ReplicaTimeoutOption,
    ShareCoresOption,
    TraceOption,
)
from ovray.cli.row_options import (
    ArgmaxOption,
    ColorOption,
    DtypeOption,
    FormatOption,
    LabelsOption,
    LayoutOption,
    MeanOption,
    OutputsOption,
    PostprocessOption,
    PreprocessOption,
    ResizeOption,
    RowsPerFileOption,
    ScaleOption,
    TopKOption,
)
from ovray.errors import ConfigError


def score(
    model: Annotated[
        str, typer.Argument(help="A model file that OpenVINO reads: .xml, .onnx, .tflite, .pb, .pdmodel.")
    ],
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Data files, folders, globs or URLs.")],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder for the results; the same command again carries on there."),
    ],
    devices: DevicesOption = "MULTI",
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[NAME=]COL",
            help="Column that feeds the model, or NAME=COL for its input NAME; a wildcard such as 'pixel_*' makes"
            " one vector of many columns. Default: the column with the input's name, else the only one that fits.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="COL,...", help="Columns carried over. Default: every column that is not an input."),
    ] = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    scale: ScaleOption = None,
    color: ColorOption = None,
    outputs: OutputsOption = None,
    top_k: TopKOption = None,
    argmax: ArgmaxOption = False,
    labels: LabelsOption = None,
    dtype: DtypeOption = None,
    format: FormatOption = "parquet",
    rows_per_file: RowsPerFileOption = None,
    preprocess: PreprocessOption = None,
    postprocess: PostprocessOption = None,
    hint: HintOption = "THROUGHPUT",
    batch_size: Annotated[str, typer.Option(metavar="N|auto", help="Rows in one inference.")] = "auto",
    config: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="OpenVINO property for every replica; repeatable."),
    ] = None,
    precision: PrecisionOption = None,
    address: AddressOption = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Score the first N rows only.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete the results that the folder holds, and begin anew.")
    ] = False,
    on_error: Annotated[
        str,
        typer.Option(
            "--on-error",
            metavar="raise|record",
            help="What a row does that cannot be scored: end the job, or go to _errors in the output.",
        ),
    ] = "raise",
    max_errors: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --on-error record: end the job when more rows than this are bad."),
    ] = None,
    commit_every: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Each replica completes a part at least so often."),
    ] = 10.0,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Let no idle replica run a copy of one of the last chunks.")
    ] = False,
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            metavar="FILE.html",
            help="Write one page about the run: speed over time, what each replica did when, errors, the plan.",
        ),
    ] = None,
    trace: TraceOption = None,
    share_cores: ShareCoresOption = False,
    lease_timeout: LeaseTimeoutOption = 30.0,
    max_replicas: MaxReplicasOption = None,
    replica_timeout: ReplicaTimeoutOption = 30.0,
    autoscale: AutoscaleOption = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, on the last line, instead of a table.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress and no table.")] = False,
) -> None:
    """Score every row of a data set, exactly once, on every device of the cluster.

    Writes a folder of files with the kept columns and one column for each output of the model.  The same
    command again, after a kill at whatever moment, scores the rows that are missing.
    """
    from ovray.cli.printing import print_json
    from ovray.cli.progress import display
    from ovray.cli.result_table import print_report
    from ovray.core.events import MAX_BACKUPS
    from ovray.driver.placement import PlacementOptions
    from ovray.scoring.on_error import ErrorOptions
    from ovray.scoring.options import ScoreOptions
    from ovray.scoring.preparation import GraphSteps
    from ovray.scoring.reduction import ResultOptions
    from ovray.scoring.result_formats import ResultFormat
    from ovray.scoring.row_plan import RowOptions
    from ovray.scoring.score import run
    from ovray.scoring.taking_up import Earlier
    from ovray.scoring.user_functions import find_function

    options = ScoreOptions(
        rows=RowOptions(
            inputs=tuple(input or ()),
            keep=_names(keep),
            batch_size=_batch_size(batch_size),
            steps=GraphSteps.parse(layout=layout, resize=resize, mean=mean, scale=scale, color=color),
            preprocess=None if preprocess is None else find_function("--preprocess", preprocess),
            postprocess=None if postprocess is None else find_function("--postprocess", postprocess),
            results=ResultOptions.parse(
                outputs=_names(outputs), top_k=top_k, argmax=argmax, labels=labels, dtype=dtype
            ),
            rows_per_file=rows_per_file,
        ),
        errors=ErrorOptions.parse(on_error=on_error, max_errors=max_errors),
        config=_properties(config or []),
        limit=limit,
        result_format=ResultFormat.parse(format),
        earlier=Earlier.DELETE if restart else Earlier.KEEP,
        commit_every_s=commit_every,
        max_backups=0 if no_backup else MAX_BACKUPS,
        report=report,
        trace=trace,
        placement=PlacementOptions.parse(
            devices=devices,
            hint=hint,
            precision=precision,
            share_cores=share_cores,
            lease_timeout_s=lease_timeout,
            max_replicas=max_replicas,
            replica_timeout_s=replica_timeout,
            autoscale=autoscale,
        ),
        address=address,
    )
    with display(shown=not (quiet or json)) as watch:
        scored = run(model, inputs, output, options, watch)
    if json:
        print_json(scored.to_json())
    elif not quiet:
        print_report(scored)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdigit():
        raise ConfigError(f"--batch-size {text!r}: give a number of rows, or auto")
    return int(text)


def _properties(pairs: list[str]) -> dict[str, str]:
    properties = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"--config {pair!r}: give KEY=VALUE, such as CACHE_DIR=/var/cache/ovray")
        properties[key.strip()] = value.strip()
    return properties
