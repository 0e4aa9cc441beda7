"""Holds the input tensors of one infer request, and turns what callers give into them.

May not enter: the pool, results.  The forms of input and the casts are OpenVINO's own code (its data dispatcher),
which asks a request for tensors and writes into them; only the request is another one here.

One thing is done otherwise.  After an input was shared (``share_inputs=True``, or a Tensor given to ``infer``),
OpenVINO writes the next copied input into that array of the caller's.  Here a copied input never goes into memory
that was given with an earlier call; only a tensor that was set with ``set_input_tensor`` is written into.
"""

import math
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import layout_helpers
from openvino.utils.data_helpers import _data_dispatch

from ovray.driver.carriage import TensorStorage
from ovray.driver.small_requests import Kind
from ovray.errors import DataError, OvrayError
from ovray.replica.element_types import PACKED_TYPES
from ovray.replica.envelope import TensorShape
from ovray.runtime.ports import PortKey, Ports, an_empty_tensor, describe


class Sharing(Enum):
    """Says whether inputs are copied into the request's tensors, or become them."""

    COPY = "copy"
    SHARE = "share"

    @classmethod
    def of(cls, share_inputs: bool) -> "Sharing":  # noqa: FBT001 (OpenVINO's own flag)
        return cls.SHARE if share_inputs else cls.COPY


class _Placed:
    """Holds an array where the pool keeps those of requests."""

    __slots__ = ("_storage", "array")

    def __init__(self, storage: TensorStorage, array: NDArray[Any]) -> None:
        self._storage = storage
        self.array = array

    def __del__(self) -> None:
        self._storage.forget((self.array,))


