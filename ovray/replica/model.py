"""Reads a model where the driver runs, says what it takes and gives, and packs it for the replicas.

May not enter: ray, devices, compiled models.  Reading touches no plugin, so the driver's affinity stays its own.
What is done with the model on a device: engine.py.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov

from ovray.errors import ConfigError
from ovray.replica.signature import PackedModel, Port, Signature

#: Element types whose tensors NumPy cannot hold as they are; the graph converts them at its edge instead.
_EDGE_TYPES = {"bf16": "f32", "f8e4m3": "f32", "f8e5m2": "f32", "nf4": "f32", "u1": "u8", "u4": "u8", "i4": "i8"}


def read_model(model: str | Path | ov.Model) -> ov.Model:
    """Reads whatever OpenVINO reads; a model that is already in memory is copied.

    Raises:
        ConfigError: the file is missing or holds no model that OpenVINO understands.

    Example:
        >>> read_model("no-such-file.onnx")
        Traceback (most recent call last):
        ovray.errors.ConfigError: model 'no-such-file.onnx' does not exist; ...
    """
    if isinstance(model, ov.Model):
        return model.clone()
    if not Path(model).exists():
        raise ConfigError(
            f"model {str(model)!r} does not exist; give a file that OpenVINO reads: .xml, .onnx, .tflite, .pb or"
            " .pdmodel"
        )
    try:
        return ov.Core().read_model(model)
    except RuntimeError as error:
        raise ConfigError(
            f"model {str(model)!r} is no model that OpenVINO can read ({last_line(error)}); give an .xml (with its"
            " .bin beside it), .onnx, .tflite, .pb or .pdmodel file"
        ) from error


def describe(model: ov.Model) -> Signature:
    """Says what a model takes and gives."""
    return Signature(
        name=model.get_friendly_name(),
        inputs=tuple(_port(port, f"input_{index}") for index, port in enumerate(model.inputs)),
        outputs=tuple(_port(port, f"output_{index}") for index, port in enumerate(model.outputs)),
    )


def with_plain_types(model: ov.Model) -> ov.Model:
    """Gives every port an element type that NumPy has, by a conversion inside the graph where it has none."""
    edges = [port.get_element_type().get_type_name() for port in (*model.inputs, *model.outputs)]
    if not any(edge in _EDGE_TYPES for edge in edges):
        return model
    steps = ov.preprocess.PrePostProcessor(model)
    for index, port in enumerate(model.inputs):
        plain = _EDGE_TYPES.get(port.get_element_type().get_type_name())
        if plain is not None:
            steps.input(index).tensor().set_element_type(ov.Type(np.dtype(_NUMPY_NAMES[plain])))
    for index, port in enumerate(model.outputs):
        plain = _EDGE_TYPES.get(port.get_element_type().get_type_name())
        if plain is not None:
            steps.output(index).tensor().set_element_type(ov.Type(np.dtype(_NUMPY_NAMES[plain])))
    return steps.build()


_NUMPY_NAMES = {"f32": "float32", "u8": "uint8", "i8": "int8"}


def reshape(model: ov.Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Gives the inputs of a model these static shapes, by name.

    Raises:
        ConfigError: the graph cannot take them.
    """
    by_index = {
        index: ov.PartialShape(list(shapes[port.name])) for index, port in enumerate(describe(model).inputs)
    }
    try:
        model.reshape(by_index)
    except RuntimeError as error:
        wanted = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ConfigError(f"the model cannot take inputs of the shape {wanted}: {last_line(error)}") from error


def pack(model: ov.Model) -> PackedModel:
    """Packs a model as IR, weights as they are (no compression to half precision)."""
    with tempfile.TemporaryDirectory(prefix="ovray-pack-") as folder:
        xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        ov.serialize(model, xml, weights)
        return PackedModel(xml=xml.read_bytes(), weights=np.fromfile(weights, dtype=np.uint8))


def unpack(packed: PackedModel) -> ov.Model:
    """Makes a model of its packed form.  The weights are copied: Ray's arrays are read-only."""
    weights = ov.Tensor(ov.Type.u8, ov.Shape([packed.weights.size]))
    np.copyto(weights.data, packed.weights)
    return ov.Core().read_model(packed.xml, weights)


def _port(port: ov.Output, fallback: str) -> Port:
    names = tuple(sorted(port.get_names()))
    return Port(
        name=port.get_any_name() if names else fallback,
        names=names,
        shape=_dimensions(port.get_partial_shape()),
        element_type=port.get_element_type().get_type_name(),
    )


def _dimensions(shape: ov.PartialShape) -> tuple[int | None, ...] | None:
    if shape.rank.is_dynamic:
        return None
    return tuple(dimension.get_length() if dimension.is_static else None for dimension in shape)


def last_line(error: RuntimeError) -> str:
    """Takes the line out of an OpenVINO error that tells its cause: the last, below file names and frames."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
