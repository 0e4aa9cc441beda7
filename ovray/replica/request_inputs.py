"""Gives the tensors of requests to one infer request of OpenVINO: copied into its own, or lent to it.

May not enter: ray, queues, outputs.  Caller: openvino_requests.py.

Lending saves a copy: for a picture of 600 KB, 0.4 of the 8.7 ms of CPU that squeezenet takes (two cores, others
busy).  It is safe for models whose inputs have fixed shapes: on dynamic CPU models an inference that copies its
input may write it into the array that an earlier inference had been lent, long after that array was freed.
OpenVINO only reads what it is lent; a driver's memory is mapped read-only here, so a fault there would end this
process and not change the request.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ovray.replica.element_types import NUMPY_TYPES, PACKED_TYPES, TEXT, to_bytes
from ovray.replica.envelope import Request, TensorShape
from ovray.replica.joining import joined_shape, lay_into
from ovray.replica.request_check import shape_of
from ovray.replica.signature import Port

#: Smaller ones are copied sooner than a tensor is made for them.
_LENT_FROM_BYTES = 16 << 10

#: What OpenVINO aligns its own tensors to; kernels may be slower, or ask for it.
_ALIGNMENT = 64

#: Of more places than a driver has requests under way, few come again.
_TENSORS_KEPT = 256

#: NumPy has no such elements: a tensor made of its arrays would have another type than the port.
_HELD_BY_OTHER_TYPES = {"bf16", "f8e4m3", "f8e5m2", "f8e8m0"}


class RequestInputs:
    """Fills the inputs of one infer request.  One thread uses it."""

    def __init__(self, request: ov.InferRequest, ports: Sequence[Port], *, may_lend: bool) -> None:
        """Takes over an infer request whose tensors are all its own.

        Args:
            request: the infer request.
            ports: the inputs of its model.
            may_lend: whether the device can read the memory of this process as it lies.
        """
        self._request = request
        self._ports = ports
        self._own = [_OwnTensor(request.get_input_tensor(index)) for index in range(len(ports))]
        # All or none: see above.
        self._lends = may_lend and all(map(_can_be_lent, ports))
        #: Inputs that do not point to the infer request's own tensor now.
        self._astray: set[int] = set()
        #: Tensors by input and address.  They hold no memory: whoever comes with an array there does.
        self._tensors: dict[tuple[int, int], ov.Tensor] = {}

    def fill(self, request: Request) -> None:
        """Gives OpenVINO the tensors of one request, which must live until the inference is over.

        Raises:
            RuntimeError, TypeError, ValueError: OpenVINO cannot take them.
        """
        for index, (port, array) in enumerate(zip(self._ports, request.tensors, strict=True)):
            if self._lends and array.nbytes >= _LENT_FROM_BYTES and array.flags.c_contiguous:
                address = array.__array_interface__["data"][0]
                if address % _ALIGNMENT == 0:
                    self._request.set_input_tensor(index, self._tensor_at(index, address, array))
                    self._astray.add(index)
                    continue
            own = self._own_tensor(index)
            own.take_shape(shape_of(request, index))
            if port.element_type == TEXT:
                _fill_text(own.tensor, array)
            else:
                own.data[...] = array

    def fill_joined(self, requests: Sequence[Request], axes: Sequence[int]) -> None:
        """Copies the tensors of several requests, one behind the other.

        Args:
            requests: at least one; equal but for the rows.
            axes: the dimension of each input that counts the rows.

        Raises:
            RuntimeError, TypeError, ValueError: OpenVINO cannot take them.
        """
        for index, (port, axis) in enumerate(zip(self._ports, axes, strict=True)):
            arrays = [request.tensors[index] for request in requests]
            own = self._own_tensor(index)
            own.take_shape(joined_shape(arrays, axis))
            if port.element_type == TEXT:
                _fill_text(own.tensor, np.concatenate(arrays, axis=axis))
            else:
                lay_into(own.data, arrays, axis)

    def _tensor_at(self, index: int, address: int, array: NDArray[Any]) -> ov.Tensor:
        """Gives a tensor of what lies at an address; making one takes 0.1 ms between inferences, with cold caches.

        A driver's memory must not be held when the driver is gone.  OpenVINO may still point there, but does not
        look before it is given another tensor.
        """
        tensor = self._tensors.get((index, address))
        if tensor is None:
            if len(self._tensors) >= _TENSORS_KEPT:
                self._tensors.clear()
            tensor = ov.Tensor(np.asarray(_Writable(array, address)), shared_memory=True)
            self._tensors[index, address] = tensor
        return tensor

    def _own_tensor(self, index: int) -> "_OwnTensor":
        """Gives the infer request's own tensor, which is its input then."""
        if index in self._astray:
            self._astray.remove(index)
            self._request.set_input_tensor(index, self._own[index].tensor)
        return self._own[index]


class _OwnTensor:
    """Is an infer request's own tensor, which nobody else reshapes: to ask it for its shape takes 20 us."""

    def __init__(self, tensor: ov.Tensor) -> None:
        self.tensor = tensor
        self._shape: TensorShape | None = None
        self._data: NDArray[Any] | None = None

    def take_shape(self, shape: TensorShape) -> None:
        """Gives the tensor a shape."""
        if shape != self._shape:
            self._shape = self._data = None
            if tuple(self.tensor.shape) != shape:
                self.tensor.shape = shape
            self._shape = shape

    @property
    def data(self) -> NDArray[Any]:
        """What it holds; to be written."""
        if self._data is None:
            self._data = self.tensor.data
        return self._data


class _Writable:
    """Has NumPy take an array for one that may be written to: of others, OpenVINO makes no tensor."""

    def __init__(self, array: NDArray[Any], address: int) -> None:
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def _can_be_lent(port: Port) -> bool:
    has_fixed_shape = port.shape is not None and None not in port.shape
    is_plain = port.element_type in NUMPY_TYPES and port.element_type not in {
        TEXT,
        *PACKED_TYPES,
        *_HELD_BY_OTHER_TYPES,
    }
    return has_fixed_shape and is_plain


def _fill_text(tensor: ov.Tensor, array: NDArray[Any]) -> None:
    if array.size:  # OpenVINO refuses an empty list
        tensor.bytes_data = to_bytes(array)
