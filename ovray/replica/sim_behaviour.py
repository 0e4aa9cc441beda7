"""How a simulated device behaves, apart from its pace: what it answers, and what troubles it.

May not enter: ray, openvino, engines.  Both engines that simulate ask here: sim_engine.py and sim_requests.py.
"""

import math
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovray.errors import ConfigError, ReplicaError
from ovray.replica.element_types import NUMPY_TYPES, PACKED_TYPES, TEXT, zeros
from ovray.replica.signature import Port, Signature

#: How often a device that hangs looks whether it still is to.
_LOOK_S = 0.05

_FAILS, _HANGS = "fails", "hangs"

#: NumPy holds the bits of these by types that mean other numbers.
_HELD_AS_BITS = ("bf16", "f8e4m3", "f8e5m2", "f8e8m0")


class SimAnswer(Enum):
    """Says what a simulated device answers."""

    ZEROS = "zeros"
    #: In each row of the results the sum of the row's inputs: so a rehearsal can tell whose answer came back.
    SUM = "sum"


class Trouble:
    """Looks up in a file, at each inference, what troubles the device of this host.

    The file says ``fails``, ``hangs``, or a number by which the speed is multiplied; nothing, or no file: all is
    well.
    """

    def __init__(self, file: Path | None) -> None:
        """Stores; ``None`` is a device that nothing troubles."""
        self._file = file

    def speed(self) -> float:
        """Says how fast the device is just now, 1 being its own speed; does not return while it hangs.

        Raises:
            ReplicaError: it fails.
        """
        while (said := self._said()) == _HANGS:
            time.sleep(_LOOK_S)
        if not said:
            return 1.0
        if said == _FAILS:
            raise ReplicaError(f"the simulated device fails, as {self._file} says")
        try:
            factor = float(said)
        except ValueError:
            factor = math.nan
        if not 0.0 < factor < math.inf:
            raise ReplicaError(
                f"{self._file} says {said[:40]!r}; legal are {_FAILS}, {_HANGS}, and a factor of speed above 0"
            )
        return factor

    def _said(self) -> str:
        if self._file is None:
            return ""
        try:
            return self._file.read_text().strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise ReplicaError(f"{self._file} cannot be read: {error}") from error


def check_summable(signature: Signature) -> None:
    """Holds a model against ``SimAnswer.SUM``.

    Raises:
        ConfigError: it has an input or output of no numbers that NumPy knows.
    """
    for port in (*signature.inputs, *signature.outputs):
        if port.element_type == TEXT or port.element_type in PACKED_TYPES or port.element_type in _HELD_AS_BITS:
            raise ConfigError(
                f"SIM?answer=sum adds up numbers, and {port.name!r} of the model is {port.element_type}; leave"
                " answer out for zeros"
            )


def row_sums(inputs: Sequence[NDArray[Any]], rows: int) -> NDArray[np.float64]:
    """Adds up each row of the inputs; one without so many rows counts in each.

    Returns:
        float64[rows]
    """
    sums: NDArray[np.float64] = np.zeros(rows)
    for array in inputs:
        if array.ndim and len(array) == rows:
            sums += array.reshape(rows, -1).sum(axis=1, dtype=np.float64)
        else:
            sums += array.sum(dtype=np.float64)
    return sums


def filled(port: Port, shape: tuple[int, ...], sums: NDArray[np.float64]) -> NDArray[Any]:
    """Makes an output that holds these sums in its rows; where it has other rows, their total."""
    made = zeros(port.element_type, shape)
    is_by_row = bool(shape) and shape[0] == len(sums)
    values = sums.reshape(-1, *(1,) * (len(shape) - 1)) if is_by_row else sums.sum()
    made[...] = np.asarray(values).astype(NUMPY_TYPES[port.element_type])
    return made
