"""Builds small OpenVINO models, one for each shape of input and output that scoring has to cope with.

Weights are random with a fixed seed.  Every builder gives a new model; ``save`` makes a file of one.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import openvino.opset13 as ops

FEATURES = 32

#: A conv net, f32[1, 3, 224, 224] in and f32[1, 1000, 1, 1] out, that the onnx package tests itself with.
SQUEEZENET = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"


def save(model: ov.Model, path: Path) -> Path:
    """Write a model as IR, weights as they are."""
    ov.save_model(model, path, compress_to_fp16=False)
    return path


def a_perceptron(batch: int = -1, *, layers: int = 2, width: int = 64) -> ov.Model:
    """``features`` f32[batch, 32] in; ``logits`` f32[batch, 3] and ``total`` f32[batch, 1] out."""
    features = _input("features", ov.Type.f32, [batch, FEATURES])
    chance = np.random.default_rng(7)
    values, columns = features, FEATURES
    for _ in range(layers):
        weights = (chance.standard_normal((columns, width)) / columns**0.5).astype(np.float32)
        values, columns = ops.tanh(ops.matmul(values, weights, False, False)), width
    logits = ops.matmul(values, chance.standard_normal((columns, 3)).astype(np.float32), False, False)
    total = ops.reduce_sum(logits, [1], keep_dims=True)
    return ov.Model([_output("logits", logits), _output("total", total)], [features], "perceptron")


def a_pair_model() -> ov.Model:
    """``grid`` f32[?,2,3] and ``factor`` f32[?] in; ``scaled`` f32[?,2,3] and ``best`` i64[?] out."""
    grid = _input("grid", ov.Type.f32, [-1, 2, 3])
    factor = _input("factor", ov.Type.f32, [-1])
    scaled = ops.multiply(grid, ops.reshape(factor, [-1, 1, 1], special_zero=False))
    flat = ops.reshape(scaled, [-1, 6], special_zero=False)
    best = ops.topk(flat, ops.constant(np.int64(1)), 1, "max", "none", index_element_type="i64").output(1)
    return ov.Model([_output("scaled", scaled), _output("best", ops.squeeze(best, [1]))], [grid, factor], "pair")


def a_positions_model() -> ov.Model:
    """``x`` f32[1,6] in; ``positions`` i64[1,?] out: where the row is not zero, as many as there are."""
    x = _input("x", ov.Type.f32, [1, 6])
    found = ops.non_zero(x, output_type="i64")
    positions = ops.unsqueeze(ops.gather(found, ops.constant(np.int64(1)), ops.constant(np.int64(0))), [0])
    return ov.Model([_output("positions", positions)], [x], "positions")


def a_model_without_batch() -> ov.Model:
    """``x`` f32[6] in; ``sum`` f32[] and ``double`` f32[6] out: one row is all that it takes."""
    x = _input("x", ov.Type.f32, [6])
    total = ops.reduce_sum(x, [0], keep_dims=False)
    return ov.Model([_output("sum", total), _output("double", ops.multiply(x, np.float32(2)))], [x], "bare")


def a_picture_model(size: int = 8) -> ov.Model:
    """``image`` f32[?,3,size,size] in; ``scores`` f32[?,5] and ``brightest`` f32[?] out."""
    image = _input("image", ov.Type.f32, [-1, 3, size, size])
    weights = np.random.default_rng(8).standard_normal((3 * size * size, 5)).astype(np.float32) / 100
    flat = ops.reshape(image, [-1, 3 * size * size], special_zero=False)
    scores = ops.matmul(flat, weights, False, False)
    brightest = ops.reduce_max(flat, [1], keep_dims=False)
    return ov.Model([_output("scores", scores), _output("brightest", brightest)], [image], "picture")


def a_half_model() -> ov.Model:
    """``x`` f32[?,6] in; ``half`` f16[?,6] and ``bytes`` u8[?,6] out."""
    x = _input("x", ov.Type.f32, [-1, 6])
    return ov.Model([_output("half", ops.convert(x, "f16")), _output("bytes", ops.convert(x, "u8"))], [x], "half")


def a_wide_sum(width: int) -> ov.Model:
    """``x`` f32[?,width] in; ``sum`` f32[?,1] out: next to no work, however much there is to read."""
    x = _input("x", ov.Type.f32, [-1, width])
    return ov.Model([_output("sum", ops.reduce_sum(x, [1], keep_dims=True))], [x], "wide_sum")


def a_wide_double(width: int) -> ov.Model:
    """``x`` f32[?,width] in; ``double`` f32[?,width] out: as much to write as there is to read."""
    x = _input("x", ov.Type.f32, [-1, width])
    return ov.Model([_output("double", ops.multiply(x, np.float32(2)))], [x], "wide_double")


def an_echo_model() -> ov.Model:
    """``text`` string[?] in; ``echo`` string[?] out."""
    text = _input("text", ov.Type.string, [-1])
    return ov.Model([_output("echo", text)], [text], "echo")


def _input(name: str, kind: ov.Type, shape: list[int]) -> Any:
    parameter = ops.parameter(ov.PartialShape(shape), kind)
    parameter.set_friendly_name(name)
    parameter.output(0).get_tensor().set_names({name})
    return parameter


def _output(name: str, node: Any) -> Any:
    port = node if isinstance(node, ov.Output) else node.output(0)
    result = ops.result(port)
    # Where an input goes straight to an output, both names are its own.
    port.get_tensor().add_names({name})
    result.set_friendly_name(name)
    return result
