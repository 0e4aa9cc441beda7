"""Finds a model's inputs and outputs by index, name or port, and says what they expect.

May not enter: requests, values.  The ports are those of the model itself: a compiled model lives in the replicas.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import openvino as ov

from ovray.errors import DataError
from ovray.replica.element_types import PACKED_TYPES

#: What a caller may name a port by.
PortKey: TypeAlias = int | str | ov.Output

#: Types of which NumPy holds the values, and not only the bits.
_PLAIN_TYPES = (
    *(ov.Type.boolean, ov.Type.f16, ov.Type.f32, ov.Type.f64),
    *(ov.Type.i8, ov.Type.i16, ov.Type.i32, ov.Type.i64),
    *(ov.Type.u8, ov.Type.u16, ov.Type.u32, ov.Type.u64),
)

_MISFIT = "incompatible key {key!r} of type {type}; give an index from 0, a name or a port of the model"


class Fit:
    """Knows which tensors a port takes: asking the port itself at every request makes new objects each time."""

    def __init__(self, port: ov.Output) -> None:
        self.element_type: ov.Type = port.get_element_type()
        #: NumPy's type of the same elements; ``None`` where NumPy has none, or lays them out otherwise.
        self.dtype = np.dtype(self.element_type.to_dtype()) if self.element_type in _PLAIN_TYPES else None
        shape = port.get_partial_shape()
        self._is_any_rank: bool = shape.rank.is_dynamic
        #: The least and the most of each dimension; -1 is no most.
        self._bounds = (
            () if self._is_any_rank else tuple((size.get_min_length(), size.get_max_length()) for size in shape)
        )
        #: A shape of which that is known.
        self._taken_last: tuple[int, ...] | None = None
        #: Whether the first dimension counts rows.
        self.has_open_batch = len(self._bounds) > 0 and shape[0].is_dynamic

    def takes_array(self, value: Any) -> bool:
        """Says whether a value is an array that the port takes as it is."""
        # Kinds of array that mean more than their bytes, such as masked ones, are for OpenVINO to read.
        if type(value) is not np.ndarray or value.dtype != self.dtype:
            return False
        if value.shape == self._taken_last:
            return True
        if not self.takes(self.element_type, value.shape):
            return False
        self._taken_last = value.shape
        return True

    def takes(self, element_type: ov.Type, shape: Sequence[int]) -> bool:
        """Says whether a tensor of this type and shape is one that the port takes."""
        if element_type != self.element_type:
            return False
        if self._is_any_rank:
            return True
        return len(shape) == len(self._bounds) and all(
            least <= size and (size <= most or most < 0)
            for size, (least, most) in zip(shape, self._bounds, strict=True)
        )


class Ports:
    """Holds the ports of one model.  Nobody else may change that model."""

    def __init__(self, model: ov.Model) -> None:
        """Keeps the model, whose ports live as long as it does."""
        self._model = model
        self.inputs: tuple[ov.Output, ...] = tuple(model.inputs)
        self.outputs: tuple[ov.Output, ...] = tuple(model.outputs)
        self.input_fits: tuple[Fit, ...] = tuple(map(Fit, self.inputs))
        #: Whether NumPy holds the values of all elements, of inputs and outputs.
        self.are_plain = all(port.get_element_type() in _PLAIN_TYPES for port in (*self.inputs, *self.outputs))
        #: Whether there are inputs whose arrays do not show their shape: of elements of less than a byte.
        self.has_packed_inputs = any(
            port.get_element_type().get_type_name() in PACKED_TYPES for port in self.inputs
        )
        #: For each input a tensor of its type and shape, to be looked at and never written into.
        self.blanks: tuple[ov.Tensor, ...] = tuple(an_empty_tensor(port) for port in self.inputs)
        self._input_names = _by_name(self.inputs)
        self._output_names = _by_name(self.outputs)

    def input(self, key: PortKey | None = None) -> ov.Output:
        """Gives an input; without a key the only one."""
        return self.inputs[self.input_index(key)]

    def output(self, key: PortKey | None = None) -> ov.Output:
        """Gives an output; without a key the only one."""
        return self.outputs[self.output_index(key)]

    def input_index(self, key: PortKey | None = None) -> int:
        """Finds an input.

        Raises:
            DataError: there is none, or several and no key.
            TypeError: a key that is neither index, name nor port.
        """
        return _index("input", key, self.inputs, self._input_names)

    def output_index(self, key: PortKey | None = None) -> int:
        """Finds an output.  Errors: as ``input_index``."""
        return _index("output", key, self.outputs, self._output_names)

    def is_output(self, key: str | ov.Output) -> bool:
        """Says whether a name or port is an output's, and not an input's."""
        if isinstance(key, str):
            return key in self._output_names and key not in self._input_names
        return _same_port(key, self.inputs) is None and _same_port(key, self.outputs) is not None

    def by_index(self, inputs: Any) -> Any:
        """Puts indices for the ports among the keys of a dictionary; everything else stays as it is."""
        if not isinstance(inputs, dict) or not any(isinstance(key, ov.Output) for key in inputs):
            return inputs
        return {
            self.input_index(key) if isinstance(key, ov.Output) else key: value for key, value in inputs.items()
        }

    def rows(self, shapes: Sequence[Sequence[int]]) -> int:
        """Says how much work inputs of these shapes are: rows where the batch dimension is open, else 1."""
        for shape, fit in zip(shapes, self.input_fits, strict=True):
            if fit.has_open_batch:
                return max(1, shape[0])
        return 1

    @property
    def model_name(self) -> str:
        """The model's friendly name."""
        return str(self._model.get_friendly_name())

    @property
    def expected(self) -> str:
        """Says what the model takes, for messages."""
        expected = "the model takes " + ", ".join(describe(port, index) for index, port in enumerate(self.inputs))
        if self.has_packed_inputs:
            expected += "; give elements of less than a byte as openvino.Tensor(packed_bytes, shape, type)"
        return expected

    def __str__(self) -> str:
        inputs, outputs = (",\n".join(map(repr, ports)) for ports in (self.inputs, self.outputs))
        return f"inputs[\n{inputs}\n]\noutputs[\n{outputs}\n]"


