"""What a check found: plain frozen records.

May not enter: ray, openvino, files.  Who finds: hostchecks.py on each host, doctor.py across hosts.
"""

from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class Status(Enum):
    """Says how much a finding matters."""

    OK = "ok"
    INFO = "info"  # worth knowing, nothing to mend
    WARN = "warn"  # works, but slower, tighter or less safe than it should be
    FAIL = "fail"  # something that was asked for does not work


#: With any of these, not all is well.
TROUBLE = frozenset({Status.WARN, Status.FAIL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check says about one host."""

    #: Short and fixed, for scripts: ``cpu-quota``.
    check: str
    #: Host name as Ray knows it; ``cluster`` where it is about all of them.
    host: str
    status: Status
    #: What was found, in a sentence.
    what: str
    #: What to do about it; empty where there is nothing to do.
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that ``ovray doctor`` found."""

    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Returns whether there is nothing to mend."""
        return not any(finding.status in TROUBLE for finding in self.findings)

    def rows(self) -> list[dict[str, str]]:
        """Returns one row a finding, with the keys of ``ovray doctor --json``."""
        return [{**asdict(finding), "status": finding.status.value} for finding in self.findings]

    def to_pandas(self) -> "pd.DataFrame":
        """Returns the rows as a DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=["check", "host", "status", "what", "mend"])


def finding_from_json(fields: dict[str, Any], host: str) -> Finding:
    """Returns a finding that a host wrote with ``wire.to_json``, under the name that Ray has for that host."""
    return Finding(**{**fields, "host": host, "status": Status(fields["status"])})
