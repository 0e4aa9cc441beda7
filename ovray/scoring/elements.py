"""Says what OpenVINO's element types are in NumPy and in Arrow, and hands their values from one to the other.

pyarrow's own ways between the two import pandas first, if it is installed: half a second of a replica's start.
Numbers do without.  May not enter: ports, columns, rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """Describes one element type of OpenVINO in the other two vocabularies."""

    dtype: "np.dtype[np.generic]"
    arrow: pa.DataType


#: Not here, and refused with an error: bf16, which NumPy lacks, and types of less than a byte, which both lack.
ELEMENTS = {
    "f16": Element(dtype=np.dtype(np.float16), arrow=pa.float16()),
    "f32": Element(dtype=np.dtype(np.float32), arrow=pa.float32()),
    "f64": Element(dtype=np.dtype(np.float64), arrow=pa.float64()),
    "i8": Element(dtype=np.dtype(np.int8), arrow=pa.int8()),
    "i16": Element(dtype=np.dtype(np.int16), arrow=pa.int16()),
    "i32": Element(dtype=np.dtype(np.int32), arrow=pa.int32()),
    "i64": Element(dtype=np.dtype(np.int64), arrow=pa.int64()),
    "u8": Element(dtype=np.dtype(np.uint8), arrow=pa.uint8()),
    "u16": Element(dtype=np.dtype(np.uint16), arrow=pa.uint16()),
    "u32": Element(dtype=np.dtype(np.uint32), arrow=pa.uint32()),
    "u64": Element(dtype=np.dtype(np.uint64), arrow=pa.uint64()),
    "boolean": Element(dtype=np.dtype(np.bool_), arrow=pa.bool_()),
    "string": Element(dtype=np.dtype(np.object_), arrow=pa.string()),
}


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """Return values without nulls; numbers as a view of Arrow's memory, not to be written to."""
    if _are_numbers(array.type):
        return np.from_dlpack(array)
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


def to_arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return flat values as Arrow has them; numbers side by side are not copied, and NaN stays a number."""
    if _are_numbers(kind) and values.dtype == kind.to_pandas_dtype():
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
    # from_pandas=False: pandas would call NaN null.
    return pa.array(values.tolist() if pa.types.is_string(kind) else values, type=kind, from_pandas=False)


def _are_numbers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