class InputTensors:
    """Owns the input tensors of one request.  One thread at a time."""

    def __init__(self, ports: Ports, storage: TensorStorage) -> None:
        """Starts with tensors of zeros, made when first asked for.

        Args:
            ports: of the model.
            storage: where the pool keeps what it is asked; arrays are copied there at once where that can be.
        """
        self._ports = ports
        self._storage = storage
        #: Inputs that were copied to where the pool keeps them, and of which nobody has seen a tensor.
        self._placed: dict[int, _Placed] = {}
        #: What they were copied from, if that is to become the tensors as soon as somebody asks for one.
        self._placed_from: Any = None
        self._tensors: dict[int, ov.Tensor] = {}
        #: Tensors whose memory came with the inputs of a call.
        self._borrowed: set[int] = set()
        #: Tensors that are joined along their batch dimension at each inference, instead of one in ``_tensors``.
        self._parts: dict[int, list[ov.Tensor]] = {}
        #: What must live as long as the tensors that share it.
        self._kept: dict[int, Any] = {}
        #: What was given instead of all of ``_tensors``, as long as nobody asks for tensors.
        self._packed: _Packed | None = None
        #: Whether somebody else holds one of ``_tensors``, and would miss what is not written into it.
        self._are_known_outside = False

    def take_packed(self, kind: Kind, packed: tuple[bytes, ...], shared: Any = None) -> bool:
        """Takes inputs as bytes; says whether it could, because nobody has asked for tensors yet.

        Args:
            kind: what the bytes are.
            packed: of each input.
            shared: what they were taken from, if that is to become the tensors.
        """
        if self._are_known_outside:
            return False
        self._drop_all()
        self._packed = kind, packed, shared
        return True

    def give_out(self, index: int) -> ov.Tensor:
        """Gives a tensor to somebody who keeps it: it follows every inference from now on."""
        self._are_known_outside = True
        return self.get(index)

    def get(self, index: int) -> ov.Tensor:
        """Gives a tensor; what is written into it is inferred."""
        self._unpack()
        placed = self._placed.pop(index, None)
        if placed is not None:
            # The place is taken back with the request; the tensor may be kept by whoever asked.
            port = self._ports.inputs[index]
            self._tensors[index] = ov.Tensor(port.get_element_type(), ov.Shape(placed.array.shape))
            self._tensors[index].data[...] = placed.array
        if index not in self._tensors:
            self._tensors[index] = an_empty_tensor(self._ports.inputs[index])
        return self._tensors[index]

    def set(self, index: int, tensor: Any) -> None:
        """Makes a tensor of the caller's the input; its memory is read anew at each inference.

        Raises:
            DataError: its type or shape is not the port's.
            TypeError: it is no Tensor.
        """
        if isinstance(tensor, ov.RemoteTensor):
            raise DataError(
                "a remote tensor lives in the memory of one device of this process, and the model runs in others;"
                " give an openvino.Tensor or a NumPy array"
            )
        if not isinstance(tensor, ov.Tensor):
            raise TypeError(
                f"input {describe(self._ports.inputs[index], index)} was given {type(tensor).__name__};"
                " give an openvino.Tensor, or pass arrays to infer()"
            )
        self._check(tensor, index)
        self._unpack()
        self._forget(index)
        self._tensors[index] = tensor
        self._are_known_outside = True

    def set_parts(self, index: int, tensors: Sequence[ov.Tensor]) -> None:
        """Makes several tensors the input, one behind the other in the batch dimension.

        Raises:
            DataError: the port's layout has no batch dimension ``N``, or the tensors do not make up its shape.
        """
        port = self._ports.inputs[index]
        what = f"input {describe(port, index)}"
        if len(tensors) == 1:
            self.set(index, tensors[0])
            return
        layout = port.get_node().get_layout()
        if not layout_helpers.has_batch(layout):
            raise DataError(
                f"{what} was given {len(tensors)} tensors, and its layout {layout} has no batch dimension N; set"
                " one with set_layout(openvino.Layout('N...')) before compiling, or give one tensor"
            )
        size = port.get_partial_shape()[layout_helpers.batch_idx(layout)]
        if size.is_static and size.get_length() != len(tensors):
            raise DataError(f"{what} was given {len(tensors)} tensors; give {size.get_length()}")
        self._unpack()
        self._forget(index)
        self._parts[index] = list(tensors)
        self._are_known_outside = True

    def take(self, inputs: Any, sharing: Sharing) -> None:
        """Takes what a caller gave in any of OpenVINO's forms; ``None`` leaves the tensors as they are.

        Raises:
            DataError: no such port, or a Tensor of another type or shape.
            TypeError, ValueError, RuntimeError: a value that cannot be made a tensor of the port's type.
        """
        if inputs is None:
            self._share_what_was_placed()
        elif self._place(inputs):
            self._placed_from = inputs if sharing is Sharing.SHARE else None
        else:
            self._dispatch(inputs, sharing)

    def _dispatch(self, inputs: Any, sharing: Sharing) -> None:
        seen_by_dispatcher = _Request(self, self._ports, sharing)
        try:
            given = _data_dispatch(
                seen_by_dispatcher, self._ports.by_index(inputs), is_shared=sharing is Sharing.SHARE
            )
        except OvrayError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise _of_same_kind(error, f"{error}; {self._ports.expected}") from error
        if isinstance(given, ov.Tensor):
            given = {self._ports.input_index(): given}
        for key, tensor in (given or {}).items():
            index = self._ports.input_index(key)
            was_known_outside = self._are_known_outside
            self.set(index, tensor)
            self._are_known_outside = was_known_outside  # whoever gave it with a call expects no later ones in it
            self._borrowed.add(index)
            self._kept[index] = (inputs, seen_by_dispatcher._inputs_data)

    def arrays(self) -> list[NDArray[Any]]:
        """Gives what is to be inferred, in the order of the ports: views, text as objects.

        Raises:
            DataError: an input was never given, or is of another shape than its port; it is forgotten then.
        """
        return [self._array(index) for index in range(len(self._ports.inputs))]

    def shapes(self) -> tuple[TensorShape, ...] | None:
        """Gives the shapes, in elements, of what ``arrays`` has just given; ``None``: the arrays' own."""
        if not self._ports.has_packed_inputs:
            return None
        return tuple(tuple(self.get(index).get_shape()) for index in range(len(self._ports.inputs)))

    def _place(self, inputs: Any) -> bool:
        """Copies inputs at once to where the pool keeps them; says whether they could be.

        Through a tensor of the request's own it would be two copies: of a picture of 600 KB, each is 0.1 to 0.4 ms
        of CPU (two cores).
        """
        arrays = _in_order(inputs)
        if arrays is None or len(arrays) != len(self._ports.inputs):
            return False
        # A tensor that somebody holds is written into, as OpenVINO does.
        if self._are_known_outside:
            return False
        if not all(fit.takes_array(array) for fit, array in zip(self._ports.input_fits, arrays, strict=True)):
            return False
        # First, so that the next to be handed out is the place that was given back, and still in a cache.
        self._drop_all()
        for index, array in enumerate(arrays):
            placed = self._storage.place(array)
            if placed is None:
                return False
            self._placed[index] = _Placed(self._storage, placed)
        return True

    def look_at(self, index: int) -> ov.Tensor:
        """Gives a tensor of which only type and shape count, because it is going to be replaced."""
        self._unpack()
        return self._tensors.get(index) or self._ports.blanks[index]

    def own(self, index: int) -> ov.Tensor:
        """Gives a tensor that may be written into without touching memory that came with an earlier call."""
        self._unpack()
        if index in self._borrowed:
            borrowed = self._tensors[index]
            self._forget(index)
            self._tensors[index] = ov.Tensor(borrowed.get_element_type(), borrowed.get_shape())
        self._parts.pop(index, None)
        self._placed.pop(index, None)
        return self.get(index)

    def _array(self, index: int) -> NDArray[Any]:
        if index in self._placed:
            return self._placed[index].array
        port = self._ports.inputs[index]
        if index in self._parts:
            axis = layout_helpers.batch_idx(port.get_node().get_layout())
            self._tensors[index] = _joined(self._parts[index], axis, port)
        self._unpack()
        if index not in self._tensors and port.get_partial_shape().is_dynamic:
            raise DataError(f"input {describe(port, index)} was never given; {self._ports.expected}")
        tensor = self.get(index)
        try:
            self._check(tensor, index)
        except DataError:
            self._forget(index)
            raise
        return contents(tensor)

    def _check(self, tensor: ov.Tensor, index: int) -> None:
        if not self._ports.input_fits[index].takes(tensor.get_element_type(), tensor.get_shape()):
            port = self._ports.inputs[index]
            check(tensor, port, f"input {describe(port, index)}")

    def _unpack(self) -> None:
        """Makes tensors of what was given as bytes, or is to be shared."""
        self._share_what_was_placed()
        if self._packed is None:
            return
        (kind, packed, shared), self._packed = self._packed, None
        if shared is not None:
            self._dispatch(shared, Sharing.SHARE)
            return
        for index, (port, shape) in enumerate(zip(self._ports.inputs, kind.shapes, strict=True)):
            tensor = ov.Tensor(port.get_element_type(), ov.Shape(shape))
            tensor.data[...] = np.frombuffer(packed[index], kind.dtypes[index]).reshape(shape)
            self._tensors[index] = tensor

    def _share_what_was_placed(self) -> None:
        if self._placed_from is not None:
            shared, self._placed_from = self._placed_from, None
            self._placed.clear()
            self._dispatch(shared, Sharing.SHARE)

    def _drop_all(self) -> None:
        """Forgets what nobody else knows of, for inputs that are all given anew."""
        self._packed = self._placed_from = None
        self._placed.clear()
        if self._tensors:
            self._tensors.clear()
            self._borrowed.clear()
            self._kept.clear()

    def _forget(self, index: int) -> None:
        self._tensors.pop(index, None)
        self._parts.pop(index, None)
        self._kept.pop(index, None)
        self._placed.pop(index, None)
        self._borrowed.discard(index)


