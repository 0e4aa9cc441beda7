"""Makes shapes and inputs as ``benchmark_app`` makes them: by its own code, which is in OpenVINO's wheel.

May not enter: devices, requests.  The same flags mean the same shapes, batches and random values there and here.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openvino as ov

from ovray.benching.options import Shapes
from ovray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class InputGroup:
    """Is the input of one request."""

    #: By the index of the model's input.
    tensors: dict[int, ov.Tensor]
    #: As ``benchmark_app`` counts them: what FPS are made of.
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchInputs:
    """Holds what is sent, in turn."""

    groups: tuple[InputGroup, ...]
    #: As ``benchmark_app`` prints it; ``?`` where shapes of several batches are sent.
    batch: str
    #: Whether the model was given other shapes.
    is_reshaped: bool


def prepare(model: ov.Model, shapes: Shapes) -> BenchInputs:
    """Gives the model the shapes that are wanted, and makes inputs of random values.

    Raises:
        ConfigError: the shapes cannot be read, do not fit the model, or are open and no ``-data_shape`` is given.
    """
    with _benchmark_app():
        from openvino.tools.benchmark.utils.inputs_filling import get_input_data
        from openvino.tools.benchmark.utils.utils import get_inputs_info, get_network_batch_size

        try:
            infos, is_reshaped = get_inputs_info(
                *(shapes.shape, shapes.data_shape, shapes.layout, shapes.batch, "", ""), model.inputs
            )
            batch = get_network_batch_size(infos)
            if is_reshaped:
                model.reshape({index: info.partial_shape for index, info in enumerate(infos)})
            queue = get_input_data([], infos)
        except Exception as error:  # (benchmark_app raises Exception itself)
            raise ConfigError(
                f"the inputs cannot be made: {_first_line(error)}; nothing was started; the model takes"
                f" {', '.join(map(_described, model.inputs))}; say more with -b, -shape, -data_shape or -layout"
            ) from error
    groups = []
    for _ in range(max(len(tensors) for tensors in queue.input_data.values())):
        frames = int(queue.get_next_batch_size())
        groups.append(InputGroup(tensors=queue.get_next_input(), frames=frames))
    if batch.is_dynamic and len({group.frames for group in groups}) == 1:
        batch = ov.Dimension(groups[0].frames)
    return BenchInputs(groups=tuple(groups), batch=str(batch), is_reshaped=bool(is_reshaped))


@contextmanager
def _benchmark_app() -> Iterator[None]:
    """Keeps ``benchmark_app``'s remarks off standard output: it sets up the root logger when it is imported."""
    root, silence = logging.getLogger(), logging.NullHandler()
    root.addHandler(silence)
    try:
        yield
    finally:
        root.removeHandler(silence)


def _described(port: Any) -> str:
    name = f"{port.get_any_name()} " if port.get_names() else ""
    return f"{name}{port.get_element_type().get_type_name()}{port.get_partial_shape()}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
