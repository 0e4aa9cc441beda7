"""Reads a device name and a configuration, as OpenVINO's ``compile_model`` takes them, into options for a pool.

May not enter: starting anything, replicas.  What device strings mean: devices/.
"""

import os
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import openvino as ov

from ovray.core.policies import SchedulePolicy
from ovray.devices.records import Hint
from ovray.driver.placement import PlacementOptions
from ovray.driver.pool_options import Lifetime, PoolOptions
from ovray.errors import ConfigError
from ovray.replica.niceness import MODEL_PRIORITY
from ovray.replica.workload import Batching, Merging


class ServingOptions(TypedDict, total=False):
    """What ``compile_model`` takes beyond OpenVINO's own arguments, all by keyword."""

    #: ``HOST:PORT`` of a Ray head; without it the Ray of this process, ``RAY_ADDRESS``, one that runs on this
    #: machine, or one of its own.
    address: str | None
    #: Lets replicas run on cores that others hold.  Without it the first model of a process has its cores to
    #: itself, and further ones share them with it, as models do in OpenVINO.
    share_cores: bool
    #: Seconds to wait for cores that others hold.
    lease_timeout_s: float
    #: At most so many replicas, those on hosts that join later included; ``None`` is all.
    max_replicas: int | None
    #: A replica that holds work, or the cluster's head, that is silent for so many seconds is given up.
    replica_timeout_s: float
    #: Tells Ray's autoscaler what is missing of ``max_replicas``, or of what the device string means; hosts that
    #: it brings get replicas.
    autoscale: bool
    #: The most rows of one inference when requests are joined; ``auto`` grows while requests wait.
    batch_size: int | Literal["auto"]
    #: The longest that a request waits for others to be joined with, in milliseconds.
    batch_timeout_ms: float
    #: Says of the model what its graph may not show: that no row of a batch depends on another (``True``), or that
    #: some do (``False``, nothing is joined).
    rows_are_independent: bool | None
    #: Requests that may wait or run at once, and bytes of their inputs, before those who submit wait.
    max_requests: int
    max_bytes: int
    #: By which other processes find the replicas, with ``ovray.attach``.
    name: str | None
    #: ``"detached"`` keeps the replicas when this process ends; ``None`` does not.
    lifetime: str | None
    #: A ``.json`` file for a trace of the last requests, which Perfetto opens; written when the model is closed.
    trace: str | os.PathLike[str] | None


#: Properties of AUTO and MULTI that this face answers to; no device would take them.
MULTI_DEVICE_PRIORITIES = "MULTI_DEVICE_PRIORITIES"
SCHEDULE_POLICY = "SCHEDULE_POLICY"
DEVICE_PROPERTIES = "DEVICE_PROPERTIES"
PERFORMANCE_HINT = "PERFORMANCE_HINT"
PRECISION = "INFERENCE_PRECISION_HINT"

#: What a plan settles for every replica at once, and so warns where it cannot.
_PLANNED_PRECISIONS = ("f32", "f16", "bf16")


