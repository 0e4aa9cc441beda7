"""Decides what becomes of a row: which columns are read, what feeds the model, what is kept, how many at once.

All of it at the start, from the model, the data's schema and its first rows.  May not enter: devices, replicas.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import openvino as ov
import pyarrow as pa

from ovray.errors import ConfigError
from ovray.replica.model import describe
from ovray.replica.signature import Port, Signature
from ovray.scoring.batching import BatchSize, fix_shapes
from ovray.scoring.cells import cells_of, with_numbers, with_usual_lists
from ovray.scoring.columns import Binding, bind, kept_columns
from ovray.scoring.feeding import (
    FunctionPreparation,
    bind_arrays,
    columns_for_function,
    try_preparation,
    value_type,
)
from ovray.scoring.finishing import FunctionFinish, plan_finish
from ovray.scoring.graph_steps import build_in, declared_layouts
from ovray.scoring.on_error import OnError
from ovray.scoring.outputs import OutputColumn, output_columns, output_schema
from ovray.scoring.preparation import GraphSteps, choose_input
from ovray.scoring.records import Source
from ovray.scoring.reduction import Reduction, ResultOptions, as_stored, chosen_outputs, plan_results
from ovray.scoring.user_functions import UserFunction

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
    #: The most rows that a result file holds; ``None`` leaves it open.
    rows_per_file: int | None = None
    #: Makes the model's inputs of columns.
    preprocess: UserFunction | None = None
    #: Makes the results of the model's outputs.
    postprocess: UserFunction | None = None

    @property
    def changing_results(self) -> dict[str, object]:
        """Returns what decides about results, by flag, beside what shows in the columns; ``None`` was not given.

        Functions count by name: an edited one goes on where the earlier one stopped.
        """
        return {
            "--layout": self.steps.layout,
            "--resize": self.steps.resize,
            "--mean": self.steps.mean,
            "--scale": self.steps.scale,
            "--color": self.steps.color,
            "--outputs": self.results.outputs,
            "--top-k": self.results.top_k,
            "--argmax": self.results.argmax or None,
            "--labels": self.results.labels,
            "--dtype": self.results.float_type,
            "--rows-per-file": self.rows_per_file,
            "--preprocess": None if self.preprocess is None else self.preprocess.name,
            "--postprocess": None if self.postprocess is None else self.postprocess.name,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """Says what becomes of a row; travels to every replica."""

    #: Of the columns that are read: inputs and kept ones.
    read_schema: pa.Schema
    kept: tuple[str, ...]
    #: A function that makes the inputs; ``None`` where columns are the inputs.
    prepare: FunctionPreparation | None
    #: Of inputs to columns, or to the arrays that ``prepare`` gives.
    bindings: tuple[Binding, ...]
    #: What is made of outputs before they are results.
    reductions: tuple[Reduction, ...]
    #: A function that makes the results; ``None`` where outputs and ``reductions`` are the results.
    finish: FunctionFinish | None
    #: The columns of results.
    outputs: tuple[OutputColumn, ...]
    #: Rows that one inference takes.
    batch_rows: int
    #: Rows that are decoded at once.
    rows_per_read: int
    #: Rows of the longest chunk.
    max_chunk_rows: int

    @property
    def gathered(self) -> tuple[OutputColumn, ...]:
        """Returns what is gathered from inferences: what ``finish`` takes, else the results."""
        return self.outputs if self.finish is None else self.finish.takes

    @property
    def result_schema(self) -> pa.Schema:
        """Returns the columns of the results: those kept, then the model's outputs."""
        return output_schema(self.kept_schema, self.outputs)

    @property
    def kept_schema(self) -> pa.Schema:
        """Returns the columns that are carried over."""
        return pa.schema([self.read_schema.field(name) for name in self.kept])

    def without_kept(self) -> "RowPlan":
        """Returns the same for replicas that are given, and give back, no columns that are only carried over."""
        fed = {name for binding in self.bindings for name in binding.columns}
        read = fed if self.prepare is None else self.prepare.columns
        return replace(self, kept=(), read_schema=pa.schema([one for one in self.read_schema if one.name in read]))


