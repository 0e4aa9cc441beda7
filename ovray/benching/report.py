"""Is what came of a benchmark, and how ``benchmark_app`` would write it down.

May not enter: measuring, printing on the terminal.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ovray.benching.latencies import Split
from ovray.benching.options import Api
from ovray.core.ids import ReplicaId
from ovray.errors import ConfigError
from ovray.logs import run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLine:
    """Says what one replica did."""

    id: ReplicaId
    host: str
    device: str
    cpus: tuple[int, ...]
    precision: str
    nireq: int
    iterations: int
    fps: float
    #: Of its own requests; ``None`` where it had none.
    split: Split | None
    #: Mean rows of the tensors in which its requests were inferred, other requests' rows included.
    batch_rows: float
    #: Frames per second while the others got nothing; ``None`` where that was not measured.
    alone_fps: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """Says what was measured; there is none of it after ``-niter 0``."""

    iterations: int
    total_s: float
    fps: float
    split: Split
    replicas: tuple[ReplicaLine, ...]

    @property
    def ideal_fps(self) -> float | None:
        """The plain sum of the replicas measured alone."""
        alone = [replica.alone_fps for replica in self.replicas if replica.alone_fps is not None]
        return sum(alone) if alone else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """Says what was measured, and how."""

    topology: str
    devices: str
    hint: str
    api: Api
    batch: str
    #: As asked for; ``None`` is no limit.
    iterations_limit: int | None
    duration_limit_s: float | None
    nireq: int
    percentile: int
    read_s: float
    reshape_s: float | None
    #: From the device string to the last replica being ready: Ray, plan and start are part of it.
    compile_s: float
    #: Of the slowest replica; ``None`` after ``-niter 0``.
    first_inference_s: float | None
    result: BenchResult | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it, in seconds."""
        document = asdict(self)
        document["api"] = self.api.value
        document["run"] = run_id()
        if self.result is not None:
            document["result"]["ideal_fps"] = self.result.ideal_fps
        return document


def statistics(report: BenchReport, typed: Mapping[str, str]) -> dict[str, Any]:
    """Returns the sections of ``benchmark_app``'s report, by its keys, and ``replicas`` and ``latency`` besides.

    Args:
        report: what was measured.
        typed: the command line, value by flag.

    Source: ``main.py`` and ``utils/statistics_report.py`` of ``openvino.tools.benchmark``, 2026.4.
    """
    found: dict[str, Any] = {"cmd_options": dict(typed)}
    result = report.result
    if result is not None:
        found["configuration_setup"] = {
            "topology": report.topology,
            "target device": report.devices,
            "API": report.api.value,
            # Inputs travel to the replicas with every request.
            "inference_only": False,
            "precision": "UNSPECIFIED",
            "batch size": report.batch,
            "number of iterations": str(report.iterations_limit),
            "number of parallel infer requests": str(report.nireq),
            "duration (ms)": str(round((report.duration_limit_s or 0) * 1000)),
        }
    found["execution_results"] = _execution_results(report)
    if result is not None:
        found["latency"] = {
            part: {
                "median" if report.percentile == 50 else f"{report.percentile} percentile": _ms(
                    one["percentile_s"]
                ),
                "average": _ms(one["average_s"]),
                "min": _ms(one["min_s"]),
                "max": _ms(one["max_s"]),
            }
            for part, one in asdict(result.split).items()
        }
        found["replicas"] = [_replica(line) for line in result.replicas]
    return found


def write_statistics(report: BenchReport, typed: Mapping[str, str], folder: Path, *, suffix: str) -> Path:
    """Writes ``benchmark_report.json`` or ``benchmark_report.csv``, as ``benchmark_app`` names them.

    Args:
        report: what was measured.
        typed: the command line, value by flag.
        folder: is there already.
        suffix: ``json`` or ``csv``.

    Raises:
        ConfigError: the file cannot be written.
    """
    found = statistics(report, typed)
    path = folder / f"benchmark_report.{suffix}"
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            if suffix == "json":
                json.dump(found, file)
            else:
                csv.writer(file, delimiter=";", lineterminator="\n").writerows(_csv_rows(found))
    except OSError as error:
        raise ConfigError(
            f"{str(path)!r} cannot be written: {error.strerror}; give another -report_folder"
        ) from error
    return path


def _execution_results(report: BenchReport) -> dict[str, str]:
    times = {
        "read model time (ms)": report.read_s,
        "reshape model time (ms)": report.reshape_s,
        "compile model time (ms)": report.compile_s,
        "first inference time (ms)": report.first_inference_s,
    }
    found = {name: _ms(seconds) for name, seconds in times.items() if seconds is not None}
    if report.result is None:
        return found
    latency = report.result.split.end_to_end
    middle = "latency (ms)" if report.percentile == 50 else f"latency ({report.percentile} percentile) (ms)"
    return found | {
        "total execution time (ms)": _ms(report.result.total_s),
        "total number of iterations": str(report.result.iterations),
        middle: _ms(latency.percentile_s),
        "avg latency": _ms(latency.average_s),
        "min latency": _ms(latency.min_s),
        "max latency": _ms(latency.max_s),
        "throughput": f"{report.result.fps:.2f}",
    }


def _replica(line: ReplicaLine) -> dict[str, str]:
    found = {
        "id": line.id,
        "precision": line.precision,
        "number of parallel infer requests": str(line.nireq),
        "total number of iterations": str(line.iterations),
        "throughput": f"{line.fps:.2f}",
        "rows per inference": f"{line.batch_rows:.1f}",
    }
    if line.split is not None:
        found["latency (ms)"] = _ms(line.split.end_to_end.percentile_s)
        found["device latency (ms)"] = _ms(line.split.device.percentile_s)
    if line.alone_fps is not None:
        found["throughput alone"] = f"{line.alone_fps:.2f}"
    return found


def _csv_rows(found: Mapping[str, Any]) -> Iterable[list[str]]:
    headings = {
        "cmd_options": "Command line parameters",
        "configuration_setup": "Configuration setup",
        "execution_results": "Execution results",
    }
    for section, heading in headings.items():
        if section in found:
            yield [heading]
            yield from ([name, str(value)] for name, value in found[section].items())
            yield []
    for name, parts in found.get("latency", {}).items():
        yield [f"Latency, {name.replace('_', ' ')} (ms)"]
        yield from ([part, value] for part, value in parts.items())
        yield []
    for replica in found.get("replicas", ()):
        yield [f"Replica {replica['id']}"]
        yield from ([name, value] for name, value in replica.items())
        yield []


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"
