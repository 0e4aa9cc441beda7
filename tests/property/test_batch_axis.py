"""The verdict "independent" against numbers: a batch of random rows gives what each row gives alone."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import openvino as ov
import openvino.opset13 as ops
import openvino.opset15 as opset15
import pytest
from hypothesis import event, given, settings

from ovray import digits
from ovray.replica.batch_axis import examine
from tests.integration.models import (
    SQUEEZENET,
    a_half_model,
    a_model_without_batch,
    a_pair_model,
    a_perceptron,
    a_picture_model,
    a_positions_model,
    an_echo_model,
)

ROWS = 5
CHANCE = np.random.default_rng(11)


def f32(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def i64(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def an_input(shape: list[int], kind: ov.Type = ov.Type.f32) -> Any:
    return ops.parameter(ov.PartialShape(shape), kind)


def a_graph(body: Callable[[Any], Any], shape: list[int], kind: ov.Type = ov.Type.f32) -> ov.Model:
    """One input and what the body makes of it."""
    x = an_input(shape, kind)
    made = body(x)
    return ov.Model([ops.result(each) for each in (made if isinstance(made, list) else [made])], [x], "graph")


def check_numbers(model: ov.Model, axes: tuple[int, ...], out_axes: tuple[int, ...]) -> None:
    """Fails where a batch gives other numbers than its rows alone."""
    opened = model.clone()
    shapes = [port.get_partial_shape() for port in opened.inputs]
    for shape, axis in zip(shapes, axes, strict=True):
        shape[axis] = ov.Dimension(-1)
    opened.reshape(dict(enumerate(shapes)))
    compiled = ov.Core().compile_model(opened, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def run(tensors: list[np.ndarray]) -> list[np.ndarray]:
        results = request.infer([np.ascontiguousarray(tensor) for tensor in tensors])
        return [results[index].copy() for index in range(len(opened.outputs))]

    inputs = random_inputs(model, axes)
    together = run(inputs)
    for row in range(ROWS):
        alone = run([each.take([row], axis=axis) for each, axis in zip(inputs, axes, strict=True)])
        for one, all_rows, axis in zip(alone, together, out_axes, strict=True):
            np.testing.assert_allclose(all_rows.take([row], axis=axis), one, rtol=1e-4, atol=1e-5)


def random_inputs(model: ov.Model, axes: tuple[int, ...]) -> list[np.ndarray]:
    inputs = []
    for port, axis in zip(model.inputs, axes, strict=True):
        shape = [
            ROWS if at == axis else (6 if each.is_dynamic else each.get_length())
            for at, each in enumerate(port.get_partial_shape())
        ]
        if port.get_element_type().is_integral():
            inputs.append(CHANCE.integers(0, 3, shape).astype(port.get_element_type().to_dtype()))
        else:
            inputs.append(f32(*shape))
    return inputs


def lstm(x: Any) -> Any:
    """As PyTorch exports it: initial states broadcast to the batch, which the shape tells."""
    rows = ops.gather(ops.shape_of(x), ops.constant(i64(0)), ops.constant(np.int64(0)))
    state = ops.broadcast(
        ops.constant(np.float32(0)), ops.concat([rows, ops.constant(i64(1)), ops.constant(i64(4))], 0)
    )
    lengths = ops.broadcast(ops.gather(ops.shape_of(x), ops.constant(i64(1)), ops.constant(np.int64(0))), rows)
    return ops.lstm_sequence(
        x, state, state, lengths, f32(1, 16, 3), f32(1, 16, 4), f32(1, 16), 4, "FORWARD"
    ).output(0)


def view_of_shape(x: Any) -> Any:
    """``x.view(x.size(0), -1)``, as PyTorch exports it."""
    rows = ops.gather(ops.shape_of(x), ops.constant(i64(0)), ops.constant(np.int64(0)))
    return ops.reshape(x, ops.concat([rows, ops.constant(i64(-1))], 0), special_zero=False)


def by_time(x: Any) -> Any:
    """``[batch, time, features]`` flattened for a matrix product, and back."""
    shape = ops.shape_of(x)
    two = ops.gather(shape, ops.constant(i64(0, 1)), ops.constant(np.int64(0)))
    flat = ops.reshape(x, i64(-1, 3), special_zero=False)
    return ops.reshape(
        ops.matmul(flat, f32(3, 2), False, False), ops.concat([two, ops.constant(i64(2))], 0), False
    )


def attention(x: Any) -> Any:
    weights = ops.softmax(ops.matmul(x, x, False, True), -1)
    return ops.matmul(weights, x, False, False)


INDEPENDENT: dict[str, Callable[[], ov.Model]] = {
    "digits": lambda: ov.Core().read_model(digits.model_file()),
    "perceptron": a_perceptron,
    "static perceptron": lambda: a_perceptron(1),
    "pair": a_pair_model,
    "picture": a_picture_model,
    "half": a_half_model,
    "lstm": lambda: a_graph(lstm, [-1, -1, 3]),
    "view": lambda: a_graph(view_of_shape, [-1, 4, 3]),
    "by time": lambda: a_graph(by_time, [-1, -1, 3]),
    "attention": lambda: a_graph(attention, [-1, -1, 3]),
    "embedding": lambda: a_graph(
        lambda x: ops.gather(ops.constant(f32(3, 4)), x, ops.constant(np.int64(0))), [-1, 6], ov.Type.i64
    ),
    "softmax": lambda: a_graph(lambda x: ops.softmax(x, 1), [-1, 4]),
    "transposed twice": lambda: a_graph(
        lambda x: ops.transpose(ops.relu(ops.transpose(x, i64(1, 0))), i64(1, 0)), [-1, 4]
    ),
    "slice of features": lambda: a_graph(lambda x: ops.slice(x, i64(1), i64(3), i64(1), i64(1)), [-1, 4]),
    "slice of all rows": lambda: a_graph(lambda x: ops.slice(x, i64(0), i64(1 << 40), i64(1), i64(0)), [-1, 4]),
    "strided slice": lambda: a_graph(
        lambda x: ops.strided_slice(x, i64(0, 1), i64(0, 3), i64(1, 1), [1, 0], [1, 0], [0, 0], [0, 0], [0, 0]),
        [-1, 4],
    ),
    "split": lambda: a_graph(lambda x: list(ops.split(x, ops.constant(np.int64(1)), 2).outputs()), [-1, 4]),
    "cumulative sum of features": lambda: a_graph(lambda x: ops.cum_sum(x, ops.constant(np.int64(1))), [-1, 4]),
    "norm of features": lambda: a_graph(lambda x: ops.mvn(x, i64(1), True, 1e-5, "inside_sqrt"), [-1, 4]),
    "resize": lambda: a_graph(
        lambda x: ops.interpolate(x, i64(8, 8), "linear_onnx", "sizes", axes=i64(2, 3)), [-1, 3, 4, 4]
    ),
    "top k": lambda: a_graph(
        lambda x: list(ops.topk(x, ops.constant(np.int64(2)), 1, "max", "value").outputs()), [-1, 4]
    ),
    "one hot": lambda: a_graph(
        lambda x: ops.one_hot(x, ops.constant(np.int64(3)), np.float32(1), np.float32(0), 1), [-1, 6], ov.Type.i64
    ),
    "convolutions": lambda: a_graph(
        lambda x: ops.max_pool(
            ops.prelu(ops.convolution(x, f32(4, 3, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]), f32(4)),
            [2, 2],
            [1, 1],
            [0, 0],
            [0, 0],
            [2, 2],
        ).output(0),
        [-1, 3, 6, 6],
    ),
    "batch norm": lambda: a_graph(
        lambda x: ops.batch_norm_inference(x, f32(3), f32(3), f32(3), np.abs(f32(3)) + 1, 1e-5), [-1, 3, 2]
    ),
    "quantised": lambda: a_graph(
        lambda x: ops.fake_quantize(x, np.float32(-1), np.float32(1), np.float32(-1), np.float32(1), 16), [-1, 3]
    ),
}


def rows_by_layout() -> ov.Model:
    """``x`` f32[4,?]: the second dimension counts the rows, as the layout says."""
    x = an_input([4, -1])
    x.set_layout(ov.Layout("CN"))
    return ov.Model([ops.result(ops.softmax(x, 0))], [x], "rows last")


def rows_and_columns() -> ov.Model:
    x, y = an_input([-1, 3]), an_input([3, -1])
    return ov.Model([ops.result(ops.matmul(x, y, False, False))], [x, y], "outer")


def with_if() -> ov.Model:
    x = an_input([-1, 3])
    then_x, else_x = an_input([-1, 3]), an_input([-1, 3])
    decision = ops.if_op(ops.greater(ops.reduce_sum(x, i64(0, 1), False), np.float32(0)).output(0))
    then_model = ov.Model([ops.relu(then_x)], [then_x], "then")
    else_model = ov.Model([ops.negative(else_x)], [else_x], "else")
    decision.set_then_body(then_model)
    decision.set_else_body(else_model)
    decision.set_input(x.output(0), then_x, else_x)
    made = decision.set_output(then_model.results[0], else_model.results[0])
    return ov.Model([ops.result(made)], [x], "if")


def with_boxes() -> ov.Model:
    boxes, scores = an_input([-1, 8, 4]), an_input([-1, 2, 8])
    made = ops.non_max_suppression(boxes, scores, ops.constant(np.int64(3)), np.float32(0.5), np.float32(0.1))
    return ov.Model([ops.result(made.output(0))], [boxes, scores], "boxes")


def scaled_by_batch(x: Any) -> Any:
    rows = ops.gather(ops.shape_of(x), ops.constant(i64(0)), ops.constant(np.int64(0)))
    return ops.divide(x, ops.convert(rows, "f32"))


def place_in_batch(x: Any) -> Any:
    rows = ops.gather(ops.shape_of(x), ops.constant(np.int64(0)), ops.constant(np.int64(0)))
    places = ops.range(ops.constant(np.int64(0)), rows, ops.constant(np.int64(1)), "f32")
    return ops.add(x, ops.unsqueeze(places, i64(1)))


def capped_by_batch(x: Any) -> Any:
    """Columns up to the size of the batch, or 2 at the most: two sizes above 2 do not show it."""
    rows = ops.gather(ops.shape_of(x), ops.constant(i64(0)), ops.constant(np.int64(0)))
    return ops.slice(x, i64(0), ops.minimum(rows, i64(2)), i64(1), i64(1))


REFUSED: dict[str, Callable[[], ov.Model]] = {
    "mean over the batch": lambda: a_graph(lambda x: ops.subtract(x, ops.reduce_mean(x, i64(0), True)), [-1, 4]),
    "mean over the last axis but one, which is the batch": lambda: a_graph(
        lambda x: ops.subtract(x, ops.reduce_mean(x, i64(-2), True)), [-1, 4]
    ),
    "softmax over the batch": lambda: a_graph(lambda x: ops.softmax(x, 0), [-1, 4]),
    "cumulative sum over the batch": lambda: a_graph(lambda x: ops.cum_sum(x, ops.constant(np.int64(0))), [-1, 4]),
    "each row times each": lambda: a_graph(lambda x: ops.matmul(x, x, False, True), [-1, 4]),
    "sum over rows": lambda: a_graph(lambda x: ops.matmul(x, x, True, False), [-1, 4]),
    "rows laid across": lambda: a_graph(
        lambda x: ops.reshape(ops.reshape(x, i64(4, -1), False), i64(-1, 4), False), [-1, 4]
    ),
    "rows in pairs": lambda: a_graph(lambda x: ops.reshape(x, i64(-1, 8), False), [-1, 4]),
    "transposed and flattened": lambda: a_graph(
        lambda x: ops.reshape(ops.transpose(x, i64(1, 0)), i64(-1, 4), False), [-1, 4]
    ),
    "gathered rows": lambda: a_graph(lambda x: ops.gather(x, i64(0, 0, 1), ops.constant(np.int64(0))), [-1, 4]),
    "first row": lambda: a_graph(lambda x: ops.slice(x, i64(0), i64(1), i64(1), i64(0)), [-1, 4]),
    "rows reversed": lambda: a_graph(lambda x: ops.slice(x, i64(-1), i64(-(1 << 40)), i64(-1), i64(0)), [-1, 4]),
    "rows twice": lambda: a_graph(lambda x: ops.concat([x, x], 0), [-1, 4]),
    "rows repeated": lambda: a_graph(lambda x: ops.tile(x, i64(2, 1)), [-1, 4]),
    "padded rows": lambda: a_graph(lambda x: ops.pad(x, i64(0, 0), i64(1, 0), "edge"), [-1, 4]),
    "top rows": lambda: a_graph(
        lambda x: ops.topk(x, ops.constant(np.int64(1)), 0, "max", "value").output(0), [-1, 4]
    ),
    "positions in all pictures": lambda: a_graph(
        lambda x: ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(1), [-1, 3, 4, 4]
    ),
    "squeezed where there is one row": lambda: a_graph(lambda x: opset15.squeeze(ops.relu(x)), [-1, 4]),
    "scaled by the batch": lambda: a_graph(scaled_by_batch, [-1, 4]),
    "place in the batch": lambda: a_graph(place_in_batch, [-1, 4]),
    "capped by the batch": lambda: a_graph(capped_by_batch, [-1, 4]),
    "drawn at random": lambda: a_graph(
        lambda x: ops.add(x, ops.random_uniform(i64(4), np.float32(0), np.float32(1), "f32")), [-1, 4]
    ),
    "constant output": lambda: a_graph(lambda x: [ops.relu(x), ops.constant(f32(2))], [-1, 4]),
    "rows times columns": rows_and_columns,
    "if": with_if,
    "boxes": with_boxes,
    "number of results": a_positions_model,
    "no batch": a_model_without_batch,
    "scalar": lambda: a_graph(ops.relu, []),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_a_graph_that_keeps_rows_apart_is_found_independent_and_numbers_agree(name: str) -> None:
    model = INDEPENDENT[name]()

    verdict = examine(model)

    assert verdict.is_independent, verdict.reason
    assert verdict.input_axes is not None
    assert verdict.output_axes is not None
    check_numbers(model, verdict.input_axes, verdict.output_axes)


@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_that_mixes_rows_is_refused_with_a_reason(name: str) -> None:
    verdict = examine(REFUSED[name]())

    assert not verdict.is_independent
    assert verdict.reason


@pytest.mark.parametrize("file", ["light_squeezenet.onnx", "light_resnet50.onnx", "light_densenet121.onnx"])
def test_networks_with_a_batch_of_one_are_found_independent(file: str) -> None:
    verdict = examine(ov.Core().read_model(SQUEEZENET.parent / file))

    assert verdict.is_independent, verdict.reason
    assert (verdict.input_axes, verdict.output_axes) == ((0,), (0,))


def test_the_layout_says_which_dimension_counts_rows() -> None:
    model = rows_by_layout()

    verdict = examine(model)

    assert (verdict.input_axes, verdict.output_axes) == ((1,), (1,)), verdict.reason
    check_numbers(model, (1,), (1,))


def test_text_may_be_joined() -> None:
    assert examine(an_echo_model()).is_independent


def test_the_examined_model_stays_as_it_was() -> None:
    model = a_perceptron(1)

    examine(model)

    assert model.input(0).get_partial_shape() == ov.PartialShape([1, 32])


# Steps of random graphs: most keep rows apart on one axis and mix them on another.
axes = st.integers(-3, 2)


@st.composite
def random_graphs(draw: st.DrawFn) -> ov.Model:
    """A few steps on ``x`` f32[?,4,3]; what OpenVINO refuses to build is left out."""
    x = an_input([draw(st.sampled_from([-1, 1])), 4, 3])
    value = x.output(0)
    for _ in range(draw(st.integers(1, 4))):
        step = draw(st.sampled_from(STEPS))
        numbers = [draw(axes) for _ in range(4)]
        try:
            made = step(value, *numbers)
        except RuntimeError:
            continue
        value = made if isinstance(made, ov.Output) else made.output(0)
    return ov.Model([ops.result(value)], [x], "random")


def rank_of(value: ov.Output) -> int:
    return int(value.get_partial_shape().rank.get_length())


def up_to_two(value: ov.Output, axis: int) -> int:
    """Returns 2, or a dimension's size where it is less: a TopK of more compiles, but does not run."""
    size = value.get_partial_shape()[axis]
    return 2 if size.is_dynamic else min(2, size.get_length())