_Packed = tuple[Kind, tuple[bytes, ...], Any]


class _Request:
    """Is what OpenVINO's data dispatcher takes for an infer request."""

    def __init__(self, tensors: InputTensors, ports: Ports, sharing: Sharing) -> None:
        self._tensors = tensors
        self._ports = ports
        self._sharing = sharing
        #: The dispatcher leaves here what shared tensors lie in.
        self._inputs_data: Any = None

    def _is_single_input(self) -> bool:
        return len(self._ports.inputs) == 1

    def get_input_tensor(self, index: int | None = None) -> ov.Tensor:
        return self.get_tensor(index)

    def get_tensor(self, key: PortKey | None) -> ov.Tensor:
        index = self._ports.input_index(key)
        return self._tensors.look_at(index) if self._sharing is Sharing.SHARE else self._tensors.own(index)

    def set_input_tensor(self, *index_and_tensor: Any) -> None:
        *index, tensor = index_and_tensor
        self._tensors.set(self._ports.input_index(*index), tensor)

    def set_tensor(self, key: PortKey, tensor: Any) -> None:
        self._tensors.set(self._ports.input_index(key), tensor)


def check(tensor: ov.Tensor, port: ov.Output, what: str) -> None:
    """Holds a tensor against its port.

    Raises:
        DataError: it has another type or shape.
    """
    if tensor.get_element_type() != port.get_element_type():
        name = port.get_element_type().get_type_name()
        wanted = f"openvino.Tensor(packed_bytes, shape, openvino.Type.{name})" if name in PACKED_TYPES else name
        raise DataError(f"{what} was given a tensor of {tensor.get_element_type().get_type_name()}; give {wanted}")
    shape = tuple(tensor.get_shape())
    if not port.get_partial_shape().compatible(ov.PartialShape(list(shape))):
        raise DataError(f"{what} was given the shape {list(shape)}; give one of {port.get_partial_shape()}")


