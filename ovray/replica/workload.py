"""What a replica is given and what it says of itself: the vocabulary between driver and actor.

May not enter: openvino, ray; what the work is about.
"""

import threading
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol

from ovray.errors import ConfigError
from ovray.replica.engine import Engine, EngineInfo
from ovray.replica.signature import PackedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Says what a replica is to compile for the rows of a data set."""

    model: PackedModel
    #: Rows that one inference takes.
    batch_rows: int
    #: Where the class of its work is; loaded beside the compilation, because the first piece would wait for it.
    work_module: str | None = None


class Merging(Enum):
    """Says when requests may be joined into one tensor."""

    IF_INDEPENDENT = "if independent"  # the graph shows that no row of a batch depends on another
    ALWAYS = "always"  # the caller knows that it is so
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Says how requests that arrive together are inferred together.

    Example:
        >>> Batching(batch_size=16, timeout_ms=2.0).merging
        <Merging.IF_INDEPENDENT: 'if independent'>
    """

    #: The most rows of one inference, 1 joins nothing; ``"auto"`` grows while requests wait, and holds none back.
    batch_size: int | Literal["auto"] = "auto"
    #: The longest that a request is held back for others that are likely to come.
    timeout_ms: float = 1.0
    merging: Merging = Merging.IF_INDEPENDENT

    def __post_init__(self) -> None:
        """Raises ``ConfigError`` for what cannot be."""
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise ConfigError(f"batch_size is {self.batch_size!r}; give a whole number from 1 up, or 'auto'")
        if not 0 <= self.timeout_ms < float("inf"):
            raise ConfigError(f"timeout_ms is {self.timeout_ms!r}; give milliseconds from 0 up")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestWorkload:
    """Says what a replica that serves requests is to compile: the model as its caller gave it."""

    model: PackedModel
    batching: Batching


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
