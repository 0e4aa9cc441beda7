"""Requests in, replies out: shapes, types, errors and order, on real OpenVINO in this process."""

from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from ovray.errors import ConfigError, DataError, InvariantError, ReplicaError
from ovray.replica.compiling import TypeName
from ovray.replica.envelope import Envelope, Reply, Request
from ovray.replica.model import describe
from ovray.replica.serving import RequestServer
from ovray.replica.sim_engine import SimSettings
from ovray.replica.sim_requests import SimRequests
from ovray.replica.workload import Batching
from tests.integration.models import a_pair_model, a_perceptron, a_picture_model, an_echo_model
from tests.integration.serving import Answers, a_server, alone, an_engine, an_envelope, serving


def a_doubling_model(kind: ov.Type = ov.Type.f32, shape: list[int] | None = None) -> ov.Model:
    """``x`` in and twice ``x`` out, both of one type."""
    x = ops.parameter(ov.PartialShape([-1, 4] if shape is None else shape), kind)
    x.output(0).get_tensor().set_names({"x"})
    return ov.Model([ops.result(ops.add(x, x))], [x], "doubling")


def an_open_model() -> ov.Model:
    """``x`` f32[?,?] and ``bias`` f32[?] in; their sum and the mean of each row out."""
    x = ops.parameter(ov.PartialShape([-1, -1]), ov.Type.f32)
    bias = ops.parameter(ov.PartialShape([-1]), ov.Type.f32)
    total = ops.add(x, bias)
    return ov.Model([ops.result(total), ops.result(ops.reduce_mean(total, [1]))], [x, bias], "open")


def outputs_of(reply: Reply) -> tuple[np.ndarray, ...]:
    if reply.error is not None:
        raise reply.error
    assert reply.outputs is not None
    return reply.outputs


def test_several_inputs_and_outputs_are_those_of_plain_openvino() -> None:
    chance = np.random.default_rng(1)
    inputs = [
        (chance.standard_normal((rows, 2, 3)).astype(np.float32), chance.standard_normal(rows).astype(np.float32))
        for rows in (1, 4, 2, 7)
    ]

    with serving(a_pair_model()) as server:
        replies = server.ask(an_envelope(inputs))

    assert [reply.dispatch for reply in replies] == [0, 1, 2, 3]
    for arrays, reply in zip(inputs, replies, strict=True):
        for found, wanted in zip(outputs_of(reply), alone(a_pair_model(), arrays), strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)


def test_shapes_may_change_from_request_to_request() -> None:
    chance = np.random.default_rng(2)
    inputs = [
        (chance.random((rows, columns), dtype=np.float32), chance.random(columns, dtype=np.float32))
        for rows, columns in [(1, 1), (3, 5), (2, 9), (3, 5), (0, 4), (8, 2)]
    ]

    with serving(an_open_model()) as server:
        replies = server.ask(an_envelope(inputs))

    for (x, bias), reply in zip(inputs, replies, strict=True):
        total, means = outputs_of(reply)
        np.testing.assert_allclose(total, x + bias, rtol=1e-6)
        np.testing.assert_allclose(means, (x + bias).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", ["f32", "f64", "f16", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"])
def test_numbers_of_every_type_come_and_go_as_they_are(name: str) -> None:
    kind = {"f": "float", "i": "int", "u": "uint"}[name[0]] + name[1:]
    x = np.arange(8, dtype=kind).reshape(2, 4)

    with serving(a_doubling_model(getattr(ov.Type, name))) as server:
        (reply,) = server.ask(an_envelope([[x]]))

    (doubled,) = outputs_of(reply)
    assert doubled.dtype == x.dtype
    np.testing.assert_array_equal(doubled, x + x)


@pytest.mark.parametrize(("name", "holder"), [("bf16", "float16"), ("f8e4m3", "uint8"), ("boolean", "bool")])
def test_types_that_numpy_does_not_have_pass_as_bits(name: str, holder: str) -> None:
    x = ops.parameter(ov.PartialShape([-1, 4]), getattr(ov.Type, name))
    bits = np.array([[1, 0, 1, 1]], dtype=holder)

    with serving(ov.Model([ops.result(x)], [x], "through")) as server:
        (reply,) = server.ask(an_envelope([[bits]]))

    (through,) = outputs_of(reply)
    assert through.dtype == bits.dtype
    assert through.tobytes() == bits.tobytes()


