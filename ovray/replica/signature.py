"""Says what a model takes and gives, and holds one that travels: plain records.

May not enter: openvino.  Who fills them: model.py.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Describes one input or output of a model."""

    #: The port's own name, or ``input_0`` / ``output_0`` where the model gives none.
    name: str
    #: All of its names.
    names: tuple[str, ...]
    #: Dimensions; ``None`` where dynamic.  ``None`` as a whole where even the rank is dynamic.
    shape: tuple[int | None, ...] | None
    #: OpenVINO's element type as text: ``f32``, ``u8``, ``string``.
    element_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Describes what a model takes and gives."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedModel:
    """Holds a model as OpenVINO IR, ready to travel.  Through Ray's object store it goes once to each host."""

    xml: bytes
    #: uint8[bytes]; an array, because Ray shares arrays between the processes of a host without a copy.
    weights: NDArray[np.uint8]
