"""What a replica is given and what it says of itself: the vocabulary between driver and actor.

May not enter: openvino, ray; what the work is about.
"""

import threading
from dataclasses import dataclass
from typing import Any, Protocol

from ovray.replica.engine import Engine, EngineInfo
from ovray.replica.signature import PackedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Says what a replica is to compile."""

    model: PackedModel
    #: Rows that one inference takes.
    batch_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """Says what a replica turned out to be once it was ready."""

    pid: int
    engine: EngineInfo
    memory_policy: str | None
    rss_mb: float


class Runner(Protocol):
    """Runs one kind of work on an engine, piece by piece, from up to ``WORK_THREADS`` threads."""

    def run(self, piece: Any, cancelled: threading.Event) -> Any:
        """Runs one piece and returns what the driver is to know of it; both travel through Ray.

        Work that answers with rows, too, returns a pair: what the driver is to know, and the rows.

        Ends soon, with any error, once ``cancelled`` is set.
        """
        ...


class Work(Protocol):
    """Travels to a replica once and makes the runner there."""

    def open(self, engine: Engine) -> Runner:
        """Makes the runner."""
        ...