def test_elements_of_half_a_byte_travel_packed_with_their_shape() -> None:
    x = ops.parameter(ov.PartialShape([-1, 3]), ov.Type.u4)
    packed = np.array([0x21, 0x43, 0x65], dtype=np.uint8)
    request = Request(dispatch=0, tensors=(packed,), shapes=((2, 3),))

    with serving(ov.Model([ops.result(x)], [x], "through")) as server:
        (reply,) = server.ask(Envelope(client="a driver", requests=(request,)))
        (refused,) = server.ask(an_envelope([[packed]]))

    assert reply.shapes == ((2, 3),)
    np.testing.assert_array_equal(outputs_of(reply)[0], packed)
    assert isinstance(refused.error, DataError)


@pytest.mark.parametrize(
    "text",
    [
        np.array(["one", "zwölf", ""], dtype=object),
        np.array([], dtype=object),
        np.array(["fixed", "width"]),
        np.array([b"raw", b"\xff\xfe"], dtype=object),
    ],
    ids=["str", "none", "fixed width", "bytes"],
)
def test_text_comes_back_as_it_went(text: np.ndarray) -> None:
    with serving(an_echo_model()) as server:
        (reply,) = server.ask(an_envelope([[text]]))

    (echo,) = outputs_of(reply)
    assert (echo.dtype, echo.shape) == (np.dtype(object), text.shape)
    wanted = [each if isinstance(each, bytes) else each.encode() for each in text.tolist()]
    assert [each.encode("utf-8", "surrogateescape") for each in echo.tolist()] == wanted


def test_scalars_are_scalars() -> None:
    with serving(a_doubling_model(shape=[])) as server:
        (reply,) = server.ask(an_envelope([[np.array(3, dtype=np.float32)]]))

    (doubled,) = outputs_of(reply)
    assert (doubled.shape, doubled.item()) == ((), 6.0)


def test_arrays_that_nobody_may_write_to_are_inputs_like_others() -> None:
    x = np.ones((2, 4), dtype=np.float32)
    x.flags.writeable = False

    with serving(a_doubling_model()) as server:
        (reply,) = server.ask(an_envelope([[x]]))

    np.testing.assert_array_equal(outputs_of(reply)[0], x * 2)


def test_outputs_stay_as_they_are_through_later_inferences_and_can_be_written() -> None:
    first, second = (np.full((2, 4), value, dtype=np.float32) for value in (1, 5))

    with serving(a_doubling_model(), PERFORMANCE_HINT="LATENCY") as server:
        (kept,) = outputs_of(server.ask(an_envelope([[first]]))[0])
        server.ask(an_envelope([[second]]))
        np.testing.assert_array_equal(kept, first * 2)
        kept[:] = 0
        (again,) = outputs_of(server.ask(an_envelope([[first]]))[0])

    np.testing.assert_array_equal(again, first * 2)


def test_no_inference_writes_into_an_array_of_an_earlier_request() -> None:
    """What plain OpenVINO does on open shapes once an input was shared, see openvino_requests.py.

    Equal shapes follow each other: the second request would be written into what the first had shared.
    """
    chance = np.random.default_rng(3)
    inputs = [chance.random((rows, 4096), dtype=np.float32) for rows in (2, 2, 3, 3, 1, 1, 2) * 5]
    before = [array.copy() for array in inputs]

    kept = []
    with serving(a_perceptron_of(4096), PERFORMANCE_HINT="LATENCY") as server:
        for number, array in enumerate(inputs):
            (reply,) = server.ask(an_envelope([[array]], first=number))
            kept.append((outputs_of(reply)[0], outputs_of(reply)[0].copy()))

    for array, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    for output, copy in kept:
        np.testing.assert_array_equal(output, copy)


def a_perceptron_of(columns: int) -> ov.Model:
    x = ops.parameter(ov.PartialShape([-1, columns]), ov.Type.f32)
    weights = np.random.default_rng(4).random((columns, 8), dtype=np.float32)
    return ov.Model([ops.result(ops.matmul(x, weights, False, False))], [x], "wide")


WRONG_INPUTS: list[tuple[str, list[Any]]] = [
    ("columns", [np.zeros((2, 5), np.float32)]),
    ("rank", [np.zeros(4, np.float32)]),
    ("type", [np.zeros((2, 4), np.float64)]),
    ("count", [np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32)]),
]


@pytest.mark.parametrize("tensors", [case[1] for case in WRONG_INPUTS], ids=[case[0] for case in WRONG_INPUTS])
def test_a_wrong_input_is_refused_with_the_ports_name_and_the_next_request_is_served(tensors: list[Any]) -> None:
    with serving(a_doubling_model()) as server:
        wrong, right = server.ask(an_envelope([tensors, [np.ones((1, 4), np.float32)]]))

    assert isinstance(wrong.error, DataError)
    assert "x" in str(wrong.error)
    assert outputs_of(right)[0].tolist() == [[2, 2, 2, 2]]


