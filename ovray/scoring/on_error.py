"""Says what becomes of rows that cannot be scored: they end the job, or are put aside.

Pure words of the command line and of Python.  May not enter: rows, files.
"""

from dataclasses import dataclass
from enum import Enum

from ovray.errors import ConfigError


class OnError(Enum):
    """Says what a row that cannot be scored does; the values are what callers write."""

    #: It ends the job, with an error that names it.
    RAISE = "raise"
    #: It is put into ``_errors``, and the job goes on.
    RECORD = "record"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorOptions:
    """Says what a caller wants to become of rows that cannot be scored."""

    on_error: OnError = OnError.RAISE
    #: More of them end the job; ``None`` allows any number.
    max_errors: int | None = None

    @staticmethod
    def parse(*, on_error: str = OnError.RAISE.value, max_errors: int | None = None) -> "ErrorOptions":
        """Reads what a caller wrote.

        Raises:
            ConfigError: there is no such choice, the number is none, or nothing is recorded that could be counted.
        """
        known = [choice.value for choice in OnError]
        if on_error not in known:
            raise ConfigError(f"--on-error {on_error!r}: give {' or '.join(known)}")
        if max_errors is not None:
            if isinstance(max_errors, bool) or not isinstance(max_errors, int) or max_errors < 0:
                raise ConfigError(f"--max-errors {max_errors!r}: give a whole number from 0, or leave it out")
            if on_error != OnError.RECORD.value:
                raise ConfigError("--max-errors counts rows that are recorded; give --on-error record with it")
        return ErrorOptions(on_error=OnError(on_error), max_errors=max_errors)
