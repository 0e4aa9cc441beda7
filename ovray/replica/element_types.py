"""Says how NumPy holds the elements of OpenVINO's types: as ``openvino.Tensor.data`` shows them.

May not enter: openvino.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: By OpenVINO's name.  NumPy has no bf16 and no f8: their bits are held by a type of the same size.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "boolean": np.dtype(np.bool_),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    **{f"{sign}{bits}": np.dtype(f"{sign}{bits // 8}") for sign in "iu" for bits in (8, 16, 32, 64)},
    **{name: np.dtype(np.uint8) for name in ("f8e4m3", "f8e5m2", "f8e8m0")},
    **{name: np.dtype(np.uint8) for name in ("u1", "u2", "u3", "u4", "u6", "nf4", "f4e2m1")},
    "i4": np.dtype(np.int8),
    "string": np.dtype(np.object_),
}

#: Types of less than a byte: so many elements share so many bytes, without regard to rows.
PACKED_TYPES = {
    "u1": (8, 1),
    "u2": (4, 1),
    "u3": (8, 3),
    "u6": (4, 3),
    **dict.fromkeys(("u4", "i4", "nf4", "f4e2m1"), (2, 1)),
}

TEXT = "string"


def holds(element_type: str, array: NDArray[Any]) -> bool:
    """Tells whether an array holds elements of this type; text may come in any of NumPy's ways."""
    if element_type == TEXT:
        return array.dtype.kind in "OUS"
    return NUMPY_TYPES.get(element_type, array.dtype) == array.dtype


def zeros(element_type: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Makes an array of zeros, or of empty texts."""
    if element_type == TEXT:
        return np.full(shape, "", dtype=np.object_)
    if element_type in PACKED_TYPES:
        shape = (packed_bytes(element_type, shape),)
    return np.zeros(shape, NUMPY_TYPES[element_type])


def packed_bytes(element_type: str, shape: tuple[int, ...]) -> int:
    """Says how many bytes a tensor of a packed type takes."""
    elements, group_bytes = PACKED_TYPES[element_type]
    return -(-math.prod(shape) // elements) * group_bytes


def to_bytes(text: NDArray[Any]) -> list[bytes]:
    """Returns texts one after the other, as the ``bytes`` that OpenVINO holds.

    Raises:
        TypeError: an element is neither ``str`` nor ``bytes``.
        ValueError: a ``str`` has surrogates that stand for no byte.
    """
    return [_encoded(each) for each in text.flat]


def _encoded(text: Any) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise TypeError(f"an element of type {type(text).__name__}; text is str or bytes")
    return text.encode("utf-8", "surrogateescape")


def to_text(encoded: NDArray[np.bytes_], shape: tuple[int, ...]) -> NDArray[np.object_]:
    """Returns the ``bytes`` that OpenVINO holds as texts; what is no UTF-8 is kept by surrogates."""
    text: NDArray[np.object_] = np.empty(shape, dtype=np.object_)
    text.flat[:] = [each.decode("utf-8", "surrogateescape") for each in encoded.flat]
    return text
