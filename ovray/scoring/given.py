"""Finds out what a caller gave as inputs: files, rows in memory, batches that come one by one, or a Ray Data set.

Each is a source of rows, and says which shape its results have.  May not enter: how rows are scored, models.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from typing import Any, Protocol

import openvino as ov
import pyarrow as pa

from ovray.driver.session import ray_session
from ovray.errors import ConfigError, DataError
from ovray.replica.model import describe
from ovray.scoring.cells import cells_of
from ovray.scoring.dataset import DataSet
from ovray.scoring.delivery import (
    AsDataset,
    BatchByBatch,
    Collector,
    Framer,
    FramesOfHeld,
    InOneFrame,
    InOneTable,
    InTheirShape,
    NumberedFrames,
)
from ovray.scoring.files import find_files
from ovray.scoring.flow import Flow
from ovray.scoring.graph_steps import declared_layouts
from ovray.scoring.held import Held, HeldArrays, head, hold
from ovray.scoring.held_rows import HeldRows
from ovray.scoring.inspection import inspect_all, inspects_here
from ovray.scoring.job_record import UNKNOWN, InputStamp, stamps_of
from ovray.scoring.on_error import ErrorOptions
from ovray.scoring.options import ScoreOptions
from ovray.scoring.page.facts import InputFacts
from ovray.scoring.picture_columns import fit_pictures
from ovray.scoring.picture_files import IMAGE_COLUMN
from ovray.scoring.ray_datasets import blocks_of, head_of, is_dataset
from ovray.scoring.reading import SAMPLE_ROWS, read_sample
from ovray.scoring.records import Source
from ovray.scoring.row_plan import RowOptions, RowPlan


class Given(Protocol):
    """Is what the caller gave."""

    #: What columns there may be beside those that can be read, for messages.
    unfit: Mapping[str, str]

    @property
    def source(self) -> Source:
        """Its rows."""
        ...

    @property
    def comes_bit_by_bit(self) -> bool:
        """Says whether it is not known yet how many rows there are."""
        ...

    def sample(self) -> pa.RecordBatch:
        """Returns the first rows, with all columns."""
        ...

    def facts(self) -> InputFacts:
        """Returns what it is, for people."""
        ...

    def fit(self, graph: ov.Model, options: RowOptions) -> RowOptions:
        """Decides how rows come, and what is wanted of one, where that was left open; before any is looked at.

        Raises:
            ConfigError: rows cannot come as the model wants them.
        """
        ...

    def stamps(self, plan: RowPlan) -> tuple[InputStamp, ...]:
        """Returns by what another run knows these rows again, as far as they are read."""
        ...

    def pour(self, flow: Flow) -> None:
        """Has the rows flow."""
        ...

    def collector(self, plan: RowPlan, flow: Flow) -> Collector:
        """Returns who makes the results of it."""
        ...

    def framer(self, plan: RowPlan) -> Framer:
        """Returns who makes DataFrames of it."""
        ...


def look_at(inputs: Any, options: ScoreOptions, stack: ExitStack) -> Given:
    """Returns what a caller gave, looked into as far as it must be before anything starts.

    Args:
        inputs: anything that ``score`` documents.
        options: how much of it is wanted, and where to look.
        stack: holds what is needed as long as the rows are read: a connection to Ray, for some.

    Raises:
        ConfigError: it is nothing that ovray reads, has no rows, or is damaged.
    """
    if is_dataset(inputs):
        stack.enter_context(ray_session(options.address))
        wait_s = options.placement.lease_timeout_s
        return GivenDataset(DataSet(blocks_of(inputs, limit=options.limit, wait_s=wait_s), limit=options.limit))
    if isinstance(inputs, (str, os.PathLike)):
        return _look_at_files([inputs], options, stack)
    held = None if isinstance(inputs, pa.RecordBatchReader) else hold(head(inputs, options.limit))
    if held is not None:
        return GivenRows(held)
    if not isinstance(inputs, Iterable):
        raise ConfigError(f"the input is {type(inputs).__name__}; {_LEGAL}")
    batches = iter(inputs)
    first = next(batches, None)
    if isinstance(first, (str, os.PathLike)) or (first is None and isinstance(inputs, Sequence)):
        return _look_at_files([] if first is None else [first, *batches], options, stack)
    return GivenBatches(inputs, _held(chain(() if first is None else (first,), batches), options.limit))


_LEGAL = (
    "give files, a DataFrame, an Arrow table, an array, a dict of arrays, an iterable of these, or a Ray Dataset"
)


def _look_at_files(paths: Sequence[Any], options: ScoreOptions, stack: ExitStack) -> "GivenFiles":
    files = find_files(paths)
    if not inspects_here(files):
        stack.enter_context(ray_session(options.address))
    found = inspect_all(files, rows_wanted=options.limit, on_error=options.errors.on_error)
    return GivenFiles(DataSet(found, limit=options.limit), tuple(map(os.fspath, paths)), options.errors)


def _held(batches: Iterator[Any], limit: int | None) -> Iterator[Held]:
    """Yields batches as ovray sees them, up to so many rows."""
    rows = 0
    for number, batch in enumerate(batches):
        if limit is not None and rows >= limit:
            return
        kind = DataError if number else ConfigError
        try:
            held = hold(head(batch, None if limit is None else limit - rows))
        except ConfigError as error:
            raise kind(f"batch {number}: {error}") from error
        if held is None:
            raise kind(f"batch {number} of the iterable is {type(batch).__name__}; {_LEGAL}")
        rows += held.table.num_rows
        yield held


def _without_itself(held: Held, options: RowOptions) -> RowOptions:
    """Has an array that a function prepares not be a column beside the results, unless somebody says so."""
    is_array = isinstance(held, HeldArrays) and held.is_single
    return replace(options, keep=()) if is_array and options.keep is None else options


class _Whole:
    """Is what all inputs have in common whose rows are there from the start."""

    unfit: Mapping[str, str] = {}
    comes_bit_by_bit = False
    source: Source

    def pour(self, flow: Flow) -> None:
        flow.add(self.source.rows)
        flow.end()

    def fit(self, graph: ov.Model, options: RowOptions) -> RowOptions:
        return options


class GivenFiles(_Whole):
    """Is files; their results are a DataFrame."""

    def __init__(self, data: DataSet, typed: tuple[str, ...], errors: ErrorOptions) -> None:
        self.source: DataSet = data
        self._typed = typed
        self._errors = errors

    def fit(self, graph: ov.Model, options: RowOptions) -> RowOptions:
        """Has pictures decoded for the model; a function gets them as they are."""
        if not self.source.has_pictures or options.preprocess is not None:
            return options
        form, steps = fit_pictures(describe(graph), declared_layouts(graph), options.steps, self._first_size)
        self.source = self.source.with_pictures(form.as_field())
        return replace(options, steps=steps)

    def _first_size(self) -> tuple[int, int]:
        height, width, _ = cells_of(self.sample().column(IMAGE_COLUMN)).shape
        return height or 0, width or 0

    def sample(self) -> pa.RecordBatch:
        return read_sample(self.source, self._errors)

    def facts(self) -> InputFacts:
        files = self.source.files
        return InputFacts(names=self._typed, files=len(files), size_bytes=sum(file.size_bytes for file in files))

    def stamps(self, plan: RowPlan) -> tuple[InputStamp, ...]:
        return stamps_of(self.source)

    def collector(self, plan: RowPlan, flow: Flow) -> Collector:
        return InOneFrame(plan)

    def framer(self, plan: RowPlan) -> Framer:
        return NumberedFrames(plan)


class GivenDataset(_Whole):
    """Is a Ray Data set; so are its results."""

    def __init__(self, data: DataSet) -> None:
        self.source: DataSet = data

    def sample(self) -> pa.RecordBatch:
        first = self.source.files[0]
        batch = head_of(first, min(SAMPLE_ROWS, self.source.rows))
        # Blocks may differ in what is null in them.
        return pa.Table.from_batches([batch]).cast(self.source.schema).to_batches()[0]

    def facts(self) -> InputFacts:
        size_bytes = sum(block.size_bytes for block in self.source.files)
        return InputFacts(names=("the Dataset",), files=0, size_bytes=size_bytes)

    def stamps(self, plan: RowPlan) -> tuple[InputStamp, ...]:
        # Another run may have its blocks in another order, and what made them may make others.
        return (_stamp("the Dataset", self.source.rows, UNKNOWN),)

    def collector(self, plan: RowPlan, flow: Flow) -> Collector:
        return AsDataset(plan)

    def framer(self, plan: RowPlan) -> Framer:
        return NumberedFrames(plan)


class GivenRows(_Whole):
    """Is rows in memory; their results have their shape."""

    def __init__(self, held: Held) -> None:
        if not held.table.num_rows:
            raise ConfigError(f"{held.kind} has no rows")
        self._held = held
        self.source: HeldRows = HeldRows(held.kind, held)
        self.unfit = held.unfit

    def sample(self) -> pa.RecordBatch:
        return self.source.sample(SAMPLE_ROWS)

    def facts(self) -> InputFacts:
        return InputFacts(names=(self._held.kind,), files=0, size_bytes=self._held.table.nbytes)

    def fit(self, graph: ov.Model, options: RowOptions) -> RowOptions:
        return _without_itself(self._held, options)

    def stamps(self, plan: RowPlan) -> tuple[InputStamp, ...]:
        return (_stamp(self._held.kind, self.source.rows, self.source.digest(plan.read_schema.names)),)

    def collector(self, plan: RowPlan, flow: Flow) -> Collector:
        return InTheirShape(plan, self._held)

    def framer(self, plan: RowPlan) -> Framer:
        return FramesOfHeld(plan, self.source)


class GivenBatches:
    """Is batches in memory that come one by one; each has results of its own shape."""

    comes_bit_by_bit = True

    def __init__(self, given: Iterable[Any], batches: Iterator[Held]) -> None:
        """Fetches batches up to the first that has rows."""
        self._given = given
        self._empty: list[Held] = []
        self._batches = batches
        first = next(batches, None)
        while first is not None and not first.table.num_rows:
            self._empty.append(first)
            first = next(batches, None)
        if first is None:
            raise ConfigError("the iterable has no rows")
        self._first = first
        self.source: HeldRows = HeldRows("the batches", first)
        self.unfit = first.unfit

    def sample(self) -> pa.RecordBatch:
        return self.source.sample(SAMPLE_ROWS)

    def facts(self) -> InputFacts:
        return InputFacts(names=("batches",), files=0, size_bytes=0)

    def fit(self, graph: ov.Model, options: RowOptions) -> RowOptions:
        return _without_itself(self._first, options)

    def stamps(self, plan: RowPlan) -> tuple[InputStamp, ...]:
        return (_stamp("the batches", 0, UNKNOWN),)

    def pour(self, flow: Flow) -> None:
        """Fetches batches on a thread of their own, ahead of those that are scored, as far as there is room."""
        flow.add(self.source.rows)
        threading.Thread(target=self._fetch, args=(flow,), name="ovray-batches", daemon=True).start()

    def collector(self, plan: RowPlan, flow: Flow) -> Collector:
        made = BatchByBatch(plan, self.source, self._empty, flow)
        return InOneTable(made) if isinstance(self._given, pa.RecordBatchReader) else made

    def framer(self, plan: RowPlan) -> Framer:
        return FramesOfHeld(plan, self.source)

    def _fetch(self, flow: Flow) -> None:
        try:
            while flow.wait_for_room():
                held = next(self._batches, None)
                if held is None:
                    flow.end()
                    return
                flow.add(self.source.add(held))
        except BaseException as error:  # noqa: BLE001 (it is raised in the caller's thread)
            flow.fail(error)


def _stamp(what: str, rows: int, digest: str) -> InputStamp:
    return InputStamp(location=what, rows=rows, size_bytes=0, modified_ns=None, digest=digest)
