"""Sees a caller's rows in memory as an Arrow table, and gives results the caller's shape.

A DataFrame, an Arrow table or record batch, an array, a dict of arrays: each is left untouched, and each gets back
its own kind.  Columns that are only carried over never leave this process.
May not enter: Ray; which rows are scored when (held_rows.py).
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ovray.errors import ConfigError
from ovray.scoring.files import one_line
from ovray.scoring.numpy_arrays import to_column
from ovray.scoring.numpy_files import ARRAY_COLUMN
from ovray.scoring.outputs import OutputColumn, to_array

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of NumPy's types that Arrow shares the memory of; booleans it packs.
_NUMBERS = "fiub"


class Held(Protocol):
    """Is some rows in this process's memory."""

    @property
    def kind(self) -> str:
        """What the caller gave, as messages call it."""
        ...

    @property
    def table(self) -> pa.Table:
        """The rows; where the layouts agree, a view of the caller's memory."""
        ...

    @property
    def unfit(self) -> Mapping[str, str]:
        """Columns that Arrow cannot hold, and why; ``table`` has nulls in their place."""
        ...

    def with_results(self, kept: Sequence[str], results: pa.Table, outputs: Sequence[OutputColumn]) -> Any:
        """Returns columns that are carried over and results, for all rows, in the caller's shape.

        Args:
            kept: names of columns.
            results: a row for each row.
            outputs: what the columns of ``results`` are.
        """
        ...

    def frame(self, kept: Sequence[str], start: int, stop: int) -> "pd.DataFrame":
        """Returns columns that are carried over, of some rows, as a new DataFrame; a DataFrame keeps its index."""
        ...


def hold(given: Any) -> Held | None:
    """Returns rows as ovray sees them; ``None`` where they are in none of the shapes that it knows.

    Raises:
        ConfigError: they are, but cannot be rows.
    """
    if _is_frame(given):
        return hold_frame(given)
    if isinstance(given, (pa.Table, pa.RecordBatch)):
        return hold_table(given)
    if isinstance(given, Mapping):
        return HeldArrays(_arrays(given), is_single=False)
    if hasattr(given, "__array__"):  # NumPy's own, and what others have that can become one
        return HeldArrays(_arrays({ARRAY_COLUMN: given}), is_single=True)
    return None


