"""Decides what becomes of a row: which columns are read, what feeds the model, what is kept, how many at once.

All of it at the start, from the model, the data's schema and its first rows.  May not enter: devices, replicas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import openvino as ov
import pyarrow as pa

from ovray.replica.model import describe
from ovray.replica.signature import Port
from ovray.scoring.batching import BatchSize, fix_shapes
from ovray.scoring.columns import Binding, bind, kept_columns
from ovray.scoring.dataset import DataSet
from ovray.scoring.elements import ELEMENTS
from ovray.scoring.outputs import OutputColumn, output_columns, output_schema
from ovray.scoring.reading import read_sample

#: What a replica may hold of one chunk, kept columns and results together; two chunks are in work at once.
MAX_CHUNK_BYTES = 128 * 1024 * 1024

#: What is decoded at once.
READ_BYTES = 8 * 1024 * 1024
READ_MAX_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """Says what becomes of a row; travels to every replica."""

    #: Of the columns that are read: inputs and kept ones.
    read_schema: pa.Schema
    kept: tuple[str, ...]
    bindings: tuple[Binding, ...]
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


def plan_rows(
    graph: ov.Model, data: DataSet, inputs: Sequence[str], keep: Sequence[str] | None, batch_size: BatchSize
) -> RowPlan:
    """Decides what becomes of a row.

    Args:
        graph: is given static shapes, in place.
        data: the rows.
        inputs: which column feeds which input, as typed after ``--input``.
        keep: columns carried over; ``None`` keeps all that are not inputs.
        batch_size: rows in one inference.

    Raises:
        ConfigError: columns and model do not fit, or it is open how.
    """
    signature = describe(graph)
    sample = read_sample(data)
    bindings = bind(signature, sample, inputs)
    kept = kept_columns(data.schema, bindings, [port.name for port in signature.outputs], keep)
    batch_rows, outputs = fix_shapes(graph, bindings, batch_size, data.rows)
    read = {*kept, *(column for binding in bindings for column in binding.columns)}
    row_bytes = max(1, sample.nbytes // sample.num_rows) + _output_bytes(outputs)
    return RowPlan(
        read_schema=pa.schema([data.schema.field(name) for name in data.schema.names if name in read]),
        kept=kept,
        bindings=bindings,
        outputs=output_columns(outputs, bindings),
        batch_rows=batch_rows,
        rows_per_read=max(batch_rows, min(READ_BYTES // row_bytes, READ_MAX_ROWS)),
        max_chunk_rows=max(batch_rows, MAX_CHUNK_BYTES // row_bytes),
    )


def _output_bytes(outputs: Sequence[Port]) -> int:
    """Returns about how many bytes the outputs of one row take; open dimensions count as one."""
    return sum(
        prod(dimension or 1 for dimension in (port.shape or ())[1:]) * ELEMENTS[port.element_type].dtype.itemsize
        for port in outputs
        if port.element_type in ELEMENTS
    )