def plan_rows(
    graph: ov.Model, data: Source, sample: pa.RecordBatch, options: RowOptions, on_error: OnError = OnError.RAISE
) -> RowPlan:
    """Decides what becomes of a row.

    Args:
        graph: is given preparation and static shapes, in place.
        data: the rows.
        sample: the first of them, with all columns.
        options: what is wanted.
        on_error: what becomes of bad rows: where they are recorded, the first rows may be bad and decide nothing.

    Raises:
        ConfigError: columns, options and model do not fit, or it is open how.
    """
    fed = _feed(graph, sample, options, on_error)
    batch_rows, given = fix_shapes(graph, fed.bindings, options.batch_size, data.rows, options.rows_per_file)
    finish, reductions, outputs = _finish(given, fed.bindings, options)
    kept = kept_columns(data.schema, fed.left_out, [column.name for column in outputs], options.keep)
    held = (*outputs, *(finish.takes if finish else ()))
    row_bytes = fed.bytes_per_row + sum(_bytes_per_row(column) for column in held)
    passing = [sample.column(name).nbytes for name in data.read_singly if name not in kept]
    read = {*kept, *fed.columns}
    return RowPlan(
        read_schema=pa.schema([data.schema.field(name) for name in data.schema.names if name in read]),
        kept=kept,
        prepare=fed.prepare,
        bindings=fed.bindings,
        reductions=reductions,
        finish=finish,
        outputs=outputs,
        batch_rows=batch_rows,
        rows_per_read=max(batch_rows, min(READ_BYTES // row_bytes, READ_MAX_ROWS)),
        max_chunk_rows=max(batch_rows, MAX_CHUNK_BYTES // max(1, row_bytes - sum(passing) // sample.num_rows)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fed:
    """Says how inputs come about."""

    prepare: FunctionPreparation | None
    bindings: tuple[Binding, ...]
    #: That are read for them, and those that are not kept for it.
    columns: tuple[str, ...]
    left_out: tuple[str, ...]
    #: Of all columns, and of what a function makes of them.
    bytes_per_row: int


def _feed(graph: ov.Model, sample: pa.RecordBatch, options: RowOptions, on_error: OnError) -> _Fed:
    """Binds columns, or what a function makes of them, to what the graph takes once its steps are built in."""
    signature = describe(graph)
    steps = options.steps
    prepared = choose_input(signature, declared_layouts(graph), steps) if steps.options else None
    wanted = signature if prepared is None else prepared.as_fed(signature)
    bytes_per_row = max(1, sample.nbytes // sample.num_rows)
    prepare = None
    if options.preprocess is None:
        sample, bindings = _bind(wanted, sample, options.inputs, on_error)
        kinds = {name: cells_of(sample.column(name)).type for one in bindings for name in one.columns}
        columns = left_out = tuple(kinds)
    else:
        columns = columns_for_function(sample.schema, options.inputs)
        # A function that was named no columns gets all: that is no reason to keep none.
        left_out = columns if options.inputs else ()
        prepare = FunctionPreparation(function=options.preprocess, columns=columns)
        arrays = try_preparation(prepare, sample, on_error)
        bindings = bind_arrays(wanted, arrays, options.preprocess)
        kinds = {name: value_type(array) for name, array in arrays.items()}
        bytes_per_row += sum(array.nbytes // len(array) for array in arrays.values())
    if prepared is not None:
        fed_by = bindings[prepared.index].columns
        bindings = build_in(graph, prepared, bindings, [kinds[name] for name in fed_by])
    return _Fed(
        prepare=prepare, bindings=bindings, columns=columns, left_out=left_out, bytes_per_row=bytes_per_row
    )


def _bind(
    signature: Signature, sample: pa.RecordBatch, options: Sequence[str], on_error: OnError
) -> tuple[pa.RecordBatch, tuple[Binding, ...]]:
    """Binds columns as their first rows show them; where bad rows are recorded, as most of the first rows do.

    Text counts as the numbers that it spells only where nothing else fits: a name that looks like a number is not
    meant as one.
    """
    if on_error is OnError.RAISE:
        return sample, bind(signature, sample, options)
    usual = with_usual_lists(sample)
    try:
        return usual, bind(signature, usual, options)
    except ConfigError:
        numbers = with_numbers(usual)
        if numbers.schema == usual.schema:
            raise
        try:
            return numbers, bind(signature, numbers, options)
        except ConfigError:
            pass
        raise


def _finish(
    given: Sequence[Port], bindings: tuple[Binding, ...], options: RowOptions
) -> tuple[FunctionFinish | None, tuple[Reduction, ...], tuple[OutputColumn, ...]]:
    """Decides what outputs become."""
    has_batch = any(binding.has_batch for binding in bindings)
    if options.postprocess is None:
        wanted, reductions = plan_results(given, options.results, has_batch=has_batch)
        return None, reductions, output_columns(wanted, bindings)
    if options.results.finds_classes:
        raise ConfigError("--postprocess gets all scores: find the best classes there, or leave it out")
    taken = chosen_outputs(given, options.results)
    takes = output_columns(taken, bindings)
    bytes_per_row = sum(_bytes_per_row(column) for column in takes)
    finish, made = plan_finish(
        options.postprocess,
        taken,
        takes,
        has_batch=has_batch,
        batch_rows=max(1, min(READ_BYTES // bytes_per_row, READ_MAX_ROWS)),
    )
    return finish, (), output_columns(as_stored(made, options.results), bindings)


def _bytes_per_row(column: OutputColumn) -> int:
    """Returns about how many bytes a column takes for each row; one of open length counts as one value."""
    return (column.values_per_row or 1) * column.dtype.itemsize