def test_shapes_that_only_the_graph_refuses_are_the_inputs_fault() -> None:
    wrong = (np.zeros((2, 3), np.float32), np.zeros(5, np.float32))

    with serving(an_open_model()) as server:
        for number in range(3):
            (reply,) = server.ask(an_envelope([wrong], first=number))
            assert isinstance(reply.error, DataError), reply.error
            assert "[2, 3]" in str(reply.error)
        server.probe()


def a_reshaping_model() -> ov.Model:
    """``x`` f32[?] in the shape that ``target`` i64[2] says: only the values tell whether that can be."""
    x = ops.parameter(ov.PartialShape([-1]), ov.Type.f32)
    target = ops.parameter(ov.PartialShape([2]), ov.Type.i64)
    return ov.Model([ops.result(ops.reshape(x, target, special_zero=False))], [x, target], "reshaping")


def test_values_that_the_device_refuses_are_the_inputs_fault() -> None:
    good = (np.zeros(6, np.float32), np.array([2, 3]))

    with serving(a_reshaping_model()) as server:
        outputs_of(server.ask(an_envelope([good]))[0])
        (reply,) = server.ask(an_envelope([(np.zeros(6, np.float32), np.array([4, 5]))]))
        (after,) = server.ask(an_envelope([good]))
        server.probe()

    assert isinstance(reply.error, DataError), reply.error
    assert outputs_of(after)[0].shape == (2, 3)


def test_a_device_that_fails_at_every_inference_is_at_fault_itself() -> None:
    """Nothing that this replica was asked for has ever gone well, and zeros do not, either."""
    with serving(a_reshaping_model()) as server:
        (reply,) = server.ask(an_envelope([(np.zeros(6, np.float32), np.array([4, 5]))]))
        with pytest.raises(ReplicaError, match="probe failed"):
            server.probe()

    assert isinstance(reply.error, ReplicaError), reply.error


@pytest.mark.parametrize("element", [3, None, "\ud800"], ids=["number", "nothing", "half a character"])
def test_elements_that_are_no_text_are_the_inputs_fault(element: object) -> None:
    with serving(an_echo_model()) as server:
        (reply,) = server.ask(an_envelope([[np.array(["good", element], dtype=object)]]))

    assert isinstance(reply.error, DataError), reply.error


def test_envelopes_overlap_and_are_answered_one_request_at_a_time() -> None:
    """A long envelope is under way; a later, short one of another client is answered in the midst of it."""
    settings = SimSettings(ms=2.0)
    long = an_envelope([[np.zeros((1, 32), np.float32)]] * 100, client="first")
    short = an_envelope([[np.zeros((1, 32), np.float32)]], client="second", first=1000)
    answers = Answers()

    with a_server(SimRequests(describe(a_perceptron()), settings, "seed")) as server:
        server.submit(long, answers)
        server.submit(short, answers)
        order = [reply.dispatch for reply in answers.wait_for(101)]

    assert sorted(order) == [*range(100), 1000]
    assert order.index(1000) <= 3, "the second client's turn comes after one request of the first"


def test_a_simulated_device_answers_with_zeros_of_the_requests_rows() -> None:
    with a_server(SimRequests(describe(a_picture_model()), SimSettings(ms=1.0, nireq=2), "seed")) as server:
        (reply,) = server.ask(an_envelope([[np.ones((3, 3, 8, 8), np.float32)]]))
        server.probe()

    scores, brightest = outputs_of(reply)
    assert (scores.shape, brightest.shape, scores.any()) == ((3, 5), (3,), False)
    assert reply.infer_s == pytest.approx(0.003)


