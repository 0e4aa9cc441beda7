"""OpenVINO inference over every device of a Ray cluster.

Only hands names on; each room below says what it holds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ovray.errors import (
    CompileError,
    ConfigError,
    DataError,
    InvariantError,
    OvrayError,
    ReplicaError,
    ReplicaLostError,
)

if TYPE_CHECKING:
    # A package that can be called is beyond type checkers: they see the function that answers.
    from ovray.driver.inspection import devices, doctor
    from ovray.driver.planning import plan
    from ovray.scoring.report import ScoreReport
    from ovray.scoring.score import iter_score, score
else:
    from ovray import devices

#: Where the names are that bring Ray and OpenVINO with them: fetched when first asked for, so that
#: ``import ovray`` costs nothing and ``ovray --help`` answers at once.
_FETCHED = {
    "ScoreReport": "ovray.scoring.report",
    "doctor": "ovray.driver.inspection",
    "iter_score": "ovray.scoring.score",
    "plan": "ovray.driver.planning",
    "score": "ovray.scoring.score",
}

__all__ = [
    "CompileError",
    "ConfigError",
    "DataError",
    "InvariantError",
    "OvrayError",
    "ReplicaError",
    "ReplicaLostError",
    "ScoreReport",
    "devices",
    "doctor",
    "iter_score",
    "plan",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _FETCHED:
        raise AttributeError(f"module 'ovray' has no attribute {name!r}")
    return getattr(import_module(_FETCHED[name]), name)