def contents(tensor: ov.Tensor) -> NDArray[Any]:
    """Gives the contents of a tensor as requests carry them: text as objects, all else as it lies in memory.

    Elements of less than a byte are packed there: one dimension of bytes.
    """
    if tensor.get_element_type() == ov.Type.string:
        return np.asarray(tensor.str_data).astype(object)
    data: NDArray[Any] = tensor.data
    return data


def _in_order(inputs: Any) -> Sequence[Any] | None:
    """Gives what was given for each input, in their order; ``None`` for forms that name them."""
    if isinstance(inputs, np.ndarray):
        return (inputs,)
    if isinstance(inputs, (list, tuple)):
        return inputs
    if isinstance(inputs, dict) and all(isinstance(key, int) for key in inputs):
        return [inputs[index] for index in sorted(inputs)] if sorted(inputs) == [*range(len(inputs))] else None
    return None


def _joined(tensors: Sequence[ov.Tensor], axis: int, port: ov.Output) -> ov.Tensor:
    if port.get_element_type() == ov.Type.string:
        return ov.Tensor(np.concatenate([tensor.str_data for tensor in tensors], axis))
    if port.get_element_type().get_type_name() in PACKED_TYPES:
        return _joined_packed(tensors, axis, port)
    joined = np.concatenate([tensor.data for tensor in tensors], axis)
    if port.get_element_type().to_dtype() != joined.dtype:
        raise DataError(
            f"the tensors joined are of {joined.dtype}; give {port.get_element_type().get_type_name()}"
        )
    tensor = ov.Tensor(port.get_element_type(), ov.Shape(joined.shape))
    np.copyto(tensor.data, joined)
    return tensor


def _joined_packed(tensors: Sequence[ov.Tensor], axis: int, port: ov.Output) -> ov.Tensor:
    """Joins tensors of elements of less than a byte.

    OpenVINO 2026.4.1 copies whole bytes also where a tensor fills its last one only in part: the elements of the
    next are in wrong places then.
    """
    element_type = port.get_element_type()
    name = element_type.get_type_name()
    if any(tensor.get_element_type() != element_type for tensor in tensors):
        raise DataError(f"the tensors joined are not all of {name}; give such")
    shapes = [tuple(tensor.get_shape()) for tensor in tensors]
    shares_bytes = any(math.prod(shape) % PACKED_TYPES[name][0] for shape in shapes)
    if axis != 0 or shares_bytes or len({shape[1:] for shape in shapes}) != 1:
        raise DataError(
            f"tensors of {name} are joined where the batch is the first dimension, the others are alike, and each"
            f" tensor fills whole bytes; these are {', '.join(map(str, map(list, shapes)))}; give one tensor"
        )
    joined = ov.Tensor(element_type, ov.Shape([sum(shape[0] for shape in shapes), *shapes[0][1:]]))
    np.concatenate([tensor.data for tensor in tensors], out=joined.data)
    return joined


def _of_same_kind(error: Exception, message: str) -> Exception:
    for kind in (TypeError, ValueError):
        if isinstance(error, kind):
            return kind(message)
    return RuntimeError(message)
