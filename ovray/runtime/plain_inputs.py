"""Takes the bytes of plain arrays that are exactly what the model's ports want: the most common input, fast.

May not enter: everything else that OpenVINO takes (tensors.py), which is what callers are left with where this
gives ``None``.  OpenVINO's own dispatcher costs some 50 us a request; this, one.
"""

from typing import Any

import numpy as np

from ovray.driver.small_requests import SMALL_BYTES, Kind
from ovray.runtime.ports import Ports

#: Shapes that are known at once; those of a model with open dimensions may be many.
_KINDS_KEPT = 256


class PlainInputs:
    """Knows which arrays fit the ports of one model.  Safe to use from many threads."""

    def __init__(self, ports: Ports) -> None:
        """Looks at the ports once."""
        self._ports = ports
        #: Empty where there are others than arrays that OpenVINO copies byte by byte.
        self._dtypes: tuple[np.dtype[Any], ...] = (
            tuple(fit.dtype for fit in ports.input_fits if fit.dtype is not None) if ports.are_plain else ()
        )
        self._single = self._dtypes[0] if len(self._dtypes) == 1 else None
        #: By the shapes of all inputs; ``None`` is of shapes that do not fit, or are too large.
        self._kinds: dict[tuple[tuple[int, ...], ...] | tuple[int, ...], Kind | None] = {}

    def take(self, inputs: Any) -> tuple[Kind, tuple[bytes, ...]] | None:
        """Takes the bytes of one array for a model with one input, or of a list or tuple of arrays."""
        if type(inputs) is np.ndarray:
            if inputs.dtype is not self._single:
                return None
            shape = inputs.shape
            kind = self._kinds.get(shape)
            if kind is None and (kind := self._kind(shape, (shape,))) is None:
                return None
            return kind, (inputs.tobytes(),)
        if type(inputs) is list or type(inputs) is tuple:
            return self._take_several(inputs)
        return None

    def _take_several(self, inputs: list[Any] | tuple[Any, ...]) -> tuple[Kind, tuple[bytes, ...]] | None:
        if len(inputs) != len(self._dtypes):
            return None
        for array, dtype in zip(inputs, self._dtypes, strict=True):
            if type(array) is not np.ndarray or array.dtype is not dtype:
                return None
        shapes = tuple([array.shape for array in inputs])
        kind = self._kinds.get(shapes)
        if kind is None and (kind := self._kind(shapes, shapes)) is None:
            return None
        return kind, tuple([array.tobytes() for array in inputs])

    def _kind(self, key: Any, shapes: tuple[tuple[int, ...], ...]) -> Kind | None:
        """Judges shapes that are new, or were found not to fit."""
        if key in self._kinds or not self._dtypes:
            return self._kinds.get(key)
        if len(self._kinds) >= _KINDS_KEPT:
            self._kinds.clear()
        return self._kinds.setdefault(key, self._judged(shapes))

    def _judged(self, shapes: tuple[tuple[int, ...], ...]) -> Kind | None:
        size_bytes = sum(
            dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            for dtype, shape in zip(self._dtypes, shapes, strict=True)
        )
        fits = all(
            # Scalars and what is empty have rules of their own.
            len(shape) > 0 and 0 not in shape and fit.takes(fit.element_type, shape)
            for shape, fit in zip(shapes, self._ports.input_fits, strict=True)
        )
        if not fits or size_bytes > SMALL_BYTES:
            return None
        return Kind(dtypes=self._dtypes, shapes=shapes, rows=self._ports.rows(shapes), size_bytes=size_bytes)


class NoPlainInputs:
    """Takes nothing: where requests have spans of their own, all of them go the way on which those are made."""

    def take(self, inputs: Any) -> tuple[Kind, tuple[bytes, ...]] | None:
        """Leaves all inputs to others."""
        return None
