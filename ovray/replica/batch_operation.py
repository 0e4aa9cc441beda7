"""What a walk over a graph knows of values and operations: where rows are, and how they are told to mix.

May not enter: devices, what operations do to rows (batch_rules.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ovray.replica.batch_layouts import Shape


class Mixes(Exception):  # noqa: N818 - a verdict on its way to the caller, not a fault
    """Rows of a batch may depend on each other; says where."""


class Sized(Enum):
    """Is the state of a value that was computed from the batch size and changes with it."""

    BY_BATCH = "by batch"


SIZED = Sized.BY_BATCH


class Rows(NamedTuple):
    """Is the state of a value that holds rows: its dimension ``axis`` has ``before * batch * after`` elements.

    They lie as in an array of the shape ``[before, batch, after]``: a reshape that flattens neighbours of the
    batch into its dimension keeps rows apart.
    """

    axis: int
    before: int = 1
    after: int = 1


#: ``None``: the same for every batch.
State = Rows | Sized | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Is one operation as a rule sees it."""

    node: ov.Node
    #: Of each input.
    states: Sequence[State]
    #: At the first of the two batch sizes, as all shapes here unless they are called other.
    shapes: Sequence[Shape]
    output_shapes: Sequence[Shape]
    other_output_shapes: Sequence[Shape]
    #: What each input holds at either batch size, where that follows from constants and shapes.
    values: Sequence[tuple[NDArray[Any], NDArray[Any]] | None]

    @property
    def kind(self) -> str:
        """Names the type of operation."""
        return str(self.node.get_type_name())

    @property
    def title(self) -> str:
        """Names the operation for people."""
        return f"{self.kind} {self.node.get_friendly_name()!r}"

    @property
    def attributes(self) -> dict[str, Any]:
        """Gives the attributes by name."""
        found: dict[str, Any] = self.node.get_attributes()
        return found

    def mixes(self, how: str) -> Mixes:
        """Makes the refusal."""
        return Mixes(f"{self.title} {how}")

    def rows(self, index: int) -> Rows:
        """Returns where an input has its rows; refuses one that has none."""
        state = self.states[index] if index < len(self.states) else None
        if not isinstance(state, Rows):
            raise self.mixes(f"takes rows only at another input than {index}")
        return state

    def only_rows(self, *indices: int) -> Rows:
        """Returns where these inputs have their rows, all in one place; refuses if others have any."""
        found = {self.rows(index) for index in indices}
        if len(found) != 1:
            raise self.mixes("takes rows of two tensors that lie in different places")
        for index, state in enumerate(self.states):
            if index not in indices and state is not None:
                raise self.mixes(f"takes rows, or what depends on the batch size, at input {index}")
        return found.pop()

    def constant(self, index: int) -> list[int]:
        """Returns whole numbers that are the same for every batch: axes, orders, pads."""
        value = self.values[index] if index < len(self.values) else None
        if value is None or not np.array_equal(*value):
            raise self.mixes(f"takes axes or lengths at input {index} that are not constant")
        return [int(each) for each in np.ravel(value[0])]

    def constant_but_at(self, index: int, position: int | None) -> None:
        """Refuses lengths that follow the batch anywhere but at one position, which is the batch's own."""
        value = self.values[index]
        if value is None:
            raise self.mixes(f"takes lengths at input {index} that cannot be followed")
        changing = np.flatnonzero(np.ravel(value[0]) != np.ravel(value[1]))
        if any(at != position for at in changing):
            raise self.mixes("takes other lengths from the batch size")
