"""OpenVINO inference over every device of a Ray cluster.

Only hands names on; each room below says what it holds.
"""

from ovray.errors import (
    CompileError,
    ConfigError,
    DataError,
    InvariantError,
    OvrayError,
    ReplicaError,
    ReplicaLostError,
)

__all__ = [
    "CompileError",
    "ConfigError",
    "DataError",
    "InvariantError",
    "OvrayError",
    "ReplicaError",
    "ReplicaLostError",
]