def permuted(value: ov.Output, seed: int) -> Any:
    return ops.transpose(value, np.random.default_rng(abs(seed)).permutation(rank_of(value)))


def refolded(value: ov.Output, first: int, second: int) -> Any:
    pattern = [[-1, 4, 3], [-1, 3, 4], [-1, 12], [4, -1, 3], [0, -1], [-1, 2], [12, -1], [3, 4, -1]]
    return ops.reshape(value, i64(*pattern[(first * 3 + second) % len(pattern)]), special_zero=True)


def folded_by_shape(value: ov.Output, which: int) -> Any:
    """Takes one length from the shape and leaves the rest together."""
    length = ops.gather(ops.shape_of(value), ops.constant(i64(which)), ops.constant(np.int64(0)))
    return ops.reshape(value, ops.concat([length, ops.constant(i64(-1))], 0), special_zero=False)


def spread(value: ov.Output, which: int) -> Any:
    """Adds a mean that was broadcast to the shape of the whole."""
    mean = ops.reduce_mean(value, i64(which), True)
    return ops.add(value, ops.broadcast(mean, ops.shape_of(value)))


def product(value: ov.Output, first: int, second: int) -> Any:
    return ops.matmul(value, value, first % 2 == 0, second % 2 == 0)


def weighted(value: ov.Output, first: int) -> Any:
    columns = value.get_partial_shape()[rank_of(value) - 1].get_length()
    return ops.matmul(
        value, np.full((columns, 3), 0.5, np.float32) + np.arange(3, dtype=np.float32) * first, False, False
    )


