"""Holds the output tensors of one infer request.

May not enter: the pool, inputs.  Outputs arrive as arrays; they become tensors only for those who ask for tensors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov

from ovray.errors import DataError
from ovray.replica.envelope import TensorShape
from ovray.runtime.ports import Ports, an_empty_tensor, describe
from ovray.runtime.results import Array, OVDict, Text, as_numpy, fresh
from ovray.runtime.tensors import check, contents


class OutputTensors:
    """Owns the outputs of the last inference.  One thread at a time."""

    def __init__(self, ports: Ports) -> None:
        """Starts with tensors of zeros, made when first asked for."""
        self._ports = ports
        self._arrays: Sequence[Array] | None = None
        #: In elements, where a type takes less than a byte.
        self._shapes: Sequence[TensorShape] | None = None
        #: Those that somebody was given or has set; they follow every inference.
        self._tensors: dict[int, ov.Tensor] = {}

    @property
    def are_known_outside(self) -> bool:
        """Whether somebody has a tensor that is to follow every inference."""
        return bool(self._tensors)

    def get(self, index: int) -> ov.Tensor:
        """Gives a tensor that holds the output now and after each further inference."""
        if index not in self._tensors:
            self._tensors[index] = an_empty_tensor(self._ports.outputs[index])
            if self._arrays is not None:
                self._fill(index)
        return self._tensors[index]

    def set(self, index: int, tensor: Any) -> None:
        """Makes a tensor of the caller's the place where an output is written to.

        Raises:
            DataError: its type or shape is not the port's.
            TypeError: it is no Tensor.
        """
        if not isinstance(tensor, ov.Tensor):
            raise TypeError(f"{self._what(index)} was given {type(tensor).__name__}; give an openvino.Tensor")
        if tensor.get_size() or tensor.get_element_type() != self._ports.outputs[index].get_element_type():
            check(tensor, self._ports.outputs[index], self._what(index))
        self._tensors[index] = tensor

    def put(self, arrays: Sequence[Array], shapes: Sequence[TensorShape] | None = None) -> None:
        """Takes in the outputs of an inference, in the order of the ports.

        Args:
            arrays: as ``openvino.Tensor.data`` shows them; text as objects.
            shapes: in elements, where a type takes less than a byte; ``None``: the arrays' own.

        Raises:
            DataError: a tensor that was set has no room for its output.
        """
        self._arrays, self._shapes = arrays, shapes
        for index in self._tensors:
            self._fill(index)

    def copied(self) -> OVDict:
        """Gives copies of the outputs; zeros before the first inference."""
        arrays = self._arrays or self._blank()
        return fresh([as_numpy(array, Text.DECODED).copy() for array in arrays], self._ports)

    def _blank(self) -> Sequence[Array]:
        return [contents(an_empty_tensor(port)) for port in self._ports.outputs]

    def _fill(self, index: int) -> None:
        assert self._arrays is not None, "only outputs that are there are filled in"
        array = self._arrays[index]
        shape = array.shape if self._shapes is None else self._shapes[index]
        _fill(self._tensors[index], array, shape, self._what(index))

    def _what(self, index: int) -> str:
        return f"output {describe(self._ports.outputs[index], index)}"


def _fill(tensor: ov.Tensor, array: Array, shape: TensorShape, what: str) -> None:
    if tuple(tensor.get_shape()) != shape:
        try:
            tensor.shape = ov.Shape(shape)
        except RuntimeError as error:
            raise DataError(
                f"{what} came out as {list(shape)}, and the tensor that was set for it has room for"
                f" {list(tensor.get_shape())}; set a larger one or none"
            ) from error
    if tensor.get_element_type() == ov.Type.string:
        tensor.str_data = array.astype(np.str_)
    else:
        np.copyto(tensor.data, array)
