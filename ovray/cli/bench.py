"""``ovray bench``: benchmark_app's arguments in, its report with a line a replica out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ovray.cli.placement_options import AddressOption, LeaseTimeoutOption, ShareCoresOption, TraceOption
from ovray.cli.printing import print_json, standard_output
from ovray.cli.terminal import messages
from ovray.devices.cpulist import format_cpu_list
from ovray.errors import ConfigError

if TYPE_CHECKING:
    from ovray.benching.latencies import Latency
    from ovray.benching.report import BenchReport, BenchResult

#: Above this many replicas, only sums are printed; the report files have them all.
_MOST_LINES = 64


def bench(
    model: Annotated[
        Path, typer.Option("-m", "--path_to_model", metavar="MODEL", help="A model file that OpenVINO reads.")
    ],
    devices: Annotated[
        str,
        typer.Option("-d", "--target_device", metavar="DEVICES", help="Device string, such as MULTI or CPU*2."),
    ] = "MULTI",
    hint: Annotated[
        str | None,
        typer.Option(
            "-hint",
            "--perf_hint",
            metavar="HINT",
            help="throughput (tput), latency, cumulative_throughput (ctput). Default: latency with -api sync, else"
            " throughput.",
        ),
    ] = None,
    niter: Annotated[
        int | None,
        typer.Option(
            "-niter",
            "--number_iterations",
            metavar="N",
            help="Requests, rounded up to whole rounds of those in flight. 0: compile only.",
        ),
    ] = None,
    time_s: Annotated[
        float | None,
        typer.Option("-t", "--time", metavar="SECONDS", help="How long. Default without -niter: 60."),
    ] = None,
    batch: Annotated[
        str, typer.Option("-b", "--batch_size", metavar="B", help="Batch that the model is reshaped to.")
    ] = "",
    shape: Annotated[
        str,
        typer.Option("-shape", metavar="SHAPE", help="Shapes of the model: 'x[1,3,224,224],y[1,4]' or '[1,32]'."),
    ] = "",
    data_shape: Annotated[
        str,
        typer.Option(
            "-data_shape", metavar="SHAPES", help="Shapes of the data where the model's are open, in turn."
        ),
    ] = "",
    layout: Annotated[str, typer.Option("-layout", metavar="LAYOUT", help="Such as '[NCHW]'.")] = "",
    api: Annotated[
        str | None,
        typer.Option(
            "-api", "--api_type", metavar="sync|async", help="Default: sync with -hint latency, else async."
        ),
    ] = None,
    nireq: Annotated[
        int | None,
        typer.Option(
            "-nireq",
            "--number_infer_requests",
            metavar="N",
            min=1,
            help="Requests in flight over all replicas. Default: as many as keep all of them busy.",
        ),
    ] = None,
    infer_precision: Annotated[
        str | None, typer.Option("-infer_precision", metavar="TYPE", help="f32, or CPU:f32,GPU:f16.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("-config", metavar="KEY=VALUE", help="An OpenVINO property for every replica; repeatable."),
    ] = None,
    load_config: Annotated[
        Path | None, typer.Option("-load_config", metavar="FILE", help="Properties by device, as JSON.")
    ] = None,
    cache_dir: Annotated[
        str | None, typer.Option("-cdir", "--cache_dir", metavar="DIR", help="Keep compiled models there.")
    ] = None,
    latency_percentile: Annotated[
        int,
        typer.Option(
            "-latency_percentile",
            "--latency_percentile",
            metavar="P",
            min=1,
            max=100,
            help="Instead of the median.",
        ),
    ] = 50,
    report_type: Annotated[
        str | None, typer.Option("-report_type", "--report_type", metavar="TYPE", help="no_counters.")
    ] = None,
    report_folder: Annotated[
        Path, typer.Option("-report_folder", "--report_folder", metavar="DIR", help="Where the report goes.")
    ] = Path(),
    json_stats: Annotated[
        bool, typer.Option("-json_stats", "--json_stats", help="The report is benchmark_report.json, not .csv.")
    ] = False,
    ideal: Annotated[
        bool, typer.Option("--ideal", help="Measure each replica alone first, and print the fraction of the sum.")
    ] = False,
    trace: TraceOption = None,
    share_cores: ShareCoresOption = False,
    lease_timeout: LeaseTimeoutOption = 30.0,
    address: AddressOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, times in seconds.")] = False,
) -> None:
    """Measure a model on the cluster, with the flags and the report of OpenVINO's benchmark_app."""
    from ovray.benching.benchmark import run
    from ovray.benching.options import BenchOptions, Shapes, hint_and_api, limits_of, properties_of
    from ovray.benching.report import write_statistics

    _check_report(report_type, report_folder)
    hint_name, api_type = hint_and_api(hint, api)
    options = BenchOptions(
        model=model,
        devices=devices,
        hint=hint_name,
        api=api_type,
        limits=limits_of(niter, time_s),
        nireq=nireq,
        shapes=Shapes(batch=batch, shape=shape, data_shape=data_shape, layout=layout),
        config=properties_of(
            hint=hint_name,
            infer_precision=infer_precision,
            cache_dir=cache_dir,
            load_config=load_config,
            config=config or [],
        ),
        percentile=latency_percentile,
        with_ideal=ideal,
        address=address,
        share_cores=share_cores,
        lease_timeout_s=lease_timeout,
        trace=trace,
    )
    report = run(options, lambda text: messages.say(f"ovray: {text}"))
    if report_type is not None:
        typed = _typed(sys.argv[sys.argv.index("bench") + 1 :])
        path = write_statistics(report, typed, report_folder, suffix="json" if json_stats else "csv")
        messages.say(f"ovray: the report is in {path}")
    for warning in report.warnings:
        messages.say(f"ovray: warning: {warning}")
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)


