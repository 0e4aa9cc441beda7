"""Decides what becomes of a row: which columns are read, what feeds the model, what is kept, how many at once.

All of it at the start, from the model, the data's schema and its first rows.  May not enter: devices, replicas.
"""

from dataclasses import dataclass, field

import openvino as ov
import pyarrow as pa

from ovray.replica.model import describe
from ovray.scoring.batching import BatchSize, fix_shapes
from ovray.scoring.columns import Binding, bind, kept_columns
from ovray.scoring.dataset import DataSet
from ovray.scoring.graph_steps import build_in, declared_layouts
from ovray.scoring.outputs import OutputColumn, output_columns, output_schema
from ovray.scoring.preparation import GraphSteps, choose_input
from ovray.scoring.reading import read_sample
from ovray.scoring.reduction import Reduction, ResultOptions, plan_results

#: What a replica may hold of one chunk, kept columns and results together; two chunks are in work at once.
MAX_CHUNK_BYTES = 128 * 1024 * 1024

#: What is decoded at once.
READ_BYTES = 8 * 1024 * 1024
READ_MAX_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """Says what a caller wants to become of a row."""

    #: Which column feeds which input, as typed after ``--input``.
    inputs: tuple[str, ...] = ()
    #: Columns carried over; ``None`` keeps all that are not inputs.
    keep: tuple[str, ...] | None = None
    #: Rows in one inference.
    batch_size: BatchSize = "auto"
    steps: GraphSteps = field(default_factory=GraphSteps)
    results: ResultOptions = field(default_factory=ResultOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """Says what becomes of a row; travels to every replica."""

    #: Of the columns that are read: inputs and kept ones.
    read_schema: pa.Schema
    kept: tuple[str, ...]
    bindings: tuple[Binding, ...]
    #: What is made of outputs before they are results.
    reductions: tuple[Reduction, ...]
    #: The columns of results.
    outputs: tuple[OutputColumn, ...]
    #: Rows that one inference takes.
    batch_rows: int
    #: Rows that are decoded at once.
    rows_per_read: int
    #: Rows of the longest chunk.
    max_chunk_rows: int

    @property
    def result_schema(self) -> pa.Schema:
        """Returns the columns of the results: those kept, then the model's outputs."""
        return output_schema(pa.schema([self.read_schema.field(name) for name in self.kept]), self.outputs)


def plan_rows(graph: ov.Model, data: DataSet, options: RowOptions) -> RowPlan:
    """Decides what becomes of a row.

    Args:
        graph: is given preparation and static shapes, in place.
        data: the rows.
        options: what is wanted.

    Raises:
        ConfigError: columns, options and model do not fit, or it is open how.
    """
    sample = read_sample(data)
    bindings = _bind(graph, sample, options)
    batch_rows, given = fix_shapes(graph, bindings, options.batch_size, data.rows)
    has_batch = any(binding.has_batch for binding in bindings)
    wanted, reductions = plan_results(given, options.results, has_batch=has_batch)
    outputs = output_columns(wanted, bindings)
    kept = kept_columns(data.schema, bindings, [column.name for column in outputs], options.keep)
    read = {*kept, *(column for binding in bindings for column in binding.columns)}
    row_bytes = max(1, sample.nbytes // sample.num_rows) + sum(_bytes_per_row(column) for column in outputs)
    return RowPlan(
        read_schema=pa.schema([data.schema.field(name) for name in data.schema.names if name in read]),
        kept=kept,
        bindings=bindings,
        reductions=reductions,
        outputs=outputs,
        batch_rows=batch_rows,
        rows_per_read=max(batch_rows, min(READ_BYTES // row_bytes, READ_MAX_ROWS)),
        max_chunk_rows=max(batch_rows, MAX_CHUNK_BYTES // row_bytes),
    )


def _bind(graph: ov.Model, sample: pa.RecordBatch, options: RowOptions) -> tuple[Binding, ...]:
    signature = describe(graph)
    if not options.steps.options:
        return bind(signature, sample, options.inputs)
    prepared = choose_input(signature, declared_layouts(graph), options.steps)
    return build_in(graph, prepared, bind(prepared.as_fed(signature), sample, options.inputs), sample)


def _bytes_per_row(column: OutputColumn) -> int:
    """Returns about how many bytes a column takes for each row; one of open length counts as one value."""
    return (column.values_per_row or 1) * column.dtype.itemsize
