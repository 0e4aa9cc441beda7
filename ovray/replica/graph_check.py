"""Asks a model's graph whether it can take given shapes, without a device: for the blame of a failed inference.

May not enter: compiled models.
"""

from collections import OrderedDict

import openvino as ov

from ovray.replica.envelope import TensorShape
from ovray.replica.model import last_line, unpack
from ovray.replica.signature import PackedModel

#: A caller that repeats its mistake should not make the replica read the model each time.
_ANSWERS_KEPT = 256


class GraphCheck:
    """Knows a packed model, and reads it only once a question comes: the weights would take memory for nothing."""

    def __init__(self, model: PackedModel) -> None:
        self._model = model
        self._answers: OrderedDict[tuple[TensorShape, ...], str | None] = OrderedDict()

    def refusal(self, shapes: tuple[TensorShape, ...]) -> str | None:
        """Says why the graph cannot take inputs of these shapes; ``None`` if it can.

        Two threads may ask at once, and then both read the model.
        """
        if shapes not in self._answers:
            self._answers[shapes] = self._ask(shapes)
            while len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return self._answers[shapes]

    def _ask(self, shapes: tuple[TensorShape, ...]) -> str | None:
        model = unpack(self._model)
        try:
            model.reshape({index: ov.PartialShape(list(shape)) for index, shape in enumerate(shapes)})
        except RuntimeError as error:
            return last_line(error)
        return None
