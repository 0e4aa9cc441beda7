"""The models and inputs of the benchmarks of requests: what is asked, whoever answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import openvino.opset15 as ops

from tests.benchmarks.works import a_perceptron

_TOPOLOGIES = Path(onnx.__file__).parent / "backend/test/data/light"

#: Different enough that nothing is answered from a cache.
_INPUTS = 64

_WORDS, _WIDTH, _TEXT_LAYERS = 8192, 128, 2
_SHORTEST, _LONGEST = 8, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestWork:
    """Is a model, and inputs for its requests."""

    name: str
    model: Path
    #: How many requests are in flight where all sides are to have the same number.
    outstanding: int
    #: Requests in flight that arrivals at random may need at most.
    most_in_flight: int

    def inputs(self) -> Sequence[Any]:
        """Makes the inputs, the same in every process."""
        chance = np.random.default_rng(0)
        if self.name == "mlp":
            return [chance.standard_normal((1, 32), dtype=np.float32) for _ in range(_INPUTS)]
        if self.name == "text":
            lengths = chance.integers(_SHORTEST, _LONGEST + 1, _INPUTS)
            return [chance.integers(0, _WORDS, (1, length)) for length in lengths]
        return [chance.standard_normal((1, 3, 224, 224), dtype=np.float32) for _ in range(8)]


def an_image_work(name: str) -> RequestWork:
    """Takes ``squeezenet`` or ``resnet50`` from the onnx package: float32[1, 3, 224, 224], 600 KB."""
    return RequestWork(name=name, model=_TOPOLOGIES / f"light_{name}.onnx", outstanding=8, most_in_flight=64)


def an_mlp_work(folder: Path) -> RequestWork:
    """Makes 32-64-64-1 with an open batch."""
    model = folder / "mlp.xml"
    ov.save_model(a_perceptron(), model, compress_to_fp16=False)
    return RequestWork(name="mlp", model=model, outstanding=256, most_in_flight=256)


def a_text_work(folder: Path) -> RequestWork:
    """Makes a small encoder of word ids, int64[n, length], that gives two scores for each row."""
    chance = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return (chance.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    def times(values: Any, *shape: int) -> Any:
        return ops.matmul(values, weights(*shape), False, False)

    ids = ops.parameter([-1, -1], np.int64, name="ids")
    words = ops.gather(ops.constant(weights(_WORDS, _WIDTH)), ids, ops.constant(np.int64(0)))
    for _ in range(_TEXT_LAYERS):
        query, key, value = (times(words, _WIDTH, _WIDTH) for _ in range(3))
        scale = np.float32(1 / np.sqrt(_WIDTH))
        heed = ops.softmax(ops.multiply(ops.matmul(query, key, False, True), scale), 2)
        words = ops.add(words, ops.matmul(heed, value, False, False))
        inner = ops.gelu(times(words, _WIDTH, 4 * _WIDTH), "erf")
        words = ops.add(words, times(inner, 4 * _WIDTH, _WIDTH))
    scores = times(ops.reduce_mean(words, ops.constant(np.int64(1))), _WIDTH, 2)
    scores.output(0).set_names({"scores"})
    model = folder / "text.xml"
    ov.save_model(ov.Model([scores], [ids], "text"), model, compress_to_fp16=False)
    return RequestWork(name="text", model=model, outstanding=16, most_in_flight=128)