def read_options(device_name: str | None, config: Mapping[str, Any], more: ServingOptions) -> PoolOptions:
    """Says what to open for a device name and a configuration.

    Args:
        device_name: a device string; ``None`` is ``AUTO``, as in OpenVINO.
        config: OpenVINO properties by name, their values as OpenVINO takes them.
        more: what OpenVINO does not have.

    Raises:
        ConfigError: a property has no such value, or an option is unknown.

    Example:
        >>> read_options("MULTI", {"SCHEDULE_POLICY": "ROUND_ROBIN"}, {}).placement.devices
        'MULTI'
    """
    unknown = more.keys() - ServingOptions.__annotations__.keys()
    if unknown:
        raise TypeError(
            f"compile_model() knows no {', '.join(sorted(unknown))}; beyond OpenVINO's arguments it takes"
            f" {', '.join(ServingOptions.__annotations__)}"
        )
    properties = {str(name): value for name, value in config.items()}
    devices = device_name or "AUTO"
    priorities = properties.pop(MULTI_DEVICE_PRIORITIES, None)
    if priorities is not None:
        devices = _with_priorities(devices, as_text(priorities))
    precision = as_text(properties.get(PRECISION, ""))
    if precision in _PLANNED_PRECISIONS:
        del properties[PRECISION]
    if MODEL_PRIORITY in properties:
        # OpenVINO 2026.4 spells it both ways.
        properties[MODEL_PRIORITY] = as_text(properties[MODEL_PRIORITY]).removeprefix("MODEL_PRIORITY_")
    default_hint = Hint.THROUGHPUT if devices.startswith("MULTI") else Hint.LATENCY
    placement = PlacementOptions.parse(
        devices=devices,
        hint=as_text(properties.pop(PERFORMANCE_HINT, default_hint.value)),
        precision=precision if precision in _PLANNED_PRECISIONS else None,
        share_cores=more.get("share_cores", False),
        lease_timeout_s=more.get("lease_timeout_s", PlacementOptions().lease_timeout_s),
        max_replicas=more.get("max_replicas"),
        replica_timeout_s=more.get("replica_timeout_s", PlacementOptions().replica_timeout_s),
        autoscale=more.get("autoscale", False),
    )
    plain = PoolOptions()
    return PoolOptions(
        placement=placement,
        policy=read_policy(properties.pop(SCHEDULE_POLICY, plain.policy.value)),
        device_config=_by_device(properties.pop(DEVICE_PROPERTIES, {})),
        config={name: as_text(value) for name, value in properties.items()},
        batching=_batching(more),
        address=more.get("address"),
        max_requests=more.get("max_requests", plain.max_requests),
        max_bytes=more.get("max_bytes", plain.max_bytes),
        name=more.get("name"),
        lifetime=Lifetime.parse(more.get("lifetime")),
        trace=more.get("trace"),
    )


def as_text(value: Any) -> str:
    """Writes a property's value as OpenVINO reads it.

    Example:
        >>> as_text(True), as_text(ov.Type.f16), as_text(ov.properties.hint.PerformanceMode.LATENCY), as_text(4)
        ('YES', 'f16', 'LATENCY', '4')
    """
    if isinstance(value, ov.OVAny):
        value = value.value
    if isinstance(value, bool):
        return "YES" if value else "NO"
    if isinstance(value, ov.Type):
        return str(value.get_type_name())
    if isinstance(value, str | int | float | os.PathLike):
        return str(value)
    # OpenVINO's enumerations, such as PerformanceMode.
    name = getattr(value, "name", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"a property has the value {value!r} of type {type(value).__name__}; give text, a number, True or"
            " False, or one of openvino.properties"
        )
    return name


def _with_priorities(devices: str, priorities: str) -> str:
    if devices not in ("MULTI", "AUTO"):
        raise ConfigError(
            f"{MULTI_DEVICE_PRIORITIES}={priorities!r} goes with device MULTI or AUTO, not with {devices!r};"
            " nothing was started; write one or the other"
        )
    return f"{devices}:{priorities}"


def read_policy(value: Any) -> SchedulePolicy:
    """Reads ``SCHEDULE_POLICY``.  Raises ConfigError where there is no such policy."""
    name = as_text(value)
    # OpenVINO's own name of its default.
    name = "DEVICE_PRIORITY" if name == "DEFAULT" else name
    if name not in SchedulePolicy.__members__:
        raise ConfigError(
            f"{SCHEDULE_POLICY} {name!r} is unknown; legal are {', '.join(SchedulePolicy.__members__)}; nothing"
            " was started"
        )
    return SchedulePolicy[name]


def _by_device(value: Any) -> dict[str, dict[str, str]]:
    if isinstance(value, ov.OVAny):
        value = value.value
    if not isinstance(value, Mapping) or not all(isinstance(inner, Mapping) for inner in value.values()):
        raise ConfigError(
            f"{DEVICE_PROPERTIES} is {value!r}; give a dictionary of dictionaries: {{'CPU': {{'NUM_STREAMS': 2}}}}"
        )
    return {
        str(device): {str(name): as_text(inner) for name, inner in properties.items()}
        for device, properties in value.items()
    }


def _batching(more: ServingOptions) -> Batching:
    plain = Batching()
    merging = {None: Merging.IF_INDEPENDENT, True: Merging.ALWAYS, False: Merging.NEVER}
    return Batching(
        batch_size=more.get("batch_size", plain.batch_size),
        timeout_ms=more.get("batch_timeout_ms", plain.timeout_ms),
        merging=merging[more.get("rows_are_independent")],
    )
