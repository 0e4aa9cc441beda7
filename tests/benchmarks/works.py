"""The models and data of the benchmarks: what is scored, whoever scores it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import openvino.opset15 as ops
import pyarrow as pa
import pyarrow.parquet as pq

#: Files that the rows of a work are spread over: who cannot divide a file must not suffer for that.
FILES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Is a model, and a folder of Parquet files with the column ``x`` that feeds it."""

    name: str
    model: Path
    data: Path
    rows: int
    #: Rows in one inference of the sides that are written by hand.
    script_batch_rows: int


def an_mlp(folder: Path, rows: int) -> Work:
    """Makes 32-64-64-1 with an open batch, and rows of 32 float32."""
    chance = np.random.default_rng(0)
    data = ops.parameter([-1, 32], np.float32, name="x")
    layer = data
    for inputs, outputs in ((32, 64), (64, 64), (64, 1)):
        weights = chance.standard_normal((inputs, outputs)).astype(np.float32) / np.sqrt(inputs)
        layer = ops.matmul(layer, weights.astype(np.float32), False, False)
        layer = ops.relu(layer) if outputs > 1 else layer
    layer.output(0).set_names({"y"})
    model = folder / f"mlp-{rows}.xml"
    ov.save_model(ov.Model([layer], [data], "mlp"), model, compress_to_fp16=False)

    def values(count: int) -> Any:
        return chance.standard_normal(count * 32, dtype=np.float32)

    files = _write_rows(folder / f"mlp-{rows}", values, rows, width=32, row_group_size=100_000)
    return Work(name="mlp", model=model, data=files, rows=rows, script_batch_rows=1024)


def a_squeezenet(folder: Path, rows: int) -> Work:
    """Takes squeezenet from the onnx package, and makes images of 3x224x224 bytes."""
    model = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
    chance = np.random.default_rng(0)
    width = 3 * 224 * 224

    def values(count: int) -> Any:
        return chance.integers(0, 256, count * width, dtype=np.uint8)

    files = _write_rows(folder / f"images-{rows}", values, rows, width=width, row_group_size=128)
    return Work(name="squeezenet", model=model, data=files, rows=rows, script_batch_rows=1)


def batches_of(table: pa.Table, shape: list[Any]) -> Iterator[tuple[int, int, Any]]:
    """Cuts the column ``x`` into inputs of a static shape; gives the first row and the number of rows of each."""
    lengths = [int(str(dimension)) for dimension in shape]
    values = table["x"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    flat = values.reshape(table.num_rows, *lengths[1:])
    for first in range(0, table.num_rows, lengths[0]):
        batch = flat[first : first + lengths[0]].astype(np.float32, copy=False)
        count = len(batch)
        if count < lengths[0]:
            batch = np.concatenate([batch, np.zeros((lengths[0] - count, *lengths[1:]), np.float32)])
        yield first, count, batch


def results_of(table: pa.Table, results: Any) -> pa.Table:
    """Puts results beside the ids of their rows."""
    values = pa.FixedSizeListArray.from_arrays(pa.array(results.reshape(-1)), results.shape[1])
    return pa.table({"id": table["id"], "y": values})


def _write_rows(folder: Path, values: Any, rows: int, *, width: int, row_group_size: int) -> Path:
    folder.mkdir()
    edges = [rows * number // FILES for number in range(FILES + 1)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        column = pa.FixedSizeListArray.from_arrays(pa.array(values(stop - start)), width)
        table = pa.table({"id": np.arange(start, stop), "x": column})
        pq.write_table(table, folder / f"rows-{number}.parquet", row_group_size=row_group_size)
    return folder