def _check_report(report_type: str | None, folder: Path) -> None:
    if report_type not in (None, "no_counters"):
        raise ConfigError(
            f"-report_type {report_type!r}: no_counters is all there is, because counters of layers stay in the"
            " replicas; nothing was started; profile the model on one device with benchmark_app itself"
        )
    if not folder.is_dir():
        raise ConfigError(f"-report_folder {str(folder)!r} is no folder; nothing was started; make it first")


def _typed(words: list[str]) -> dict[str, str]:
    """Pairs flags with values as benchmark_app does: a flag without one has an empty one."""
    found: dict[str, str] = {}
    flag = ""
    for word in words:
        if word.startswith("-"):
            flag, _, value = word.partition("=")
            found[flag] = value
        elif flag:
            found[flag] = word
    return found


def _print(report: "BenchReport") -> None:
    console = standard_output()
    lines = [
        f"topology    {report.topology}",
        f"devices     {report.devices}, hint {report.hint}, {report.api.value}, batch {report.batch}",
        f"compiled    in {report.compile_s:.2f} s, Ray and replicas' start included",
    ]
    if report.result is not None:
        lines += [
            f"Count:      {report.result.iterations} iterations, {report.nireq} in flight",
            f"Duration:   {report.result.total_s * 1000:.2f} ms",
        ]
    console.print(Text("\n".join(lines)))
    if report.result is None:
        return
    console.print(_latency_table(report.result, report.percentile))
    console.print(_replica_table(report.result))
    ideal_fps = report.result.ideal_fps
    if ideal_fps is not None:
        fraction = report.result.fps / ideal_fps
        console.print(Text(f"Ideal:      {ideal_fps:.2f} FPS, each replica alone; reached: {fraction:.3f}"))
    console.print(Text(f"Throughput: {report.result.fps:.2f} FPS"))


def _latency_table(result: "BenchResult", percentile: int) -> Table:
    middle = "median" if percentile == 50 else f"{percentile} percentile"
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("latency ms", middle, "average", "min", "max"):
        table.add_column(heading, justify="left" if heading == "latency ms" else "right")
    parts = {
        "end to end": result.split.end_to_end,
        "queue": result.split.queue,
        "transport": result.split.transport,
        "device": result.split.device,
    }
    for name, latency in parts.items():
        table.add_row(name, *_in_ms(latency))
    return table


def _in_ms(latency: "Latency") -> list[str]:
    seconds = (latency.percentile_s, latency.average_s, latency.min_s, latency.max_s)
    return [f"{value * 1000:.3f}" for value in seconds]


def _replica_table(result: "BenchResult") -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("replica", "cores", "precision"):
        table.add_column(heading, overflow="fold")
    for heading in ("nireq", "count", "share", "FPS", "alone", "latency ms", "device ms", "rows"):
        table.add_column(heading, justify="right")
    for line in result.replicas[:_MOST_LINES]:
        table.add_row(
            *(line.id, format_cpu_list(line.cpus) or "-", line.precision or "-", str(line.nireq)),
            *(f"{line.iterations:,}", f"{line.iterations / result.iterations:.0%}", f"{line.fps:.2f}"),
            "-" if line.alone_fps is None else f"{line.alone_fps:.2f}",
            "-" if line.split is None else f"{line.split.end_to_end.percentile_s * 1000:.3f}",
            "-" if line.split is None else f"{line.split.device.percentile_s * 1000:.3f}",
            f"{line.batch_rows:.1f}",
        )
    if len(result.replicas) > _MOST_LINES:
        table.add_row(f"and {len(result.replicas) - _MOST_LINES} more")
    return table
