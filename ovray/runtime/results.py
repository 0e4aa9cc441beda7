"""Turns what replicas answered into what OpenVINO's callers get: arrays by port, index or name.

May not enter: requests, the pool.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.utils.data_helpers import OVDict as _OVDict

from ovray.runtime.ports import Ports

Array = NDArray[Any]


class OVDict(_OVDict):  # type: ignore[misc]  # openvino is untyped
    """Holds the results of one inference: OpenVINO's own mapping, whose keys are the model's ports.

    Look up by port, index or name; ``to_dict``, ``to_tuple``, ``names``, ``keys``, ``values`` and ``items`` are as
    in OpenVINO.  The arrays are the caller's: writable, and untouched by later inferences.

    Raises:
        KeyError: there is no such output.
        TypeError: a key that is neither port, index nor name.

    Example:
        >>> results = compiled(np.ones((1, 32), np.float32))
        >>> results["logits"].shape, results[1].shape, results[compiled.output("total")].dtype
        ((1, 3), (1, 1), dtype('float32'))
    """

    __slots__ = ()

    def __getitem__(self, key: Any) -> Array:
        found: Array = self._dict[key] if isinstance(key, ov.Output) else super().__getitem__(key)
        return found


class Text(Enum):
    """Says what becomes of an output of text."""

    DECODED = "decoded"  # an array of kind U
    BYTES = "bytes"  # an array of kind S, UTF-8

    @classmethod
    def of(cls, decode_strings: bool) -> "Text":  # noqa: FBT001 (OpenVINO's own flag)
        return cls.DECODED if decode_strings else cls.BYTES


def results_of(outputs: Sequence[Array], ports: Ports, text: Text = Text.DECODED) -> OVDict:
    """Gives outputs, in the order of the ports, the form that callers know."""
    return OVDict(
        {port: _writable(as_numpy(array, text)) for port, array in zip(ports.outputs, outputs, strict=True)}
    )


def fresh(outputs: Sequence[Array], ports: Ports) -> OVDict:
    """Gives outputs that are copies already, and no text, the form that callers know."""
    if len(outputs) == 1:
        return OVDict({ports.outputs[0]: outputs[0]})
    return OVDict(dict(zip(ports.outputs, outputs, strict=True)))


def _writable(array: Array) -> Array:
    """Copies what Ray shares between processes, and so hands over read-only."""
    return array if array.flags.writeable else array.copy()


def as_numpy(array: Array, text: Text) -> Array:
    """Gives text the dtype that OpenVINO gives it; other arrays stay as they are."""
    if array.dtype != object:
        return array
    if text is Text.DECODED:
        return array.astype(np.str_)
    return np.char.encode(array.astype(np.str_), "utf-8")
