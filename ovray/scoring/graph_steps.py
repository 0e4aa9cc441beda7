"""Builds preparation into a model's graph, by OpenVINO's PrePostProcessor.

What is prepared on the device need not be prepared before: pictures travel as bytes, a quarter of what floats are.
May not enter: which steps, for which input (preparation.py decides).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import openvino as ov
import pyarrow as pa

from ovray.errors import ConfigError
from ovray.replica.model import last_line
from ovray.scoring.cells import show_port
from ovray.scoring.columns import Binding
from ovray.scoring.preparation import COLORS, PreparedInput


def declared_layouts(model: ov.Model) -> list[str]:
    """Returns how each input lies as far as the model itself says, such as ``NCHW``; empty where it does not."""
    layouts = [str(ov.layout_helpers.get_layout(port)) for port in model.inputs]
    return ["".join(letter for letter in layout if letter.isalpha()) for layout in layouts]


def build_in(
    model: ov.Model, prepared: PreparedInput, bindings: Sequence[Binding], value_types: Sequence[pa.DataType]
) -> tuple[Binding, ...]:
    """Makes the steps a part of the graph; returns the bindings for what it takes then.

    Bytes stay bytes up to the graph.  That is exact: every u8 is the same number in f32, f16 and bf16.

    Args:
        model: is changed in place.
        prepared: what ``choose_input`` decided.
        bindings: of columns to what ``as_fed`` says.
        value_types: of all that feeds the input.

    Raises:
        ConfigError: OpenVINO cannot do these steps on this input.
    """
    bound = bindings[prepared.index]
    is_float = bound.element_type.startswith("f")
    if is_float and all(kind == pa.uint8() for kind in value_types):
        bound = replace(bound, element_type="u8")
    try:
        _insert(model, prepared, bound)
    except RuntimeError as error:
        raise ConfigError(
            f"{', '.join(prepared.steps.options)} cannot be done for input {prepared.port.name!r}"
            f" ({show_port(prepared.port)}): {last_line(error)}"
        ) from error
    return (*bindings[: prepared.index], bound, *bindings[prepared.index + 1 :])


def _insert(model: ov.Model, prepared: PreparedInput, bound: Binding) -> None:
    steps = prepared.steps
    processor = ov.preprocess.PrePostProcessor(model)
    info = processor.input(prepared.index)
    if bound.element_type == "u8":
        info.tensor().set_element_type(ov.Type.u8)
    if prepared.model_layout:
        info.model().set_layout(ov.Layout(prepared.model_layout))
        info.tensor().set_layout(ov.Layout(prepared.data_layout))
    doing = info.preprocess()
    if prepared.port.element_type.startswith("f"):
        # First of all: resizing would else round to whole numbers.
        doing.convert_element_type(ov.Type.f32)
    if steps.color is not None:
        found, wanted = (getattr(ov.preprocess.ColorFormat, name) for name in COLORS[steps.color])
        info.tensor().set_color_format(found)
        doing.convert_color(wanted)
    if steps.resize is not None:
        info.tensor().set_spatial_dynamic_shape()
        doing.resize(ov.preprocess.ResizeAlgorithm.RESIZE_LINEAR, *steps.resize)
    for do, values in ((doing.mean, steps.mean), (doing.scale, steps.scale)):
        _for_each_channel(do, values)
    processor.build()


def _for_each_channel(do: Callable[[Any], Any], values: tuple[float, ...]) -> None:
    if values:
        do(values[0] if len(values) == 1 else list(values))
