"""Decides which preparation becomes a part of the model's graph, for which of its inputs, and how values lie.

May not enter: openvino (graph_steps.py builds it in), rows.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ovray.errors import ConfigError
from ovray.replica.signature import Port, Signature
from ovray.scoring.cells import show_port

LAYOUTS = ("NHWC", "NCHW")

#: What ``--color`` turns into what, as OpenVINO names the formats.
COLORS = {"BGR2RGB": ("BGR", "RGB"), "RGB2BGR": ("RGB", "BGR")}

#: A dimension of such a length is taken for that of channels where a model does not say how its input lies.
_CHANNELS = (1, 3, 4)

Size = str | tuple[int, int]
PerChannel = str | float | Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSteps:
    """Says what is done to an input before the model sees it: colour, size, then ``(x - mean) / scale``."""

    #: How the rows' values lie, where not as the model wants them.
    layout: str | None = None
    #: Height and width that pictures get.
    resize: tuple[int, int] | None = None
    #: One value, or one for each channel, in the order that the model sees; empty for none.
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    color: str | None = None

    @staticmethod
    def parse(
        *,
        layout: str | None = None,
        resize: Size | None = None,
        mean: PerChannel | None = None,
        scale: PerChannel | None = None,
        color: str | None = None,
    ) -> "GraphSteps":
        """Reads what a caller wrote, as text or as values.

        Raises:
            ConfigError: an option is not what it can be; the message says what it can.
        """
        if layout is not None and layout not in LAYOUTS:
            raise ConfigError(f"--layout {layout!r}: give {' or '.join(LAYOUTS)}, as the values lie in the data")
        if color is not None and color not in COLORS:
            raise ConfigError(f"--color {color!r}: give {' or '.join(COLORS)}")
        divisors = _numbers("--scale", scale)
        if 0 in divisors:
            raise ConfigError(f"--scale {scale!r}: values are divided by it, it cannot be 0")
        return GraphSteps(
            layout=layout,
            resize=None if resize is None else _height_and_width(resize),
            mean=_numbers("--mean", mean),
            scale=divisors,
            color=color,
        )

    @property
    def are_for_pictures(self) -> bool:
        """Says whether any step needs to know which dimensions are height, width and channels."""
        return bool(self.layout or self.resize or self.color)

    @property
    def options(self) -> tuple[str, ...]:
        """Gives the options that were used, for messages."""
        return tuple(f"--{field.name}" for field in fields(self) if getattr(self, field.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInput:
    """Says which input of a model is prepared in its graph, and how its values lie on both sides."""

    steps: GraphSteps
    index: int
    #: The input as the model has it.
    port: Port
    #: Such as ``NCHW``; empty where nothing depends on it.
    model_layout: str
    data_layout: str

    def as_fed(self, signature: Signature) -> Signature:
        """Returns what the model takes once the steps are a part of it: what columns must fit."""
        ports = list(signature.inputs)
        ports[self.index] = replace(self.port, shape=self._data_shape())
        return replace(signature, inputs=tuple(ports))

    def _data_shape(self) -> tuple[int | None, ...] | None:
        if not self.steps.are_for_pictures or self.port.shape is None:
            return self.port.shape
        lengths = dict(zip(self.model_layout, self.port.shape, strict=True))
        if self.steps.resize is not None:
            lengths.update(H=None, W=None)
        return tuple(lengths[name] for name in self.data_layout)


def choose_input(signature: Signature, declared_layouts: Sequence[str], steps: GraphSteps) -> PreparedInput:
    """Returns which input the steps are for.

    Args:
        signature: what the model takes.
        declared_layouts: what it says itself of each input, such as ``NCHW``; empty where it says nothing.
        steps: at least one.

    Raises:
        ConfigError: no input can be meant, or several can; or the steps do not fit the input.
    """
    index = _index_of_input(signature.inputs, steps)
    port = signature.inputs[index]
    declared = declared_layouts[index] if declared_layouts[index] in LAYOUTS else ""
    model_layout = declared or _seen_layout(port, steps)
    _check_channels(port, model_layout, steps)
    if steps.resize is not None:
        _check_size(port, model_layout, steps.resize)
    return PreparedInput(
        steps=steps,
        index=index,
        port=port,
        model_layout=model_layout,
        data_layout=steps.layout or model_layout,
    )


def _index_of_input(ports: Sequence[Port], steps: GraphSteps) -> int:
    options = ", ".join(steps.options)
    pictures = [index for index, port in enumerate(ports) if port.shape is not None and len(port.shape) == 4]
    shown = ", ".join(f"{port.name!r} ({show_port(port)})" for port in ports)
    if steps.are_for_pictures and not pictures:
        raise ConfigError(
            f"{options}: for inputs of pictures, which have four dimensions (rows, channels, height, width); this"
            f" model takes {shown}"
        )
    candidates = pictures if steps.are_for_pictures else list(range(len(ports)))
    if len(candidates) > 1:
        raise ConfigError(
            f"{options}: the model takes {shown}, and it is open which of them is meant; build the steps into the"
            " model with openvino.preprocess, or prepare with a function of your own"
        )
    port = ports[candidates[0]]
    if (steps.mean or steps.scale) and not port.element_type.startswith("f"):
        raise ConfigError(
            f"--mean and --scale make fractions, input {port.name!r} takes {port.element_type}; leave them out"
        )
    return candidates[0]


def _seen_layout(port: Port, steps: GraphSteps) -> str:
    """Returns how an input seems to lie, from where its channels can be; empty where nobody needs to know."""
    if port.shape is None or len(port.shape) != 4:
        # The last dimension of a table is its features, each a channel.
        return "NC" if port.shape is not None and len(port.shape) == 2 else ""
    first, last = port.shape[1] in _CHANNELS, port.shape[3] in _CHANNELS
    if first != last:
        return "NCHW" if first else "NHWC"
    if not steps.are_for_pictures and max(len(steps.mean), len(steps.scale)) == 1:
        return ""
    raise ConfigError(
        f"{', '.join(steps.options)}: which dimension of input {port.name!r} ({show_port(port)}) holds the"
        " channels cannot be seen; name it in the model, with"
        " openvino.layout_helpers.set_layout(model.input(0), 'NCHW')"
    )


def _check_channels(port: Port, layout: str, steps: GraphSteps) -> None:
    channels = port.shape[layout.index("C")] if port.shape is not None and "C" in layout else None
    for option, values in (("--mean", steps.mean), ("--scale", steps.scale)):
        if len(values) > 1 and len(values) != channels:
            having = f"has {channels} channels" if channels else "has no channels of a known number"
            raise ConfigError(
                f"{option}: {len(values)} values, but input {port.name!r} ({show_port(port)}) {having}; give one"
                " value, or one for each channel"
            )
    if steps.color is not None and channels != 3:
        raise ConfigError(
            f"--color {steps.color}: for pictures of three channels; input {port.name!r} is {show_port(port)}"
        )


def _check_size(port: Port, layout: str, size: tuple[int, int]) -> None:
    if port.shape is None:
        return
    has = tuple(port.shape[layout.index(name)] for name in "HW")
    if any(length not in (None, wanted) for length, wanted in zip(has, size, strict=True)):
        takes = "x".join("?" if length is None else str(length) for length in has)
        raise ConfigError(
            f"--resize {size[0]}x{size[1]}: input {port.name!r} ({show_port(port)}) takes pictures of {takes}"
            f" (height x width); give --resize {takes}"
        )


def _height_and_width(size: Size) -> tuple[int, int]:
    numbers = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size) if isinstance(size, str) else None
    if numbers is not None:
        return int(numbers[1]), int(numbers[2])
    if isinstance(size, tuple) and len(size) == 2 and all(isinstance(one, int) and one > 0 for one in size):
        return size
    raise ConfigError(f"--resize {size!r}: give HEIGHTxWIDTH, such as 224x224")


def _numbers(option: str, values: PerChannel | None) -> tuple[float, ...]:
    if values is None:
        return ()
    given: Sequence[Any]
    if isinstance(values, str):
        given = values.split(",")
    else:
        given = [values] if isinstance(values, (int, float)) else list(values)
    try:
        numbers = tuple(float(value) for value in given)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"{option} {values!r}: give one number, or one for each channel with commas between")
    return numbers
