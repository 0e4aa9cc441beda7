"""Answers OpenVINO's properties of a compiled model that runs on many devices at once.

May not enter: setting, options before compiling (options.py).  What only a device knows, a replica is asked.
"""

from collections.abc import Callable, Mapping
from typing import Any

import openvino as ov
from openvino.properties import hint, intel_auto

from ovray.errors import ConfigError
from ovray.replica.compiling import TypeName
from ovray.runtime.serving import Serving

Answer = Callable[[Serving], Any]


def _performance_hint(serving: Serving) -> Any:
    return getattr(hint.PerformanceMode, serving.options.placement.hint.value)


def _schedule_policy(serving: Serving) -> Any:
    # OpenVINO has no name for ours beyond its two.
    return getattr(intel_auto.SchedulePolicy, serving.options.policy.name, serving.options.policy.name)


def _device_properties(serving: Serving) -> Any:
    return {device: dict(properties) for device, properties in serving.options.device_config.items()}


def _precision(serving: Serving) -> Any:
    precisions = {replica.precision for replica in serving.replicas() if replica.precision}
    if len(precisions) > 1:
        raise ConfigError(
            f"replicas compute in {' and '.join(sorted(precisions))}; compile with INFERENCE_PRECISION_HINT to"
            " have one for all; compiled.stats() shows which has which"
        )
    return getattr(ov.Type, precisions.pop()) if precisions else ov.Type.dynamic


#: What is known without asking a replica.
ANSWERS: Mapping[str, Answer] = {
    "SUPPORTED_PROPERTIES": lambda serving: supported(serving),
    "NETWORK_NAME": lambda serving: serving.ports.model_name,
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS": lambda serving: serving.optimal_requests(),
    "EXECUTION_DEVICES": lambda serving: serving.execution_devices(),
    "MULTI_DEVICE_PRIORITIES": lambda serving: ",".join(serving.priorities),
    "PERFORMANCE_HINT": _performance_hint,
    "INFERENCE_PRECISION_HINT": _precision,
    "SCHEDULE_POLICY": _schedule_policy,
    "DEVICE_PROPERTIES": _device_properties,
}

#: Those that can be set while the model serves.
WRITABLE = ("MULTI_DEVICE_PRIORITIES",)


def read(name: str, serving: Serving) -> Any:
    """Returns the value of a property; one that only a device has is that of the first replica that is ready.

    Raises:
        ConfigError: there is no such property.
    """
    if not isinstance(name, str):
        raise TypeError(f"incompatible property of type {type(name).__name__}; give its name")
    if name in ANSWERS:
        return ANSWERS[name](serving)
    if name in serving.options.config:
        return serving.options.config[name]
    try:
        value = serving.pool.read_property(str(name))  # openvino.properties' names do not travel
    except ConfigError as error:
        raise ConfigError(
            f"Unsupported property {name}: known are {', '.join(supported(serving))}, those given to"
            f" compile_model, and those of the device, which says: {error}"
        ) from error
    return _as_openvino(value)


def _as_openvino(value: Any) -> Any:
    return getattr(ov.Type, value.name) if isinstance(value, TypeName) else value


def supported(serving: Serving) -> dict[str, str]:
    """Says which properties can be read (RO), and which can be set on a live model, too (RW)."""
    return {name: "RW" if name in WRITABLE else "RO" for name in ANSWERS}
