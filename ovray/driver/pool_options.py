"""Says how a pool of replicas is to be opened, and reads what of it comes as OpenVINO properties.

May not enter: starting anything, models.  Which properties a replica is compiled with in the end: properties.py of
the replica's room.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from ovray.core.policies import SchedulePolicy
from ovray.core.serving_order import AsListed, BestThatWorks, ServingOrder
from ovray.devices.grammar import parse
from ovray.devices.records import Hint, ReplicaSpec
from ovray.driver.meter import Figures
from ovray.driver.placement import PlacementOptions
from ovray.driver.switches import read_switch
from ovray.driver.trace import check_path
from ovray.errors import ConfigError
from ovray.replica.niceness import MODEL_PRIORITY, ModelPriority
from ovray.replica.properties import compile_properties
from ovray.replica.workload import Batching

#: Requests that may wait or run at once before submitters wait, and the bytes of their inputs.
MAX_REQUESTS = 10_000
MAX_BYTES = 1 << 30

#: Properties of OpenVINO's AUTO that the driver answers to; no device would take them.
STARTUP_FALLBACK = "ENABLE_STARTUP_FALLBACK"
RUNTIME_FALLBACK = "ENABLE_RUNTIME_FALLBACK"

_TRUTH = {"YES": True, "TRUE": True, "NO": False, "FALSE": False}

#: What names a pool: also a part of a Ray actor's name, and typed in shells.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Carriers(Enum):
    """Says what may carry requests to replicas of the driver's own host; those of others get them through Ray."""

    SOCKET = "socket"  # and Ray, where there is none
    RAY = "ray"

    @staticmethod
    def parse(environment: Mapping[str, str]) -> "Carriers":
        """Reads ``OVRAY_TRANSPORT``.

        Raises:
            ConfigError: it is neither ``socket`` nor ``ray``.
        """
        return read_switch(environment, "OVRAY_TRANSPORT", Carriers.SOCKET)


class Lifetime(Enum):
    """Says when the replicas of a pool end."""

    OWNER = "owner"  # with the driver that opened it
    DETACHED = "detached"  # when somebody stops it, or with the cluster

    @staticmethod
    def parse(text: str | None) -> "Lifetime":
        """Reads what callers write, as Ray spells it for actors: ``None`` or ``"detached"``.

        Raises:
            ConfigError: it is something else.
        """
        if text not in (None, "detached"):
            raise ConfigError(f"lifetime is {text!r}; legal are None and 'detached'; nothing was started")
        return Lifetime.OWNER if text is None else Lifetime.DETACHED


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Says which replicas are wanted, and how they are to serve."""

    placement: PlacementOptions = field(default_factory=PlacementOptions)
    #: OpenVINO properties for every replica.
    config: Mapping[str, str] = field(default_factory=dict)
    #: And for those of one device, by OpenVINO's name or ``host/device``; the more exact name counts more.
    device_config: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    policy: SchedulePolicy = SchedulePolicy.FASTEST_COMPLETION
    batching: Batching = field(default_factory=Batching)
    address: str | None = None
    carriers: Carriers = field(default_factory=lambda: Carriers.parse(os.environ))
    figures: Figures = field(default_factory=lambda: Figures.parse(os.environ))
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES
    #: By which other processes find the pool; ``None``: it is this process's alone.
    name: str | None = None
    lifetime: Lifetime = Lifetime.OWNER
    #: A file for a trace of this driver's requests, written when the pool is closed; ``None`` writes none.
    trace: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Raises ``ConfigError`` for what cannot be."""
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"the pool's name is {self.name!r}; give up to 128 letters, digits, dots, hyphens and underscores,"
                " the first a letter or a digit; nothing was started"
            )
        if self.trace is not None:
            check_path(self.trace)
        if self.name is None and self.lifetime is Lifetime.DETACHED:
            raise ConfigError("a detached pool needs a name, or nobody could find it again; nothing was started")


def serving_order(options: PoolOptions) -> ServingOrder | None:
    """Says which replicas are to serve as they come and go; ``None`` where all are alike.

    Raises:
        ConfigError: a property of AUTO has no such value.
    """
    rules = BestThatWorks(
        has_startup_fallback=_truth(options.config, STARTUP_FALLBACK),
        has_runtime_fallback=_truth(options.config, RUNTIME_FALLBACK),
    )
    is_auto = parse(options.placement.devices).mode == "AUTO"
    if is_auto and options.placement.hint is not Hint.CUMULATIVE_THROUGHPUT:
        return rules
    return AsListed() if options.policy is SchedulePolicy.DEVICE_PRIORITY else None


def replica_properties(spec: ReplicaSpec, options: PoolOptions) -> dict[str, str]:
    """Returns the OpenVINO properties for one replica; for a simulated one its settings beyond its entry's.

    Raises:
        ConfigError: ``MODEL_PRIORITY`` has no such value.
    """
    for_device = _for_device(spec, options)
    if not spec.openvino_device:
        return for_device
    config = {
        name: value
        for name, value in {**options.config, **for_device}.items()
        if name not in (STARTUP_FALLBACK, RUNTIME_FALLBACK)
    }
    if MODEL_PRIORITY in config:
        config[MODEL_PRIORITY] = ModelPriority.parse(config[MODEL_PRIORITY]).value
    return compile_properties(spec, config)


def _truth(config: Mapping[str, str], name: str) -> bool:
    text = config.get(name, "YES")
    if text.upper() not in _TRUTH:
        raise ConfigError(f"{name} is {text!r}; legal are YES and NO; nothing was started")
    return _TRUTH[text.upper()]


def _for_device(spec: ReplicaSpec, options: PoolOptions) -> dict[str, str]:
    kind = spec.openvino_device.split(".")[0]
    names = (kind, spec.openvino_device, spec.device, f"{spec.host}/{spec.device}")
    merged: dict[str, str] = {}
    for name in names:
        merged |= options.device_config.get(name, {})
    return merged
