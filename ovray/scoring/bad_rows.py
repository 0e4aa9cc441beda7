"""Keeps account of the rows of one chunk that cannot be scored: which they are, at what they failed, and why.

Rows here count from 0 within the chunk.  May not enter: inference, columns of results; how a failing row is found
(bisecting.py); files of errors (error_files.py).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ovray.errors import DataError
from ovray.scoring.on_error import ErrorOptions, OnError
from ovray.scoring.records import Slice

#: A half-open range of rows.
Run = tuple[int, int]


class Stage(IntEnum):
    """Says at what a row failed; in the order in which a row meets them."""

    READ = 1
    PREPARE = 2
    INFER = 3
    FINISH = 4
    WRITE = 5

    @property
    def text(self) -> str:
        """The name that files and messages have."""
        return self.name.lower()


class BadRowError(DataError):
    """Some rows that were tried together cannot be done, and it is the rows' own fault."""

    def __init__(self, message: str, problem: str | None = None, index: int | None = None) -> None:
        """Names a problem.

        Args:
            message: says where and what.
            problem: says what alone; by default the message.
            index: which of the rows it is, counted from the first that was tried; ``None`` where that is open.
        """
        super().__init__(message)
        self.problem = message if problem is None else problem
        self.index = index


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRun:
    """Names rows, one behind the other, that failed in the same way."""

    start: int
    stop: int
    stage: Stage
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstError:
    """Is the first bad row of a chunk, for messages."""

    #: Counted from 0 over the whole data set.
    row: int
    text: str


class BadRows:
    """Takes in the bad rows of one chunk, or lets the first of them end the job.

    Suits one thread.
    """

    def __init__(self, rows: Run, slices: Sequence[Slice], options: ErrorOptions) -> None:
        """Begins an account.

        Args:
            rows: those of the chunk, counted over the whole data set.
            slices: where they are.
            options: what becomes of bad ones.
        """
        self.start, self.stop = rows
        self.slices = slices
        self._options = options
        self._runs: list[BadRun] = []
        #: Before inference: where rows were left out, counted without them, and how many up to there.
        self._left_out_at: list[int] = []
        self._left_out: list[int] = []
        self.count = 0

    @property
    def raises(self) -> bool:
        """Whether the first bad row ends the job."""
        return self._options.on_error is OnError.RAISE

    def add(self, start: int, stop: int, stage: Stage, problem: str) -> None:
        """Takes in rows; those left out before inference must come in ascending order.

        Raises:
            DataError: rows are not to be bad, or not so many.
        """
        if self.raises:
            raise DataError(f"{self.name_rows(start, stop)}: {problem}")
        self._runs.append(BadRun(start=start, stop=stop, stage=stage, problem=problem))
        if stage < Stage.INFER:
            self._left_out_at.append(start - (self._left_out[-1] if self._left_out else 0))
            self._left_out.append(stop - start + (self._left_out[-1] if self._left_out else 0))
        self.count += stop - start
        most = self._options.max_errors
        if most is not None and self.count > most:
            first = self.first
            assert first is not None
            raise DataError(too_many(self.count, most, first))

    def none_alone(self, error: BadRowError) -> None:
        """Notes that rows failed together, of which none fails alone: what they give alone counts then.

        Raises:
            BadRowError: nothing is to fail.
        """
        if self.raises:
            raise error

    @property
    def good_rows(self) -> NDArray[np.intp]:
        """The rows that are not bad so far."""
        return np.flatnonzero(self.stages() == 0)

    def of_inferred(self, row: int) -> int:
        """Returns which row of the chunk it is that was the ``row``-th to be inferred."""
        at = bisect_right(self._left_out_at, row)
        return row + (self._left_out[at - 1] if at else 0)

    def runs(self) -> Iterator[BadRun]:
        """Yields the bad rows in order."""
        yield from sorted(self._runs, key=lambda run: run.start)

    def stages(self) -> NDArray[np.uint8]:
        """Returns for each of the chunk's rows at what it failed; 0 for good ones."""
        stages = np.zeros(self.stop - self.start, np.uint8)
        for run in self._runs:
            stages[run.start : run.stop] = run.stage
        return stages

    @property
    def first(self) -> FirstError | None:
        """The first bad row."""
        run = min(self._runs, key=lambda run: run.start, default=None)
        if run is None:
            return None
        return FirstError(
            row=self.start + run.start, text=f"{self.name_rows(run.start, run.start + 1)}: {run.problem}"
        )

    def table(self) -> pa.RecordBatch:
        """Returns a row for each bad row, in order: ``file, row, stage, message``."""
        files, rows, stages, problems = [], [], [], []
        for run in self.runs():
            for one, start, stop in _parts(self.slices, run.start, run.stop):
                count = stop - start
                files.append(pa.repeat(one.ref.name, count))
                rows.append(pa.array(np.arange(start, stop, dtype=np.int64)))
                stages.append(pa.repeat(run.stage.text, count))
                problems.append(pa.repeat(run.problem, count))
        columns = [pa.concat_arrays(pieces) for pieces in (files, rows, stages, problems)]
        return pa.RecordBatch.from_arrays(columns, names=list(ERROR_COLUMNS))

    def name_rows(self, start: int, stop: int) -> str:
        """Says which rows of which file these are, as messages show it."""
        (one, first, behind), *others = _parts(self.slices, start, stop)
        what = f"row {first}" if behind - first == 1 else f"rows {first} to {behind - 1}"
        last = f", to {others[-1][0].ref.name}, row {others[-1][2] - 1}" if others else ""
        return f"{one.ref.name}, {what} (the first is 0){last}"


@dataclass(frozen=True, slots=True)
class StageRows:
    """Are the rows of a chunk as a stage counts them, which does not meet those that failed before."""

    bad: BadRows
    stage: Stage
    #: Returns which row of the chunk a row is.
    row_of: Callable[[int], int]

    def blame(self, row: int, error: BadRowError) -> None:
        """Adds a row that fails alone to the bad ones; raises DataError where there may be none."""
        at = self.row_of(row)
        self.bad.add(at, at + 1, self.stage, error.problem)

    def shifted(self, by: int) -> "StageRows":
        """Returns the rows from another first row on."""
        return replace(self, row_of=lambda row: self.row_of(by + row))

    def name_rows(self, start: int, stop: int) -> str:
        """Says which rows of which file these are, as messages show it."""
        return self.bad.name_rows(self.row_of(start), self.row_of(stop - 1) + 1)


#: What a file of errors says of each row, before the kept columns.
ERROR_COLUMNS = ("file", "row", "stage", "message")


def too_many(count: int, most: int, first: FirstError) -> str:
    """Says that more rows are bad than may be."""
    return (
        f"{count:,} rows could not be scored, more than --max-errors {most}; the first is {first.text}; ovray"
        " scored no further and kept what was done; mend the rows and begin anew with --restart, or give the same"
        " command with a larger --max-errors to carry on"
    )


def runs_of(flags: NDArray[np.bool_]) -> list[Run]:
    """Returns where flags are set, as runs in ascending order."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.view(np.int8), [0]))))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _parts(slices: Sequence[Slice], start: int, stop: int) -> Iterator[tuple[Slice, int, int]]:
    """Yields rows of a chunk slice by slice, counted within their files."""
    first = 0
    for one in slices:
        behind = first + one.stop - one.start
        if start < behind and first < stop:
            yield one, one.start + max(start, first) - first, one.start + min(stop, behind) - first
        first = behind
