"""Rows per second of ``ovray.score`` against a script with OpenVINO in one process, on the same cores, in one run.

``python -m tests.benchmarks.scoring`` prints medians of interleaved rounds, their spread, and the ratio; with
``--json FILE`` it also writes them.  The script reads with pyarrow, infers with OpenVINO's AsyncInferQueue under
the THROUGHPUT hint, and writes with pyarrow; its clock starts when its model is compiled, as ovray's
``run_seconds`` starts when its first replica is ready.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import openvino.opset15 as ops
import pyarrow as pa
import pyarrow.parquet as pq
import ray

import ovray

ROUNDS = 5

#: For ovray and the script alike: what scores best of a few settings for each.
DEVICES = "CPU*2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Is a model, and a Parquet file with the column ``x`` that feeds it."""

    name: str
    model: Path
    data: Path
    #: Rows in one inference of the script.
    script_batch_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Says what came out for one work; rates in rows per second."""

    work: str
    ovray_rows_per_s: float
    script_rows_per_s: float
    ratio: float
    lowest: float
    highest: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--mlp-rows", type=int, default=8_000_000)
    parser.add_argument("--images", type=int, default=4_096)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ovray-bench-") as folder:
        works = [an_mlp(Path(folder), options.mlp_rows), a_squeezenet(Path(folder), options.images)]
        ratios = [compare(work, Path(folder), options.rounds) for work in works]
    for ratio in ratios:
        print(
            f"{ratio.work:12} ovray {ratio.ovray_rows_per_s:12,.0f} rows/s   one process"
            f" {ratio.script_rows_per_s:12,.0f} rows/s   ratio {ratio.ratio:.2f}"
            f" ({ratio.lowest:.2f} to {ratio.highest:.2f})"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(ratio) for ratio in ratios], indent=1))


def compare(work: Work, folder: Path, rounds: int) -> Ratio:
    """Runs both sides in turn, each in the processes that it would have on its own."""
    mine: list[float] = []
    script: list[float] = []
    for number in range(rounds):
        mine.append(_in_a_new_process(rate_of_ovray, work, folder / f"ovray-{work.name}-{number}"))
        script.append(_in_a_new_process(rate_of_script, work, folder / f"script-{work.name}-{number}.parquet"))
    pairs = [ours / theirs for ours, theirs in zip(mine, script, strict=True)]
    return Ratio(
        work=work.name,
        ovray_rows_per_s=statistics.median(mine),
        script_rows_per_s=statistics.median(script),
        ratio=statistics.median(pairs),
        lowest=min(pairs),
        highest=max(pairs),
    )


def rate_of_ovray(work: Work, output: Path) -> float:
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    report = ovray.score(work.model, work.data, output=output, input="x", devices=DEVICES)
    ray.shutdown()
    return report.rows_per_s


def rate_of_script(work: Work, output: Path) -> float:
    """Scores the file as one would by hand; returns rows per second."""
    model = ov.Core().read_model(work.model)
    shape = [work.script_batch_rows, *list(model.inputs[0].get_partial_shape())[1:]]
    model.reshape(ov.PartialShape(shape))
    compiled = ov.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    width = int(np.prod(compiled.outputs[0].shape[1:]))
    started_s = time.perf_counter()
    rows = 0
    with pq.ParquetFile(work.data) as file, _writer(output, width) as writer:
        queue = ov.AsyncInferQueue(compiled)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            results = np.empty((table.num_rows, width), np.float32)

            def keep(request: Any, at: tuple[int, int], results: Any = results) -> None:
                first, count = at
                results[first : first + count] = request.get_output_tensor(0).data.reshape(-1, width)[:count]

            queue.set_callback(keep)
            for first, count, batch in _batches(table, shape):
                queue.start_async({0: batch}, (first, count))
            queue.wait_all()
            values = pa.FixedSizeListArray.from_arrays(pa.array(results.reshape(-1)), width)
            writer.write_table(pa.table({"id": table["id"], "y": values}))
            rows += table.num_rows
    return rows / (time.perf_counter() - started_s)


def _batches(table: pa.Table, shape: list[Any]) -> Iterator[tuple[int, int, Any]]:
    lengths = [int(str(dimension)) for dimension in shape]
    flat = _flat_values(table).reshape(table.num_rows, *lengths[1:])
    for first in range(0, table.num_rows, lengths[0]):
        batch = flat[first : first + lengths[0]].astype(np.float32, copy=False)
        count = len(batch)
        if count < lengths[0]:
            batch = np.concatenate([batch, np.zeros((lengths[0] - count, *lengths[1:]), np.float32)])
        yield first, count, batch


def _flat_values(table: pa.Table) -> Any:
    return table["x"].combine_chunks().flatten().to_numpy(zero_copy_only=False)


def _writer(output: Path, width: int) -> pq.ParquetWriter:
    schema = pa.schema([("id", pa.int64()), ("y", pa.list_(pa.float32(), width))])
    return pq.ParquetWriter(output, schema)


def _in_a_new_process(measure: Any, *arguments: Any) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        rate: float = pool.submit(measure, *arguments).result()
        return rate


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
    model = folder / "mlp.xml"
    ov.save_model(ov.Model([layer], [data], "mlp"), model, compress_to_fp16=False)
    values = pa.array(chance.standard_normal(rows * 32, dtype=np.float32))
    file = folder / "mlp.parquet"
    _write_rows(file, pa.FixedSizeListArray.from_arrays(values, 32), row_group_size=100_000)
    return Work(name="mlp", model=model, data=file, script_batch_rows=1024)


def a_squeezenet(folder: Path, rows: int) -> Work:
    """Takes squeezenet from the onnx package, and makes images of 3x224x224 bytes."""
    model = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
    chance = np.random.default_rng(0)
    values = pa.array(chance.integers(0, 256, rows * 3 * 224 * 224, dtype=np.uint8))
    file = folder / "images.parquet"
    _write_rows(file, pa.FixedSizeListArray.from_arrays(values, 3 * 224 * 224), row_group_size=128)
    return Work(name="squeezenet", model=model, data=file, script_batch_rows=1)


def _write_rows(file: Path, column: pa.Array, row_group_size: int) -> None:
    table = pa.table({"id": np.arange(len(column)), "x": column})
    pq.write_table(table, file, row_group_size=row_group_size)


if __name__ == "__main__":
    main()
