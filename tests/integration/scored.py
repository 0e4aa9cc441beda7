"""What plain OpenVINO makes of rows in this one process, and what a folder of results holds."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pyarrow as pa
import pyarrow.parquet as pq

#: The promise of issue 2: the rows of a job equal those of plain OpenVINO to this.
TOLERANCE = 1e-5

PART = re.compile(r"part-\d{12}-\d{12}\.parquet")


def plain_openvino(
    model: ov.Model | Path, rows: Mapping[str, np.ndarray], *, batch: int | None = None
) -> dict[str, np.ndarray]:
    """Infer rows ``batch`` at a time, as they are, all at once where that is ``None``; returns all outputs."""
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    count = len(next(iter(rows.values())))
    step = batch or count
    found: dict[str, list[np.ndarray]] = {port.any_name: [] for port in compiled.outputs}
    for start in range(0, count, step):
        results = compiled({name: array[start : start + step] for name, array in rows.items()}, share_inputs=False)
        for name, arrays in found.items():
            arrays.append(np.array(results[name]))
    return {name: np.concatenate(arrays) for name, arrays in found.items()}


#: What a job leaves beside its parts when it has ended well.
NOTES = {"_ovray.json", "_SUCCESS"}


def parts_of(folder: Path) -> list[Path]:
    """Return the parts of a finished folder in the order of their names; fails where anything else is in it."""
    paths = sorted(folder.iterdir())
    assert {path.name for path in paths if not PART.fullmatch(path.name)} == NOTES
    return [path for path in paths if path.name not in NOTES]


def scores_in(folder: Path) -> pa.Table:
    """Return all rows of a folder of results."""
    return pa.concat_tables([pq.read_table(path) for path in parts_of(folder)])


def as_array(column: pa.ChunkedArray, *row_shape: int) -> "np.ndarray[Any, Any]":
    """Return a column of numbers, or of lists of them, as ``[n, *row_shape]``."""
    flat = column.combine_chunks()
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        flat = flat.flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(-1, *row_shape)
