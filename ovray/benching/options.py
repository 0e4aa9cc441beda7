"""Reads what ``benchmark_app``'s flags say, and refuses what cannot be before anything starts.

May not enter: reading models, starting, measuring.  Shapes and layouts: inputs.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from ovray.errors import ConfigError

#: What ``benchmark_app`` takes for a device that it knows, where neither seconds nor iterations are given.
DEFAULT_DURATION_S = 60.0

_HINTS = {
    "throughput": "THROUGHPUT",
    "tput": "THROUGHPUT",
    "latency": "LATENCY",
    "cumulative_throughput": "CUMULATIVE_THROUGHPUT",
    "ctput": "CUMULATIVE_THROUGHPUT",
}


class Api(Enum):
    """Says how requests follow each other."""

    SYNC = "sync"  # the next one when the last one has ended
    ASYNC = "async"  # as many at once as keep the devices busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Holds what was typed about the inputs' shapes, each as ``benchmark_app`` writes it; empty is not given."""

    batch: str = ""
    shape: str = ""
    data_shape: str = ""
    layout: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Says when a measurement is over: when all that is given has been reached, as in ``benchmark_app``."""

    #: ``None`` is no limit.
    iterations: int | None
    duration_s: float | None

    def are_open(self, iterations: int, elapsed_s: float) -> bool:
        """Says whether another request is to be sent."""
        return (self.iterations is not None and iterations < self.iterations) or (
            self.duration_s is not None and elapsed_s < self.duration_s
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Says what is to be measured, and how."""

    model: Path
    devices: str
    #: OpenVINO's name of a performance hint.
    hint: str
    api: Api
    limits: Limits
    #: Requests in flight; ``None`` is as many as keep every replica busy, those on their way included.
    nireq: int | None = None
    shapes: Shapes = field(default_factory=Shapes)
    #: As ``compile_model`` takes it.
    config: Mapping[str, Any] = field(default_factory=dict)
    #: 1 to 100.
    percentile: int = 50
    #: Whether each device is measured alone, too.
    with_ideal: bool = False
    address: str | None = None
    share_cores: bool = False
    lease_timeout_s: float = 30.0
    #: A file for a trace of the last requests.
    trace: Path | None = None

    @property
    def is_compiling_only(self) -> bool:
        """Says whether nothing is to be inferred: ``-niter 0``."""
        return self.limits.iterations == 0


def hint_and_api(hint: str | None, api: str | None) -> tuple[str, Api]:
    """Fills in what was left out, as ``benchmark_app`` does: ``latency`` goes with ``sync``, else it is ``async``.

    Raises:
        ConfigError: there is no such hint or API.
    """
    if hint == "none":
        raise ConfigError(
            "-hint none: every replica is planned by a hint; nothing was started; to set streams by hand give a"
            " hint and -d 'CPU?NUM_STREAMS=2'"
        )
    if hint is not None and hint.lower() not in _HINTS:
        raise ConfigError(f"-hint {hint!r} is unknown; legal are {', '.join(_HINTS)}; nothing was started")
    if api is not None and api not in {known.value for known in Api}:
        raise ConfigError(f"-api {api!r} is unknown; legal are sync and async; nothing was started")
    if hint is None:
        hint = "latency" if api == Api.SYNC.value else "throughput"
    name = _HINTS[hint.lower()]
    if api is None:
        return name, Api.SYNC if name == "LATENCY" else Api.ASYNC
    return name, Api(api)


def limits_of(iterations: int | None, duration_s: float | None) -> Limits:
    """Fills in ``benchmark_app``'s duration where neither is given.

    Raises:
        ConfigError: a number is out of its range.
    """
    if iterations is not None and iterations < 0:
        raise ConfigError(f"-niter {iterations}: give 1 or more, or 0 to compile only")
    if duration_s is not None and not duration_s > 0:
        raise ConfigError(f"-t {duration_s:g}: give seconds, more than 0")
    if iterations is None and duration_s is None:
        duration_s = DEFAULT_DURATION_S
    return Limits(iterations=iterations, duration_s=duration_s)


def properties_of(
    *, hint: str, infer_precision: str | None, cache_dir: str | None, load_config: Path | None, config: list[str]
) -> dict[str, Any]:
    """Puts together the properties for ``compile_model``.

    Args:
        hint: OpenVINO's name of it.
        infer_precision: ``f32``, or ``CPU:f32,GPU:f16``.
        cache_dir: where compiled models are kept on every host.
        load_config: a file as ``benchmark_app`` loads it: ``{"CPU": {"NUM_STREAMS": "3"}}``.
        config: ``KEY=VALUE`` each, for all devices.

    Raises:
        ConfigError: something cannot be read.
    """
    by_device = {} if load_config is None else _loaded(load_config)
    properties: dict[str, Any] = {}
    for pair in config:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"-config {pair!r}: give KEY=VALUE, such as NUM_STREAMS=2")
        properties[key.strip()] = value.strip()
    if cache_dir:
        properties["CACHE_DIR"] = cache_dir
    for part in filter(None, (infer_precision or "").split(",")):
        device, colon, precision = part.rpartition(":")
        where = by_device.setdefault(device, {}) if colon else properties
        where["INFERENCE_PRECISION_HINT"] = precision.strip()
    if by_device:
        properties["DEVICE_PROPERTIES"] = by_device
    return {"PERFORMANCE_HINT": hint, **properties}


def _loaded(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"-load_config {str(path)!r} cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(inner, dict) for inner in found.values()):
        raise ConfigError(
            f'-load_config {str(path)!r}: give properties by device, such as {{"CPU": {{"NUM_STREAMS": 2}}}}'
        )
    return found