def _is_frame(given: Any) -> bool:
    """Says whether this is a DataFrame; where nobody has imported pandas, which takes a while, nothing is."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(given, pandas.DataFrame)


def head(given: Any, rows: int | None) -> Any:
    """Returns the first rows of what ``hold`` takes, in its shape; all of them where ``rows`` is ``None``."""
    if rows is None:
        return given
    if _is_frame(given):
        return given.iloc[:rows]
    if isinstance(given, (pa.Table, pa.RecordBatch)):
        return given.slice(0, rows)
    if isinstance(given, Mapping):
        return {name: values[:rows] for name, values in given.items()}
    return given[:rows] if hasattr(given, "__array__") else given


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """Is a DataFrame."""

    given: "pd.DataFrame"
    table: pa.Table
    unfit: Mapping[str, str]
    kind: str = "the DataFrame"

    def with_results(
        self, kept: Sequence[str], results: pa.Table, outputs: Sequence[OutputColumn]
    ) -> "pd.DataFrame":
        frame = self.frame(kept, 0, len(self.given))
        made = results.to_pandas()
        for output in outputs:
            frame[output.name] = made[output.name].array
        return frame

    def frame(self, kept: Sequence[str], start: int, stop: int) -> "pd.DataFrame":
        places = [self.table.schema.names.index(name) for name in kept]
        return self.given.iloc[start:stop, places].copy()


@dataclass(frozen=True, slots=True)
class HeldTable:
    """Is an Arrow table or record batch."""

    given: pa.Table | pa.RecordBatch
    table: pa.Table
    unfit: Mapping[str, str]
    kind: str = "the Arrow table"

    def with_results(
        self, kept: Sequence[str], results: pa.Table, outputs: Sequence[OutputColumn]
    ) -> pa.Table | pa.RecordBatch:
        made = self.table.select(list(kept))
        for output in outputs:
            made = made.append_column(output.field, results.column(output.name))
        if isinstance(self.given, pa.Table):
            return made
        columns = [_combined(column) for column in made.columns]
        return pa.RecordBatch.from_arrays(columns, schema=made.schema)

    def frame(self, kept: Sequence[str], start: int, stop: int) -> "pd.DataFrame":
        return _as_frame(self.table, kept, start, stop)


class HeldArrays:
    """Is an array, or several that count the same rows."""

    kind = "the array"
    unfit: Mapping[str, str] = {}

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, is_single: bool) -> None:
        """Sees arrays as columns."""
        self._arrays = arrays
        self.is_single = is_single
        self.table = pa.table({name: _array_column(name, array) for name, array in arrays.items()})
        if not is_single:
            self.kind = "the dict of arrays"

    def with_results(
        self, kept: Sequence[str], results: pa.Table, outputs: Sequence[OutputColumn]
    ) -> NDArray[Any] | dict[str, NDArray[Any]]:
        made = {name: self._arrays[name].copy() for name in kept}
        made |= {output.name: to_array(results.column(output.name), output) for output in outputs}
        return next(iter(made.values())) if self.is_single and len(made) == 1 else made

    def frame(self, kept: Sequence[str], start: int, stop: int) -> "pd.DataFrame":
        return _as_frame(self.table, kept, start, stop)


def hold_frame(given: "pd.DataFrame") -> HeldFrame:
    """Sees a DataFrame as a table; numbers are not copied, and NaN stays a number."""
    columns: dict[str, Any] = {}
    unfit: dict[str, str] = {}
    for place, label in enumerate(given.columns):
        name = str(label)
        if name in columns:
            raise ConfigError(f"the DataFrame has more than one column named {name!r}; rename one")
        try:
            columns[name] = _frame_column(given.iloc[:, place])
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            columns[name] = pa.nulls(len(given))
            unfit[name] = one_line(error)
    return HeldFrame(given, pa.table(columns), unfit)


def hold_table(given: pa.Table | pa.RecordBatch) -> HeldTable:
    """Sees an Arrow table as what it is."""
    names = given.schema.names
    doubled = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    if doubled:
        raise ConfigError(f"the Arrow table has more than one column named {doubled[0]!r}; rename one")
    is_table = isinstance(given, pa.Table)
    return HeldTable(given, given if is_table else pa.Table.from_batches([given]), {})


def _frame_column(series: "pd.Series[Any]") -> Any:
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in _NUMBERS:
        return to_column(np.ascontiguousarray(series.to_numpy()), ())
    first = next((cell for cell in series if cell is not None), None) if series.dtype == object else None
    if isinstance(first, np.ndarray) and first.ndim > 1:
        # Arrow takes arrays of one dimension as lists; of others it would say no more than that it does not.
        stacked = np.stack(list(series))
        return to_column(stacked.reshape(-1), stacked.shape[1:])
    return pa.Array.from_pandas(series)


def _arrays(given: Mapping[Any, Any]) -> dict[str, NDArray[Any]]:
    if not given:
        raise ConfigError("the dict of arrays is empty; give an array for each column")
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in given.items():
        array = np.asarray(values)
        if not isinstance(name, str):
            raise ConfigError(f"the dict of arrays has the key {name!r}; names of columns are text")
        if array.ndim == 0:
            raise ConfigError(f"{name!r} is a single value ({array.dtype}), not an array with a row for each row")
        arrays[name] = array
    first, *others = arrays
    for other in others:
        if len(arrays[other]) != len(arrays[first]):
            raise ConfigError(
                f"array {first!r} has {len(arrays[first])} rows but {other!r} has {len(arrays[other])}; all need"
                " as many"
            )
    return arrays


def _array_column(name: str, array: NDArray[Any]) -> pa.Array:
    if not all(array.shape[1:]):
        raise ConfigError(f"array {name!r}: its rows hold no values: it is {array.dtype}{list(array.shape)}")
    try:
        return to_column(np.ascontiguousarray(array).reshape(-1), array.shape[1:])
    except (pa.ArrowException, TypeError) as error:
        raise ConfigError(f"array {name!r} of {array.dtype} has no Arrow type: {one_line(error)}") from error


def _as_frame(table: pa.Table, kept: Sequence[str], start: int, stop: int) -> "pd.DataFrame":
    rows = table.select(list(kept)).slice(start, stop - start)
    frame: pd.DataFrame = rows.replace_schema_metadata().to_pandas()
    return frame.reindex(range(stop - start))  # without columns it has lost its rows


def _combined(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)
