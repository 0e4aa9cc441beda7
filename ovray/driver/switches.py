"""Reads the switches of the environment.

May not enter: what they switch.
"""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from ovray.errors import ConfigError

E = TypeVar("E", bound=Enum)


def read_switch(environment: Mapping[str, str], name: str, default: E) -> E:
    """Returns what a variable is set to: a value of the enum of ``default``, which stands where it is not set.

    Raises:
        ConfigError: it is set to something else; the message lists what it may be.
    """
    kind = type(default)
    wanted = environment.get(name) or default.value
    values = [each.value for each in kind]
    if wanted not in values:
        raise ConfigError(f"{name} is {wanted!r}; set it to {' or '.join(map(repr, values))}, or not at all")
    return kind(wanted)
