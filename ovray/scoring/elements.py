"""Says what OpenVINO's element types are in NumPy and in Arrow: one table for inputs and outputs.

May not enter: ports, columns, rows.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


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
