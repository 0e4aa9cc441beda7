"""Gives OpenVINO's names to the tensors of an infer request: getting and setting, by index, name or port.

May not enter: starting, waiting.  What tensors may be: tensors.py and output_tensors.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import openvino as ov

from ovray.driver.carriage import TensorStorage
from ovray.runtime.output_tensors import OutputTensors
from ovray.runtime.ports import PortKey, Ports
from ovray.runtime.tensors import InputTensors


class TensorAccess(ABC):
    """Is the part of ``InferRequest`` that deals in tensors.

    Every method raises ``DataError`` (a RuntimeError) where there is no such port, a tensor has not the port's
    type or shape, or the request is running; and ``TypeError`` where something is no ``openvino.Tensor``.

    A tensor over memory of the caller's, ``openvino.Tensor(array, shared_memory=True)``, is read anew at each
    inference: write into the array, infer, and write again.

    Example:
        >>> request = compiled.create_infer_request()
        >>> image = np.zeros((1, 32), np.float32)
        >>> request.set_input_tensor(ov.Tensor(image, shared_memory=True))
        >>> dark = request.infer()["total"]
        >>> image.fill(1)
        >>> bool((request.infer()["total"] != dark).all())
        True
    """

    def __init__(self, ports: Ports, storage: TensorStorage) -> None:
        """Starts with tensors of zeros; ``storage`` is where inputs may lie that are on their way."""
        self._ports = ports
        self._inputs = InputTensors(ports, storage)
        self._outputs = OutputTensors(ports)

    @abstractmethod
    def _check_idle(self) -> None:
        """Raises where the request is running; takes in what the last inference left."""

    @property
    def model_inputs(self) -> list[ov.Output]:
        """The inputs of the model."""
        return list(self._ports.inputs)

    @property
    def model_outputs(self) -> list[ov.Output]:
        """The outputs of the model."""
        return list(self._ports.outputs)

    @property
    def input_tensors(self) -> list[ov.Tensor]:
        """All input tensors; what is written into them is inferred next."""
        self._check_idle()
        return [self._inputs.give_out(index) for index in range(len(self._ports.inputs))]

    @property
    def output_tensors(self) -> list[ov.Tensor]:
        """All output tensors; each inference writes into them."""
        self._check_idle()
        return [self._outputs.get(index) for index in range(len(self._ports.outputs))]

    def get_tensor(self, key: str | ov.Output) -> ov.Tensor:
        """Returns the tensor of an input or output, by name or port."""
        if self._ports.is_output(_name_or_port(key)):
            return self.get_output_tensor(self._ports.output_index(key))
        return self.get_input_tensor(self._ports.input_index(key))

    def get_input_tensor(self, index: int | None = None) -> ov.Tensor:
        """Returns the tensor of an input; without an index, of the only one."""
        self._check_idle()
        return self._inputs.give_out(self._ports.input_index(_index(index)))

    def get_output_tensor(self, index: int | None = None) -> ov.Tensor:
        """Returns the tensor of an output; without an index, of the only one."""
        self._check_idle()
        return self._outputs.get(self._ports.output_index(_index(index)))

    def set_tensor(self, key: str | ov.Output, tensor: ov.Tensor) -> None:
        """Makes a tensor the input or output of this name or port."""
        self._check_idle()
        if self._ports.is_output(_name_or_port(key)):
            self._outputs.set(self._ports.output_index(key), tensor)
        else:
            self._inputs.set(self._ports.input_index(key), tensor)

    @overload
    def set_input_tensor(self, index: int, tensor: ov.Tensor) -> None: ...
    @overload
    def set_input_tensor(self, tensor: ov.Tensor) -> None: ...
    def set_input_tensor(self, *args: Any, **named: Any) -> None:
        """Makes a tensor the input with this index; without an index, the only input."""
        self._check_idle()
        index, tensor = _index_and("tensor", args, named)
        self._inputs.set(self._ports.input_index(index), tensor)

    @overload
    def set_output_tensor(self, index: int, tensor: ov.Tensor) -> None: ...
    @overload
    def set_output_tensor(self, tensor: ov.Tensor) -> None: ...
    def set_output_tensor(self, *args: Any, **named: Any) -> None:
        """Makes a tensor the place of the output with this index; without an index, of the only output."""
        self._check_idle()
        index, tensor = _index_and("tensor", args, named)
        self._outputs.set(self._ports.output_index(index), tensor)

    @overload
    def set_tensors(self, inputs: Mapping[PortKey, ov.Tensor]) -> None: ...
    @overload
    def set_tensors(self, key: str | ov.Output, tensors: Sequence[ov.Tensor]) -> None: ...
    def set_tensors(self, *args: Any, **named: Any) -> None:
        """Sets several inputs or outputs; or several tensors that are joined to the batch of one input."""
        self._check_idle()
        given = [*args, *named.values()]
        if len(given) == 2:
            self._inputs.set_parts(self._ports.input_index(_name_or_port(given[0])), _several(given[1]))
            return
        if len(given) != 1 or not isinstance(given[0], Mapping):
            raise TypeError("takes (inputs), a dictionary, or (name or port, tensors)")
        for key, tensor in given[0].items():
            if isinstance(key, int):
                self._inputs.set(self._ports.input_index(key), tensor)
            else:
                self.set_tensor(key, tensor)

    @overload
    def set_input_tensors(self, inputs: Mapping[int, ov.Tensor]) -> None: ...
    @overload
    def set_input_tensors(self, tensors: Sequence[ov.Tensor]) -> None: ...
    @overload
    def set_input_tensors(self, index: int, tensors: Sequence[ov.Tensor]) -> None: ...
    def set_input_tensors(self, *args: Any, **named: Any) -> None:
        """Sets inputs by index; or several tensors that are joined to the batch of one input."""
        self._check_idle()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for index, tensor in args[0].items():
                self._inputs.set(self._ports.input_index(_index(index)), tensor)
            return
        index, tensors = _index_and("tensors", args, named)
        self._inputs.set_parts(self._ports.input_index(index), _several(tensors))

    def set_output_tensors(self, outputs: Mapping[int, ov.Tensor]) -> None:
        """Sets outputs by index."""
        self._check_idle()
        for index, tensor in outputs.items():
            self._outputs.set(self._ports.output_index(_index(index)), tensor)


def _index(index: Any) -> int | None:
    if index is not None and (not isinstance(index, int) or index < 0):
        raise TypeError(f"incompatible index {index!r} of type {type(index).__name__}; give a whole number from 0")
    return index


def _name_or_port(key: Any) -> str | ov.Output:
    if not isinstance(key, str | ov.Output):
        raise TypeError(
            f"incompatible key {key!r} of type {type(key).__name__}; give a name or a port of the model"
        )
    return key


def _index_and(what: str, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[int | None, Any]:
    """Tells ``(index, value)`` from ``(value)``, as OpenVINO's overloads do."""
    given = {**dict(zip(("index", what) if len(args) + len(named) > 1 else (what,), args, strict=False)), **named}
    if what not in given or given.keys() - {"index", what} or len(args) > 2:
        raise TypeError(f"takes ({what}) or (index, {what}), not {args or named}")
    return _index(given.get("index")), given[what]


def _several(tensors: Iterable[Any]) -> list[ov.Tensor]:
    several = list(tensors)
    for tensor in several:
        if not isinstance(tensor, ov.Tensor):
            raise TypeError(f"incompatible tensor of type {type(tensor).__name__}; give a list of openvino.Tensor")
    if not several:
        raise TypeError("an empty list of tensors; give at least one")
    return several