def test_a_simulated_device_can_answer_with_sums_and_fail_on_demand(tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    settings = SimSettings.parse({"ms": "1", "answer": "sum", "trouble": str(trouble)})
    envelope = an_envelope([[np.arange(64, dtype=np.float32).reshape(2, 32)]])

    with a_server(SimRequests(describe(a_perceptron()), settings, "seed")) as server:
        (summed,) = server.ask(envelope)
        trouble.write_text("fails")
        (failed,) = server.ask(envelope)
        with pytest.raises(ReplicaError, match="probe failed: the simulated device fails"):
            server.probe()
        trouble.unlink()
        server.probe()

    assert [output[:, 0].tolist() for output in outputs_of(summed)] == [[496, 1520], [496, 1520]]
    assert isinstance(failed.error, ReplicaError)


def test_a_request_that_has_not_begun_can_be_cancelled_and_is_answered_nevertheless() -> None:
    answers = Answers()
    envelope = an_envelope([[np.zeros((1, 32), np.float32)]] * 3)

    with a_server(SimRequests(describe(a_perceptron()), SimSettings(ms=50.0), "seed")) as server:
        server.submit(envelope, answers)
        server.cancel(2, "another driver")
        server.cancel(2, "a driver")
        replies = {reply.dispatch: reply for reply in answers.wait_for(3)}

    assert isinstance(replies[2].error, CancelledError)
    assert [replies[0].error, replies[1].error] == [None, None]


def test_a_closed_server_answers_what_has_not_begun() -> None:
    answers = Answers()
    server = RequestServer(SimRequests(describe(a_perceptron()), SimSettings(ms=30.0), "seed"), Batching())
    server.start()

    server.submit(an_envelope([[np.zeros((1, 32), np.float32)]] * 5), answers)
    server.close()
    server.submit(an_envelope([[np.zeros((1, 32), np.float32)]], first=5), answers)

    replies = answers.wait_for(6)
    assert sorted(reply.dispatch for reply in replies) == list(range(6))
    assert any(isinstance(reply.error, ReplicaError) for reply in replies)
    assert replies[-1].dispatch == 5
    assert isinstance(replies[-1].error, ReplicaError)


def test_a_number_that_is_waiting_already_is_refused_and_nothing_else_suffers() -> None:
    answers = Answers()
    twice = an_envelope([[np.zeros((1, 32), np.float32)]] * 2)
    twice = Envelope(client="a driver", requests=(*twice.requests, twice.requests[1]))

    with a_server(SimRequests(describe(a_perceptron()), SimSettings(ms=20.0), "seed")) as server:
        server.submit(twice, answers)
        replies = answers.wait_for(3)

    assert sum(isinstance(reply.error, InvariantError) for reply in replies) == 1
    assert sorted(reply.dispatch for reply in replies if reply.error is None) == [0, 1]


def test_a_receiver_that_fails_does_not_stop_the_replica(caplog: pytest.LogCaptureFixture) -> None:
    def fail(reply: Reply) -> None:
        raise ValueError("a receiver's own mistake")

    with serving(a_doubling_model(), PERFORMANCE_HINT="LATENCY") as server:
        server.submit(an_envelope([[np.ones((1, 4), np.float32)]]), fail)
        (reply,) = server.ask(an_envelope([[np.ones((1, 4), np.float32)]], first=1))

    assert reply.error is None
    assert "a receiver's own mistake" in caplog.text


def test_each_of_many_requests_from_many_threads_gets_its_own_result() -> None:
    def ask(thread: int) -> list[tuple[float, float]]:
        values = [thread * 1000.0 + number for number in range(60)]
        found = []
        for at in range(0, 60, 6):
            envelope = an_envelope(
                [[np.full((1, 4), value, np.float32)] for value in values[at : at + 6]],
                client=str(thread),
                first=at,
            )
            found += [float(outputs_of(reply)[0][0, 0]) for reply in server.ask(envelope)]
        return list(zip(values, found, strict=True))

    with serving(a_doubling_model()) as server, ThreadPoolExecutor(8) as threads:
        pairs = [pair for part in threads.map(ask, range(8)) for pair in part]

    assert len(pairs) == 480
    assert all(found == 2 * value for value, found in pairs)


def test_the_engine_says_what_the_driver_needs_to_know() -> None:
    info = an_engine(a_perceptron(), PERFORMANCE_HINT="LATENCY").info

    assert (info.nireq, info.model_name, info.execution_devices, info.precision) == (
        1,
        "perceptron",
        ("CPU",),
        "f32",
    )
    assert info.rate_rows_per_s is not None
    assert info.rate_rows_per_s > 0
    assert info.first_inference_ms is not None
    assert info.max_joined_rows == 1


def test_a_model_with_open_shapes_is_not_warmed_up() -> None:
    info = an_engine(an_open_model()).info

    assert (info.rate_rows_per_s, info.first_inference_ms) == (None, None)


def test_properties_come_as_values_that_travel() -> None:
    engine = an_engine(a_perceptron())

    assert engine.read_property("NETWORK_NAME") == "perceptron"
    assert engine.read_property("INFERENCE_PRECISION_HINT") == TypeName(name="f32")
    assert engine.read_property("SUPPORTED_PROPERTIES")["NETWORK_NAME"] == "RO"
    with pytest.raises(ConfigError, match="NO_SUCH_THING"):
        engine.read_property("NO_SUCH_THING")


def test_an_exported_model_can_be_imported_and_gives_the_same_numbers() -> None:
    x = np.random.default_rng(5).random((2, 32), dtype=np.float32)

    exported = an_engine(a_perceptron()).export_model()

    imported = ov.Core().import_model(exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_array_equal(imported([x])[0], alone(a_perceptron(), [x])[0])