def describe(port: ov.Output, index: int) -> str:
    """Names a port with its type and shape: ``input 0 'features' f32[?,32]`` without the word before."""
    name = f"{port.get_any_name()!r} " if port.get_names() else ""
    return f"{index} {name}{port.get_element_type().get_type_name()}{port.get_partial_shape()}"


def an_empty_tensor(port: ov.Output) -> ov.Tensor:
    """Makes a tensor of zeros for a port; open dimensions are 0 long, as OpenVINO's are before an inference."""
    shape = port.get_partial_shape()
    lengths = [0] if shape.rank.is_dynamic else [size.get_length() if size.is_static else 0 for size in shape]
    tensor = ov.Tensor(port.get_element_type(), ov.Shape(lengths))
    if port.get_element_type() != ov.Type.string:
        tensor.data.fill(0)
    return tensor


def _by_name(ports: Sequence[ov.Output]) -> dict[str, int]:
    return {name: index for index, port in enumerate(ports) for name in port.get_names()}


def _index(kind: str, key: PortKey | None, ports: Sequence[ov.Output], names: dict[str, int]) -> int:
    found: int | None
    if key is None:
        found = 0 if len(ports) == 1 else None
    elif isinstance(key, str):
        found = names.get(key)
    elif isinstance(key, ov.Output):
        found = _same_port(key, ports)
    elif isinstance(key, int) and key >= 0:
        found = key if key < len(ports) else None
    else:
        raise TypeError(_MISFIT.format(key=key, type=type(key).__name__))
    if found is None:
        which = f"several {kind}s, say which" if key is None else f"no {kind} {key!r}"
        legal = ", ".join(describe(port, index) for index, port in enumerate(ports))
        raise DataError(f"the model has {which}; its {kind}s are {legal}")
    return found


def _same_port(key: ov.Output, ports: Sequence[ov.Output]) -> int | None:
    """Finds a port as OpenVINO does: also that of the model which was compiled, or of another copy of it."""
    node = key.get_node()
    for index, port in enumerate(ports):
        if port == key:
            return index
    for index, port in enumerate(ports):
        own = port.get_node()
        if (
            port.get_index() == key.get_index()
            and own.get_friendly_name() == node.get_friendly_name()
            and own.get_type_name() == node.get_type_name()
        ):
            return index
    return None
