"""The script that one would write by hand: one process, read with pyarrow, infer with OpenVINO's AsyncInferQueue
under the THROUGHPUT hint, write with pyarrow."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.works import Work, batches_of, results_of


class Inference:
    """Infers tables, in batches of a static shape, with as many requests as OpenVINO likes."""

    def __init__(self, model_file: Path, batch_rows: int, properties: dict[str, Any]) -> None:
        core = ov.Core()
        model = core.read_model(model_file)
        self._shape = [batch_rows, *list(model.inputs[0].get_partial_shape())[1:]]
        model.reshape(ov.PartialShape(self._shape))
        compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", **properties})
        self.width = int(np.prod(compiled.outputs[0].shape[1:]))
        self._queue = ov.AsyncInferQueue(compiled)

    def __call__(self, table: pa.Table) -> Any:
        """Returns the results, float32[n, width]."""
        results = np.empty((table.num_rows, self.width), np.float32)

        def keep(request: Any, at: tuple[int, int]) -> None:
            first, count = at
            results[first : first + count] = request.get_output_tensor(0).data.reshape(-1, self.width)[:count]

        self._queue.set_callback(keep)
        for first, count, batch in batches_of(table, self._shape):
            self._queue.start_async({0: batch}, (first, count))
        self._queue.wait_all()
        return results


def rate_of_script(work: Work, output: Path) -> float:
    """Scores the files; returns rows per second from when the model is compiled."""
    infer = Inference(work.model, work.script_batch_rows, {})
    schema = pa.schema([("id", pa.int64()), ("y", pa.list_(pa.float32(), infer.width))])
    started_s = time.perf_counter()
    rows = 0
    with pq.ParquetWriter(output, schema) as writer:
        for path in sorted(work.data.iterdir()):
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    writer.write_table(results_of(table, infer(table)))
                    rows += table.num_rows
    return rows / (time.perf_counter() - started_s)
