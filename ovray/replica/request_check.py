"""Holds a request against what a model takes, before it reaches the device.

May not enter: openvino.  Callers: the engines behind request_engine.py.
"""

from ovray.errors import DataError
from ovray.replica.element_types import NUMPY_TYPES, PACKED_TYPES, holds, packed_bytes, zeros
from ovray.replica.envelope import Request, TensorShape
from ovray.replica.signature import Port, Signature


def check(request: Request, signature: Signature) -> None:
    """Raises ``DataError`` if a request has other inputs, types or shapes than the model."""
    ports = signature.inputs
    if len(request.tensors) != len(ports) or (request.shapes and len(request.shapes) != len(ports)):
        raise DataError(
            f"the request has {len(request.tensors)} tensors, and the model {len(ports)} inputs:"
            f" {', '.join(port.name for port in ports)}; nothing was inferred"
        )
    for index, (port, array) in enumerate(zip(ports, request.tensors, strict=True)):
        if not holds(port.element_type, array):
            raise DataError(
                f"input {port.name!r} takes {port.element_type}, as NumPy's {NUMPY_TYPES[port.element_type]}, and"
                f" the request has {array.dtype}; nothing was inferred; convert it"
            )
        shape = shape_of(request, index)
        if not _fits(port, shape):
            raise DataError(
                f"input {port.name!r} takes the shape {_text(port)}, and the request has {list(shape)}; nothing"
                " was inferred"
            )
        if port.element_type in PACKED_TYPES and array.shape != (packed_bytes(port.element_type, shape),):
            raise DataError(
                f"input {port.name!r} of {port.element_type} and shape {list(shape)} takes"
                f" {packed_bytes(port.element_type, shape)} packed bytes, and the request has"
                f" {list(array.shape)}; nothing was inferred"
            )


def shape_of(request: Request, index: int) -> TensorShape:
    """Returns the shape of one tensor, in elements."""
    return request.shapes[index] if request.shapes is not None else request.tensors[index].shape


def zeros_for(ports: tuple[Port, ...], shapes: tuple[TensorShape, ...]) -> Request:
    """Makes a request of zeros with these shapes."""
    tensors = tuple(zeros(port.element_type, shape) for port, shape in zip(ports, shapes, strict=True))
    return Request(dispatch=-1, tensors=tensors, shapes=shapes)


def _fits(port: Port, shape: TensorShape) -> bool:
    if port.shape is None:
        return True
    return len(port.shape) == len(shape) and all(
        wanted is None or wanted == found for wanted, found in zip(port.shape, shape, strict=True)
    )


def _text(port: Port) -> str:
    assert port.shape is not None, "an open rank takes every shape"
    return f"[{', '.join('?' if dimension is None else str(dimension) for dimension in port.shape)}]"
