"""Counts the bad rows of a job as its chunks report them, and ends it when there are too many.

May not enter: how they are found, where they are kept.
"""

from dataclasses import dataclass

from ovray.errors import DataError
from ovray.scoring.bad_rows import FirstError, too_many


@dataclass(slots=True, kw_only=True)
class ErrorTally:
    """Is the number of bad rows so far, those of earlier runs too."""

    count: int
    first: FirstError | None
    #: More of them end the job; ``None`` allows any number.
    most: int | None

    def add(self, count: int, first: FirstError | None) -> None:
        """Counts those of a chunk.

        Args:
            count: how many they are.
            first: of them; ``None`` where there are none.

        Raises:
            DataError: they are too many.
        """
        if first is None:
            return
        self.count += count
        if self.first is None or first.row < self.first.row:
            self.first = first
        self.check()

    def check(self) -> None:
        """Raises DataError where there are too many."""
        if self.most is not None and self.first is not None and self.count > self.most:
            raise DataError(too_many(self.count, self.most, self.first))
