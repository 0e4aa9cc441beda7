"""Infers the rows of a failed inference again, in ever smaller batches, until it is known which of them fail.

A row is to blame only where the same device infers something else: before each try it is given zeros, which it was
warmed up with, too.  (The tries need that as well: OpenVINO 2026.4's CPU plugin may let shapes pass that it has
just refused, unchecked.)  May not enter: other devices; the driver moves a chunk there when this one fails at
zeros.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovray.errors import ReplicaError
from ovray.replica.engine import Engine, Tensors
from ovray.scoring.bad_rows import BadRowError, StageRows
from ovray.scoring.bisecting import bisected
from ovray.scoring.results import ChunkResults, FailedBatch
from ovray.scoring.row_plan import RowPlan


def infer_again(
    engine: Engine,
    plan: RowPlan,
    results: ChunkResults,
    failed: FailedBatch,
    inferred: StageRows,
    check_wanted: Callable[[], None],
) -> None:
    """Fills ``results`` with the rows of a failed inference that can be inferred.

    Args:
        engine: at which it failed.
        plan: the job's.
        results: the chunk's.
        failed: the inference.
        inferred: takes the blame for each row that fails alone.
        check_wanted: is called before each inference, and raises to end this.

    Raises:
        ReplicaError: the device fails at zeros as well.
    """
    has_batch = any(binding.has_batch for binding in plan.bindings)
    zeros = {name: _zeros_like(array) for name, array in failed.inputs.items()}

    def attempt(start: int, stop: int) -> None:
        check_wanted()
        broken = _infer(engine, zeros, 1, lambda _: None)
        if broken is not None:
            raise ReplicaError(f"{failed.failure}; so does one of zeros: the device is to blame") from broken
        first = start - failed.first_row
        rows = stop - start
        inputs = {
            # What is left of the batch repeats its rows, lest those that failed are in it still.
            name: np.resize(array[first : first + rows], array.shape) if has_batch else array
            for name, array in failed.inputs.items()
        }
        failure = _infer(engine, inputs, rows, lambda outputs: results.store(start, rows, outputs))
        if failure is not None:
            raise BadRowError(str(failure)) from failure

    for _ in bisected(failed.first_row, failed.first_row + failed.rows, attempt, inferred.blame):
        pass


def _infer(
    engine: Engine, inputs: Mapping[str, NDArray[Any]], rows: int, store: Callable[[Tensors], Exception | None]
) -> Exception | None:
    """Runs one inference to its end; returns why it, or storing what it gave, failed."""
    answered: Future[Exception | None] = Future()

    def answer(outputs: Tensors | None, failure: Exception | None) -> None:
        answered.set_result(failure if outputs is None else store(outputs))

    slot = engine.acquire()
    for name, array in inputs.items():
        np.copyto(slot.inputs[name], array)
    engine.start(slot, rows, answer)
    return answered.result()


def _zeros_like(array: NDArray[Any]) -> NDArray[Any]:
    return np.full_like(array, "" if array.dtype.kind == "O" else 0)
