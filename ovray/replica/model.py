"""Reads a model where the driver runs, says what it takes and gives, and packs it for the replicas.

May not enter: ray, devices, compiled models.  Reading touches no plugin, so the driver's affinity stays its own.
"""

from dataclasses import dataclass


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
