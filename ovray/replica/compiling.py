"""Compiles a model for a device, and reads back from OpenVINO what came of it.

May not enter: ray, inferences.  Whoever calls has pinned the process before: see pinning.py.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import openvino as ov

from ovray.errors import CompileError, ConfigError
from ovray.replica.model import last_line


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeName:
    """Stands for an ``openvino.Type``, which does not travel."""

    #: ``f32``, ``bf16`` ...
    name: str


def compile_for(device: str, model: ov.Model, properties: Mapping[str, str]) -> tuple[ov.CompiledModel, float]:
    """Compiles; returns the compiled model and the seconds that it took.

    Raises:
        CompileError: OpenVINO refused the model or a property.
    """
    began_s = time.monotonic()
    try:
        compiled = _core().compile_model(model, device, dict(properties))
    except RuntimeError as error:
        raise CompileError(f"{device} cannot run the model: {last_line(error)}") from error
    _refuse_fixed_bits(device, model)
    return compiled, time.monotonic() - began_s


@cache
def _core() -> ov.Core:
    """Returns the one of this process, which stays to its end.

    OpenVINO's CPU plugin (2026.4.1) gives a signal stack to the thread that loads it, and frees it with its Core.
    Two Cores that go in another order than the opposite of how they came, or one that another thread lets go of,
    leave the thread with a stack that is no more: the next signal, Ctrl-C for one, is a segmentation fault.
    """
    return ov.Core()


def _refuse_fixed_bits(device: str, model: ov.Model) -> None:
    """Refuses what OpenVINO's CPU plugin (2026.4.1) compiles and then refuses at each inference.

    It computes u1 with a byte for each element, and finds that the output tensor has another number of bytes.
    """
    for index, port in enumerate(model.outputs):
        is_fixed_u1 = port.get_element_type() == ov.Type.u1 and port.get_partial_shape().is_static
        if device == "CPU" and is_fixed_u1 and math.prod(port.get_shape()) > 1:
            raise CompileError(
                f"CPU cannot run the model: output {index} is of u1 and of the fixed shape {port.get_shape()},"
                " which OpenVINO's CPU plugin compiles and cannot infer; convert it to u8 in the graph, or give"
                " the model an open dimension"
            )


def requests_wanted(compiled: ov.CompiledModel, properties: Mapping[str, str]) -> int:
    """Says how many infer requests are to run side by side: what was asked for, else OpenVINO's optimum."""
    asked = properties.get("PERFORMANCE_HINT_NUM_REQUESTS")
    optimal = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    return int(asked) if asked else max(optimal, 1)


def whole_number(compiled: ov.CompiledModel, name: str) -> int | None:
    """Reads a property that counts; ``None`` where this device does not have it."""
    text = text_property(compiled, name)
    return int(text) if text.isdigit() else None


def text_property(compiled: ov.CompiledModel, name: str) -> str:
    """Reads a property as text; empty where this device does not have it."""
    if name not in compiled.get_property("SUPPORTED_PROPERTIES"):
        return ""
    value = compiled.get_property(name)
    return value.get_type_name() if isinstance(value, ov.Type) else str(value)


def plain_property(compiled: ov.CompiledModel, name: str) -> Any:
    """Reads a property as OpenVINO gives it, but for ``openvino.Type``, which becomes a ``TypeName``.

    Raises:
        ConfigError: this device has no such property.
    """
    try:
        return _that_travels(compiled.get_property(name))
    except RuntimeError as error:
        raise ConfigError(f"the compiled model has no property {name!r} ({last_line(error)})") from error


def _that_travels(value: Any) -> Any:
    if isinstance(value, ov.Type):
        return TypeName(name=value.get_type_name())
    if isinstance(value, dict):
        return {key: _that_travels(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(_that_travels(each) for each in value)
    return value
