"""What ``ovray.score`` gives back: the figures of a job that has all of its rows.

May not enter: how they came about.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ovray.logs import run_id

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """Says what a scoring job did.  ``to_json`` has the keys of ``ovray score --json``.

    Times are in seconds, speeds in rows per second.

    Example:
        >>> from ovray import digits
        >>> report = ovray.score(digits.model_file(), digits.held_out_file(), output="some-scores", limit=100)
        >>> report.rows, report.errors, int(report.replicas["rows"].sum())
        (100, 0, 100)
    """

    #: Rows in the output.
    rows: int
    #: The whole call.
    seconds: float
    #: From the first replica ready to the last row.
    run_seconds: float
    #: Of the rows that this run scored, over ``run_seconds``.
    rows_per_s: float
    #: Rows in ``_errors``, which could not be scored; those of earlier runs too.
    errors: int
    #: Those of ``rows`` that an earlier run had done.
    resumed_rows: int
    #: The folder that holds the results.
    output: str
    #: One row a replica: ``id, host, device, pid, cpus, nireq, rows, busy_s``.
    replicas: "pd.DataFrame"
    #: By which the run is called in logs, metrics and ``_ovray.json``.
    run: str = field(default_factory=run_id)
    #: What the caller should know although the job ended well, such as a device that could not take part.
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as plain values that ``json.dumps`` takes."""
        return {
            "rows": self.rows,
            "seconds": self.seconds,
            "run_seconds": self.run_seconds,
            "rows_per_s": self.rows_per_s,
            "errors": self.errors,
            "resumed_rows": self.resumed_rows,
            "output": self.output,
            "run": self.run,
            "replicas": [
                {str(key): _plain(value) for key, value in row.items()}
                for row in self.replicas.to_dict(orient="records")
            ],
        }


def _plain(value: Any) -> Any:
    """Turns what pandas hands out into what JSON has."""
    if isinstance(value, tuple):
        return list(value)
    return value.item() if hasattr(value, "item") else value
