"""Carries the kept columns of a chunk past inference, and parts those of good rows from those of bad ones.

May not enter: which columns are kept (columns.py).
"""

import numpy as np
import pyarrow as pa

from ovray.scoring.bad_rows import BadRows, Run, Stage, runs_of


class KeptColumns:
    """Holds the kept columns of all rows of a chunk that could be read, in order."""

    def __init__(self, schema: pa.Schema) -> None:
        """Begins without a row."""
        self.schema = schema
        self._batches: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes in the next rows."""
        self._batches.append(batch.select(self.schema.names))

    def of_good(self, bad: BadRows) -> list[pa.Array]:
        """Returns the columns of the good rows."""
        batches = self._batches
        if bad.count:
            stages = bad.stages()
            batches = self._picked(runs_of(stages[stages != Stage.READ] == 0))
        return [_joined([batch.column(field.name) for batch in batches], field) for field in self.schema]

    def of_bad(self, bad: BadRows) -> list[pa.Array]:
        """Returns the columns of the bad rows, in order; null where they could not be read."""
        if not self.schema.names:
            return []
        before = np.cumsum(bad.stages() != Stage.READ)
        found: list[pa.RecordBatch] = []
        for run in bad.runs():
            rows = run.stop - run.start
            if run.stage is Stage.READ:
                nulls = [pa.nulls(rows, field.type) for field in self.schema]
                found.append(pa.RecordBatch.from_arrays(nulls, names=self.schema.names))
            else:
                first = int(before[run.start]) - 1
                found.extend(self._picked([(first, first + rows)]))
        return [_joined([batch.column(field.name) for batch in found], field) for field in self.schema]

    def _picked(self, runs: list[Run]) -> list[pa.RecordBatch]:
        """Returns runs of the rows; by slices, which every type has, where Arrow's filter lacks some."""
        if not self.schema.names:
            return []
        table = pa.Table.from_batches(self._batches, self.schema)
        return [batch for start, stop in runs for batch in table.slice(start, stop - start).to_batches()]


def _joined(pieces: list[pa.Array], field: pa.Field) -> pa.Array:
    return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces or [pa.array([], field.type)])
