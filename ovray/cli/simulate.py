"""``ovray simulate``: what a cluster would do with a job or with requests, before one rents it.

Nothing but arguments and printing in here: the rehearsal is core/simulation.py.
"""

import math
import random
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

import typer
from rich import box
from rich.table import Table

from ovray.cli.printing import print_json, standard_output
from ovray.core.faults import Fault, SlowDown, bound_s, random_deaths
from ovray.core.ids import ReplicaId
from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler
from ovray.core.simulated_replica import ReplicaModel
from ovray.core.simulation import JobReport, ReplicaReport, RequestReport, Simulation, Surroundings
from ovray.devices.grammar import DeviceEntry, DeviceString, parse
from ovray.errors import ConfigError

_SLOW_DOWN = re.compile(r"SIM#(?P<number>\d+)@(?P<at>[\d.]+)(?P<unit>%|s)=(?P<factor>[\d.]+)")

#: Up to this many replicas are printed one by one, more are summed up by device entry.
_REPLICAS_PRINTED = 24

R = TypeVar("R")


def simulate(
    devices: Annotated[
        str, typer.Option(help="Simulated devices, such as 'SIM*100?ms=40&jitter=0.2,SIM*5?ms=2'.")
    ],
    rows: Annotated[int | None, typer.Option(help="Rows of a data set to be scored.")] = None,
    requests: Annotated[
        float | None, typer.Option(help="Requests a second that arrive at random, instead.")
    ] = None,
    duration: Annotated[float, typer.Option(help="Simulated seconds in which requests arrive.")] = 60.0,
    policy: Annotated[str | None, typer.Option(help="One policy; without it the table shows all.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 0,
    round_trip_ms: Annotated[float, typer.Option(help="What a message there and back takes.")] = 2.0,
    slow_down: Annotated[
        list[str] | None,
        typer.Option(
            help="SIM#3@50%=0.25: from half of the ideal time (or @30s) on, a quarter of the speed; 0 hangs."
        ),
    ] = None,
    die: Annotated[float, typer.Option(help="Percentage of the replicas that die at random times.")] = 0.0,
    come_back: Annotated[float, typer.Option("--return", help="Percentage of those that come back.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Rehearse a job or a stream of requests on simulated devices with the real scheduler."""
    entries = _parse_devices(devices)
    models = [model for entry in entries for model in entry]
    _check_numbers(rows, requests, duration, round_trip_ms, die, come_back)
    chosen = _parse_policy(policy)
    ideal_s = bound_s(models, (), rows) if rows is not None else duration
    faults = [_parse_slow_down(text, models, ideal_s) for text in slow_down or []]
    faults += random_deaths(
        models, dying=die / 100, returning=come_back / 100, until_s=ideal_s, chance=random.Random(seed)
    )
    around = Surroundings(round_trip_s=round_trip_ms / 1000, faults=faults)
    shown = [chosen or SchedulePolicy.FASTEST_COMPLETION]
    if chosen is None and not as_json:
        shown += [other for other in SchedulePolicy if other not in shown]
    if rows is not None:
        _simulate_job(shown, entries, around, rows, seed, _print_json if as_json else _print_job)
    else:
        assert requests is not None
        load = (requests, duration)
        _simulate_requests(shown, entries, around, load, seed, _print_json if as_json else _print_requests)


_Entries = Sequence[Sequence[ReplicaModel]]
_Printer = Callable[[_Entries, Sequence[tuple[dict[str, Any], tuple[ReplicaReport, ...]]]], None]


def _simulate_job(
    policies: Iterable[SchedulePolicy],
    entries: _Entries,
    around: Surroundings,
    rows: int,
    seed: int,
    show: _Printer,
) -> None:
    results = []
    for policy in policies:
        simulation = _simulation(policy, entries, around, seed)
        report, seconds = _timed(partial(simulation.run_job, rows))
        results.append((_job_figures(policy, report, seconds), report.replicas))
    show(entries, results)
    if any(figures["lost"] for figures, _ in results):
        raise typer.Exit(1)


def _simulate_requests(
    policies: Iterable[SchedulePolicy],
    entries: _Entries,
    around: Surroundings,
    load: tuple[float, float],
    seed: int,
    show: _Printer,
) -> None:
    results = []
    for policy in policies:
        simulation = _simulation(policy, entries, around, seed)
        report, seconds = _timed(partial(simulation.run_requests, *load))
        results.append((_request_figures(policy, report, seconds), report.replicas))
    show(entries, results)


def _simulation(policy: SchedulePolicy, entries: _Entries, around: Surroundings, seed: int) -> Simulation:
    models = [model for entry in entries for model in entry]
    return Simulation(Scheduler(policy, random.Random(seed)), models, around, seed=seed)


def _timed(run: Callable[[], R]) -> tuple[R, float]:
    started_s = time.perf_counter()
    report = run()
    return report, time.perf_counter() - started_s


def _job_figures(policy: SchedulePolicy, report: JobReport, seconds: float) -> dict[str, Any]:
    return {
        "policy": policy.value,
        "rows": report.rows,
        "replicas": len(report.replicas),
        "makespan_s": report.makespan_s,
        "bound_s": report.bound_s if report.bound_s < math.inf else None,
        "efficiency": report.efficiency if report.bound_s < math.inf else None,
        "lost": report.lost,
        "duplicated": report.duplicated,
        "events": report.events,
        "events_per_s": report.events / seconds,
    }


def _request_figures(policy: SchedulePolicy, report: RequestReport, seconds: float) -> dict[str, Any]:
    return {
        "policy": policy.value,
        "replicas": len(report.replicas),
        "requests": report.requests,
        "p50_ms": report.p50_s * 1000,
        "p99_ms": report.p99_s * 1000,
        "throughput": report.throughput,
        "offered": report.offered,
        "lost": report.lost,
        "duplicated": report.duplicated,
        "events": report.events,
        "events_per_s": report.events / seconds,
    }


# --- printing -----------------------------------------------------------------------------------------------


def _print_json(entries: _Entries, results: Sequence[tuple[dict[str, Any], tuple[ReplicaReport, ...]]]) -> None:
    figures, _ = results[0]
    print_json(figures)


def _print_job(entries: _Entries, results: Sequence[tuple[dict[str, Any], tuple[ReplicaReport, ...]]]) -> None:
    table = _table("policy", "makespan s", "bound s", "efficiency", "tail s", "lost", "twice", "events/s")
    for figures, replicas in results:
        table.add_row(
            figures["policy"],
            f"{figures['makespan_s']:.2f}",
            "never" if figures["bound_s"] is None else f"{figures['bound_s']:.2f}",
            "-" if figures["efficiency"] is None else f"{figures['efficiency']:.4f}",
            f"{max(replica.tail_s for replica in replicas):.2f}",
            str(figures["lost"]),
            str(figures["duplicated"]),
            f"{figures['events_per_s']:,.0f}",
        )
    console = standard_output()
    console.print(table)
    console.print(_replica_table(entries, *results[0]))


def _print_requests(
    entries: _Entries, results: Sequence[tuple[dict[str, Any], tuple[ReplicaReport, ...]]]
) -> None:
    table = _table("policy", "p50 ms", "p99 ms", "results/s", "offered/s", "lost", "twice", "events/s")
    for figures, _ in results:
        table.add_row(
            figures["policy"],
            f"{figures['p50_ms']:.2f}",
            f"{figures['p99_ms']:.2f}",
            f"{figures['throughput']:.1f}",
            f"{figures['offered']:.1f}",
            str(figures["lost"]),
            str(figures["duplicated"]),
            f"{figures['events_per_s']:,.0f}",
        )
    console = standard_output()
    console.print(table)
    console.print(_replica_table(entries, *results[0]))


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def _replica_table(entries: _Entries, figures: dict[str, Any], replicas: tuple[ReplicaReport, ...]) -> Table:
    """Return each replica's idle share, or each device entry's where there are many replicas."""
    table = _table(f"with {figures['policy']}", "ms a row", "rows", "idle %", "tail s")
    by_id = {replica.id: replica for replica in replicas}
    if len(replicas) <= _REPLICAS_PRINTED:
        groups = [[model] for entry in entries for model in entry]
    else:
        groups = [list(entry) for entry in entries]
    for group in groups:
        reports = [by_id[model.id] for model in group]
        idle = [100 * report.idle_share for report in reports]
        names = group[0].id if len(group) == 1 else f"{group[0].id} to {group[-1].id.rpartition('/')[2]}"
        shares = f"{idle[0]:.1f}"
        if len(group) > 1:
            shares = f"{min(idle):.1f} to {max(idle):.1f}, mean {statistics.fmean(idle):.1f}"
        rows = sum(report.rows for report in reports)
        tail_s = max(report.tail_s for report in reports)
        table.add_row(names, f"{group[0].row_s * 1000:g}", f"{rows:,}", shares, f"{tail_s:.2f}")
    return table


# --- arguments ----------------------------------------------------------------------------------------------


def _check_numbers(
    rows: int | None, requests: float | None, duration: float, round_trip_ms: float, die: float, come_back: float
) -> None:
    if (rows is None) == (requests is None):
        raise ConfigError("give either --rows N or --requests RATE; nothing was simulated")
    for flag, value in (("--rows", rows), ("--requests", requests), ("--duration", duration)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{flag} must be above 0, got {value:g}; nothing was simulated")
    if not 0 <= round_trip_ms < math.inf:
        raise ConfigError(f"--round-trip-ms must be 0 or more, got {round_trip_ms:g}; nothing was simulated")
    for flag, percentage in (("--die", die), ("--return", come_back)):
        if not 0 <= percentage <= 100:
            raise ConfigError(
                f"{flag} must be from 0 to 100 (per cent), got {percentage:g}; nothing was simulated"
            )


def _parse_policy(name: str | None) -> SchedulePolicy | None:
    try:
        return None if name is None else SchedulePolicy(name.upper())
    except ValueError:
        legal = ", ".join(policy.value for policy in SchedulePolicy)
        raise ConfigError(f"policy {name!r} is not known; legal are {legal}; nothing was simulated") from None


def _parse_devices(text: str) -> list[list[ReplicaModel]]:
    """Return the models of each entry of a device string."""
    devices = parse(text)
    if not devices.entries:
        raise ConfigError(
            f"devices {text!r}: say which simulated devices, such as SIM*5?ms=2; nothing was simulated"
        )
    entries: list[list[ReplicaModel]] = []
    number = 0
    for entry in devices.entries:
        models = _models_of(devices, entry, number)
        number += len(models)
        entries.append(models)
    return entries


def _models_of(devices: DeviceString, entry: DeviceEntry, first_number: int) -> list[ReplicaModel]:
    if entry.device != "SIM" or entry.excluded:
        raise devices.error("only simulated devices can be rehearsed, such as SIM*5?ms=2", entry)
    row_ms = float(entry.properties.get("ms", "0"))
    if row_ms <= 0:
        raise devices.error("say how long a row takes, above 0, such as SIM?ms=40", entry)
    if "trouble" in entry.properties:
        raise devices.error("a simulation reads no file of troubles; say --slow-down or --die", entry)
    nireq = entry.nireq or int(entry.properties.get("nireq", "1"))
    return [
        ReplicaModel(
            id=ReplicaId(f"{entry.host or 'sim'}/SIM#{first_number + index}"),
            row_s=row_ms / 1000,
            nireq=nireq,
            compile_s=float(entry.properties.get("compile_s", "0")),
            jitter=float(entry.properties.get("jitter", "0")),
        )
        for index in range(entry.count or 1)
    ]


def _parse_slow_down(text: str, models: Sequence[ReplicaModel], ideal_s: float) -> Fault:
    match = _SLOW_DOWN.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--slow-down {text!r} must read SIM#NUMBER@PERCENT%=FACTOR or SIM#NUMBER@SECONDSs=FACTOR; "
            "nothing was simulated"
        )
    number = int(match["number"])
    if number >= len(models):
        raise ConfigError(f"--slow-down {text!r}: there are SIM#0 to SIM#{len(models) - 1}; nothing was simulated")
    at = float(match["at"])
    at_s = at / 100 * ideal_s if match["unit"] == "%" else at
    return SlowDown(replica=models[number].id, at_s=at_s, factor=float(match["factor"]))
