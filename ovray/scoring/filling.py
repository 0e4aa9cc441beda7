"""Fills one infer request after the other with rows and starts each that is full.

Rows that were read together need not be inferred together: a slot is filled across the edges of row groups and
files.  May not enter: reading, results, what becomes of rows that cannot be fed.
"""

import time
from functools import partial

from ovray.replica.engine import Engine, Slot, Tensors
from ovray.scoring.bad_rows import BadRowError, StageRows
from ovray.scoring.bisecting import bisected
from ovray.scoring.feeding import Feed
from ovray.scoring.results import ChunkResults
from ovray.scoring.row_plan import RowPlan


class Filling:
    """Fills the slots of one engine for one chunk.

    Leaving its ``with`` block gives back a slot that was not started.  Suits one thread.
    """

    def __init__(self, plan: RowPlan, engine: Engine, results: ChunkResults) -> None:
        self._plan = plan
        self._engine = engine
        self._results = results
        self._slot: Slot | None = None
        self._rows_in_slot = 0
        self._rows_started = 0
        #: For how long there was no idle slot.
        self.waited_s = 0.0

    def __enter__(self) -> "Filling":
        return self

    def __exit__(self, *_: object) -> None:
        if self._slot is not None:
            self._engine.give_back(self._slot)

    def add(self, feed: Feed, rows: int, prepared: StageRows) -> None:
        """Puts rows into slots.

        Those that cannot be fed are blamed, in order; ``prepared`` counts from the feed's first.
        """
        at = 0
        while at < rows:
            taken = min(self._plan.batch_rows - self._rows_in_slot, rows - at)
            try:
                self._put(feed, at, at + taken)
            except BadRowError:
                for _ in bisected(at, at + taken, partial(self._put, feed), prepared.blame):
                    pass
            if self._rows_in_slot == self._plan.batch_rows:
                self.flush()
            at += taken

    def flush(self) -> None:
        """Starts what is left; the rows that it lacks repeat what the slot held before and are not kept."""
        if self._slot is None or not self._rows_in_slot:
            return
        slot, rows, first_row = self._slot, self._rows_in_slot, self._rows_started
        self._results.expect()
        self._slot, self._rows_in_slot = None, 0
        self._rows_started += rows

        def answer(outputs: Tensors | None, failure: Exception | None) -> None:
            self._results.arrive(first_row, rows, outputs, failure, slot.inputs)

        self._engine.start(slot, rows, answer)

    def _put(self, feed: Feed, start: int, stop: int) -> None:
        """Puts rows into the slot, all or none."""
        if self._slot is None:
            began_s = time.monotonic()
            self._slot = self._engine.acquire()
            self.waited_s += time.monotonic() - began_s
        behind = self._rows_in_slot + stop - start
        for binding in self._plan.bindings:
            tensor = self._slot.inputs[binding.input_name]
            feed.fill(binding, start, tensor[self._rows_in_slot : behind] if binding.has_batch else tensor[None])
        self._rows_in_slot = behind