def padded(value: ov.Output, first: int) -> Any:
    none = [0] * rank_of(value)
    return ops.pad(value, i64(*none), i64(first % 2, *none[1:]), "edge")


STEPS: list[Callable[..., Any]] = [
    lambda value, *_: ops.tanh(value),
    lambda value, a, *_: ops.softmax(value, a),
    lambda value, a, *_: ops.reduce_max(value, i64(a), keep_dims=a % 2 == 0),
    lambda value, a, b, *_: ops.reduce_mean(value, i64(a, b) if a != b else i64(a), keep_dims=True),
    lambda value, a, *_: ops.cum_sum(value, ops.constant(np.int64(a))),
    lambda value, a, *_: permuted(value, a),
    lambda value, a, b, *_: refolded(value, a, b),
    lambda value, a, *_: folded_by_shape(value, a),
    lambda value, a, *_: spread(value, a),
    lambda value, a, b, *_: product(value, a, b),
    lambda value, a, *_: weighted(value, a),
    lambda value, a, *_: ops.unsqueeze(value, i64(a)),
    lambda value, a, *_: ops.squeeze(ops.unsqueeze(value, i64(a)), i64(a)),
    lambda value, a, b, *_: ops.slice(value, i64(b % 2), i64(1 << 40), i64(1), i64(a)),
    lambda value, a, b, *_: ops.slice(value, i64(0), i64(1 << 40), i64(1 + b % 2), i64(a)),
    lambda value, a, *_: ops.gather(value, i64(0, 1, 0), ops.constant(np.int64(a))),
    lambda value, a, *_: ops.concat([value, ops.relu(value)], a),
    lambda value, a, *_: ops.split(value, ops.constant(np.int64(a)), 1).output(0),
    lambda value, a, *_: ops.topk(value, ops.constant(np.int64(up_to_two(value, a))), a, "max", "value").output(0),
    lambda value, a, *_: ops.mvn(value, i64(a), True, 1e-5, "inside_sqrt"),
    lambda value, a, *_: ops.normalize_l2(value, i64(a), 1e-5, "add"),
    lambda value, a, *_: ops.add(value, ops.transpose(value, list(reversed(range(rank_of(value)))))),
    lambda value, a, *_: ops.multiply(value, np.array([0.5, 2, -1], np.float32)),
    lambda value, a, *_: ops.tile(value, i64(1 + a % 2, 1)),
    lambda value, a, *_: ops.pad(
        value, i64(*[0] * rank_of(value)), i64(a % 2, *[0] * (rank_of(value) - 1)), "edge"
    ),
    lambda value, a, b, *_: ops.reverse_sequence(value, i64(2, 2, 2, 2), 1, a % 3) if b else ops.relu(value),
]


@settings(max_examples=150)
@given(random_graphs())
def test_of_random_graphs_only_those_are_found_independent_whose_numbers_agree(model: ov.Model) -> None:
    verdict = examine(model)

    event("independent" if verdict.is_independent else "refused")
    if verdict.input_axes is not None and verdict.output_axes is not None:
        check_numbers(model, verdict.input_axes, verdict.output_axes)
