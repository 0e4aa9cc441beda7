"""Takes blocks out of a Ray Data set and makes one of results: references only, rows stay where they are.

A set's own tasks run before any replica is placed: replicas hold CPUs to their end, and tasks that wait for these
would wait for ever.  Ray Data keeps what it made in the object store, on disk where that is full.
May not enter: replicas, rows.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError, RayError

from ovray.errors import ConfigError, DataError
from ovray.scoring.files import one_line
from ovray.scoring.records import InputFile, StoredTable
from ovray.scoring.stored_tables import FETCH_TIMEOUT_S, stored

#: Between looks at CPUs that others hold.
_LOOK_AGAIN_S = 0.25


def is_dataset(given: Any) -> bool:
    """Returns whether this is a Ray Data set.  Does not load Ray Data: who has one has done so.

    Raises:
        ConfigError: it is another thing of Ray Data's, whose tasks would have to run beside the replicas.
    """
    data = sys.modules.get("ray.data")
    if data is None:
        return False
    if isinstance(given, data.Dataset):
        return True
    if isinstance(given, data.DataIterator) or type(given).__module__.startswith("ray.data."):
        raise ConfigError(
            f"the input is a {type(given).__name__} of Ray Data, whose tasks would have to run while replicas hold"
            " their CPUs; give the Dataset itself"
        )
    return False


def blocks_of(dataset: Any, *, limit: int | None, wait_s: float) -> list[InputFile]:
    """Has a set's tasks run to their end, and returns where its blocks are.

    Args:
        dataset: a ``ray.data.Dataset``.
        limit: no more rows than this are needed.
        wait_s: how long to wait for a CPU, if all are held by others.

    Raises:
        ConfigError: no CPU became free for the tasks, or the set has no rows.
    """
    from ray.data.dataset import MaterializedDataset

    wanted = dataset if limit is None else dataset.limit(limit)
    if not isinstance(wanted, MaterializedDataset):
        _wait_for_cpu(wait_s)
        wanted = wanted.materialize()
    parts = [
        (entry.ref, None if part is None else (part.start_offset, part.end_offset))
        for bundle in wanted.iter_internal_ref_bundles()
        for entry, part in zip(bundle.blocks, bundle.slices, strict=True)
        if entry.metadata.num_rows
    ]
    if not parts:
        raise ConfigError("the Dataset has no rows")
    return _look_into(parts)


def head_of(block: InputFile, rows: int) -> pa.RecordBatch:
    """Returns the first rows of a block; only these come here.

    Raises:
        DataError: they do not come.
    """
    # No CPU is claimed: this takes milliseconds.
    task: Any = ray.remote(num_cpus=0)(_head)
    table = _answer(task.remote(_reference(block), rows), block.ref.name)
    return table.replace_schema_metadata().combine_chunks().to_batches()[0]


def to_dataset(references: list[Any]) -> Any:
    """Returns a Ray Data set of Arrow tables in the object store; they stay there as long as it lives."""
    import ray.data  # an extra: who gave a Dataset has it

    return ray.data.from_arrow_refs(references)


def _wait_for_cpu(wait_s: float) -> None:
    end_s = time.monotonic() + wait_s
    while _cpus(ray.available_resources) < 1.0:
        if time.monotonic() >= end_s:
            raise ConfigError(
                "the Dataset's own tasks need a CPU, but others hold all that Ray has"
                f" ({_cpus(ray.cluster_resources):g}); waited {wait_s:g} s (lease_timeout_s), nothing was started;"
                " end what holds them, or give a Dataset that was materialized before"
            )
        time.sleep(_LOOK_AGAIN_S)


def _cpus(asked: Callable[[], Any]) -> float:
    return float(asked().get("CPU", 0.0))


def _look_into(parts: list[tuple[Any, tuple[int, int] | None]]) -> list[InputFile]:
    """Has each block say what it holds, where it is; those of pandas' and parts become Arrow tables there.

    What Ray Data notes of a block is often what it found in the first: a column may be of nulls alone there.
    """
    # No CPU is claimed: this is over before replicas claim theirs.
    task: Any = ray.remote(num_cpus=0, num_returns=2)(_look)
    looks = [task.remote(reference, span) for reference, span in parts]
    found = []
    for number, ((reference, _), (table, described)) in enumerate(zip(parts, looks, strict=True)):
        name = f"block {number} of the Dataset"
        is_new, schema, rows, size_bytes = _answer(described, name)
        ref = StoredTable(name=name, reference=table if is_new else reference)
        found.append(stored(ref, schema, rows, size_bytes))
    return found


def _answer(reference: Any, name: str) -> Any:
    try:
        return ray.get(reference, timeout=FETCH_TIMEOUT_S)
    except (RayError, GetTimeoutError) as error:
        raise DataError(f"{name} cannot be looked into: {one_line(error)}") from error


def _look(block: Any, span: tuple[int, int] | None) -> tuple[pa.Table | None, tuple[bool, pa.Schema, int, int]]:
    """Returns a table where the block is none, and what it holds: whether it is new, schema, rows and bytes."""
    from ray.data.block import BlockAccessor

    table: pa.Table = BlockAccessor.for_block(block).to_arrow()
    if span is not None:
        table = table.slice(span[0], span[1] - span[0])
    is_new = span is not None or not isinstance(block, pa.Table)
    return table if is_new else None, (is_new, table.schema, table.num_rows, table.nbytes)


def _head(table: pa.Table, rows: int) -> pa.Table:
    return table.slice(0, rows)


def _reference(block: InputFile) -> Any:
    if not isinstance(block.ref, StoredTable):
        raise TypeError(f"{block.ref.name} is no block")
    return block.ref.reference
