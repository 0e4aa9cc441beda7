"""Decides how pictures are decoded so that they become an input of a model: their size, channels and type.

May not enter: files, decoding; what the graph does afterwards (preparation.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa

from ovray.errors import ConfigError
from ovray.replica.signature import Port, Signature
from ovray.scoring.cells import row_size, show_port
from ovray.scoring.picture_files import Form
from ovray.scoring.pictures import MODES
from ovray.scoring.preparation import GraphSteps, choose_input

#: How pictures lie once they are decoded.
_LAYOUT = "NHWC"

Size = tuple[int, int]


def fit_pictures(
    signature: Signature, declared_layouts: Sequence[str], steps: GraphSteps, first_size: Callable[[], Size]
) -> tuple[Form, GraphSteps]:
    """Returns the form in which pictures are to come, and the steps that are left for the graph.

    Args:
        signature: what the model takes.
        declared_layouts: what it says itself of each input.
        steps: as the caller asked for them.
        first_size: reads height and width of the first picture; called where nothing else says them.

    Raises:
        ConfigError: pictures cannot become an input of the model, or it is open how.
    """
    if steps.layout not in (None, _LAYOUT):
        raise ConfigError(f"--layout {steps.layout}: pictures are read as {_LAYOUT}; leave --layout out")
    if not any(port.shape is not None and len(port.shape) == len(_LAYOUT) for port in signature.inputs):
        return _fit_flat(signature.inputs, steps, first_size)
    steps = replace(steps, layout=_LAYOUT)
    prepared = choose_input(signature, declared_layouts, steps)
    port = prepared.port
    assert port.shape is not None
    lengths = dict(zip(prepared.model_layout, port.shape, strict=True))
    channels = lengths["C"] or 3
    if channels not in MODES:
        raise ConfigError(
            f"input {port.name!r} ({show_port(port)}) takes {channels} channels; pictures are read with"
            f" {' or '.join(map(str, MODES))}; prepare them with a function of your own"
        )
    height, width = lengths["H"], lengths["W"]
    known = None if height is None or width is None else (height, width)
    form = _form(steps.resize or known or first_size(), channels, port, steps)
    return form, replace(steps, resize=None)


def _fit_flat(ports: Sequence[Port], steps: GraphSteps, first_size: Callable[[], Size]) -> tuple[Form, GraphSteps]:
    """Fits pictures to an input that takes their values as one list: grey ones, where it has a value a pixel."""
    for port in ports:
        if port.shape is not None and len(port.shape) == 3 and 3 in (port.shape[0], port.shape[2]):
            raise ConfigError(
                f"input {port.name!r} ({show_port(port)}) has no dimension for rows: give the model one, as in"
                " [1,3,224,224], so that it is plain how pictures lie in it"
            )
    size = steps.resize or first_size()
    grey = [port for port in ports if row_size(port) == size[0] * size[1]]
    return _form(size, 1 if grey else 3, (grey or list(ports))[0], steps), replace(steps, resize=None)


def _form(size: Size, channels: int, port: Port, steps: GraphSteps) -> Form:
    makes_fractions = steps.resize is not None and port.element_type.startswith("f")
    return Form(
        height=size[0],
        width=size[1],
        channels=channels,
        type=pa.float32() if makes_fractions else pa.uint8(),
        resizes=steps.resize is not None,
    )
