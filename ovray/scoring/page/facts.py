"""What a report page is made of: frozen records, and the story of the job.

May not enter: markup, how a job runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from ovray.core.ids import ReplicaId
from ovray.devices.records import Plan, ReplicaSpec
from ovray.driver.journal import Journal


class Ending(Enum):
    """Says how a run ended."""

    DONE = "every row is done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFacts:
    """Says where the rows came from."""

    #: As typed, or what was given instead.
    names: tuple[str, ...]
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """Says what was to be done."""

    model: str
    #: As typed.
    inputs: tuple[str, ...]
    files: int
    input_bytes: int
    output: str
    #: Of the whole data set, and of these what an earlier run had done.
    rows: int
    resumed_rows: int
    #: What feeds the model, and the columns of results, by name.
    bindings: Mapping[str, str]
    results: Mapping[str, str]
    #: As flags, those that were given or decide much.
    options: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """Says how a run went."""

    job: JobFacts
    began: datetime
    #: The whole call, start-up too.
    seconds: float
    #: On which machine the driver ran.
    host: str
    ending: Ending
    #: Why it failed.
    error: str = ""
    plan: Plan
    #: Every replica that was started, those that joined later included.
    specs: tuple[ReplicaSpec, ...]
    journal: Journal
    #: Why replicas that were wanted did not take part, or left.
    failures: Mapping[ReplicaId, str] = field(default_factory=dict)
    #: Rows that could not be scored and were put aside, those of earlier runs too.
    errors: int = 0
    #: What was wrong with the first of them.
    first_error: str = ""
