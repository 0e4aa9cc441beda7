"""Requests that are joined to one inference give what they give alone, and harm each other in nothing."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from ovray.errors import ConfigError
from ovray.replica.envelope import Reply
from ovray.replica.workload import Batching, Merging
from tests.integration.models import SQUEEZENET, a_pair_model, a_perceptron, an_echo_model
from tests.integration.serving import (
    Answers,
    HeldEngine,
    a_server,
    alone,
    an_engine,
    an_envelope,
    plain_openvino,
    serving,
)

EIGHT = Batching(batch_size=8, timeout_ms=50.0)
AUTO = Batching()
#: One infer request, so that what arrives while it runs has to wait.
ONE = {"NUM_STREAMS": "1", "PERFORMANCE_HINT_NUM_REQUESTS": "1"}


def outputs_of(reply: Reply) -> tuple[np.ndarray, ...]:
    if reply.error is not None:
        raise reply.error
    assert reply.outputs is not None
    return reply.outputs


@pytest.mark.parametrize("batching", [EIGHT, AUTO], ids=["eight", "auto"])
def test_joined_requests_give_what_they_give_alone(batching: Batching) -> None:
    chance = np.random.default_rng(1)
    inputs = [
        (chance.standard_normal((rows, 2, 3)).astype(np.float32), chance.standard_normal(rows).astype(np.float32))
        for rows in (1, 2, 1, 3, 1, 1, 2, 1, 1, 1, 5, 1)
    ]

    with serving(a_pair_model(), batching, **ONE) as server:
        replies = server.ask(an_envelope(inputs * 20))

    assert any(reply.batch_rows > len(arrays[1]) for arrays, reply in zip(inputs * 20, replies, strict=True))
    plain = plain_openvino(a_pair_model())
    for arrays, reply in zip(inputs * 20, replies, strict=True):
        for found, wanted in zip(outputs_of(reply), plain(arrays), strict=True):
            assert found.dtype == wanted.dtype
            assert found.flags.owndata
            np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_model_with_a_batch_of_one_is_joined_too_and_then_takes_more_rows() -> None:
    chance = np.random.default_rng(2)
    model = ov.Core().read_model(SQUEEZENET)
    pictures = [chance.random((1, 3, 224, 224), dtype=np.float32) for _ in range(9)]

    engine = an_engine(model, EIGHT, **ONE)
    with a_server(engine, EIGHT) as server:
        replies = server.ask(an_envelope([[picture] for picture in pictures]))
        (two_rows,) = server.ask(an_envelope([[np.concatenate(pictures[:2])]], first=100))

    assert engine.info.batch is not None
    assert engine.info.batch.is_independent
    assert engine.info.max_joined_rows == 8
    assert [reply.batch_rows for reply in replies].count(8) == 8
    plain = plain_openvino(model)
    for picture, reply in zip(pictures, replies, strict=True):
        np.testing.assert_allclose(outputs_of(reply)[0], plain([picture])[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outputs_of(two_rows)[0][1], plain(pictures[1:2])[0][0], rtol=1e-4, atol=1e-6)


def test_text_is_joined() -> None:
    texts = [np.array([f"{number}", "ß" * number], dtype=object) for number in range(4)]

    with serving(an_echo_model(), EIGHT, **ONE) as server:
        replies = server.ask(an_envelope([[text] for text in texts]))

    assert max(reply.batch_rows for reply in replies) == 8
    for text, reply in zip(texts, replies, strict=True):
        assert outputs_of(reply)[0].tolist() == text.tolist()


def a_mixing_model() -> ov.Model:
    """Each row less the mean of all."""
    x = ops.parameter(ov.PartialShape([-1, 4]), ov.Type.f32)
    mean = ops.reduce_mean(x, np.array([0]), keep_dims=True)
    return ov.Model([ops.result(ops.subtract(x, mean))], [x], "mixing")


def test_a_model_whose_rows_mix_is_never_joined_and_says_why() -> None:
    x = [np.full((1, 4), value, np.float32) for value in range(8)]

    engine = an_engine(a_mixing_model(), EIGHT, **ONE)
    with a_server(engine, EIGHT) as server:
        replies = server.ask(an_envelope([[each] for each in x]))

    assert engine.info.batch is not None
    assert "ReduceMean" in engine.info.batch.reason
    assert engine.info.max_joined_rows == 1
    assert not any(outputs_of(reply)[0].any() for reply in replies)


def test_the_caller_may_vouch_for_rows() -> None:
    vouched = Batching(batch_size=8, merging=Merging.ALWAYS)

    assert an_engine(a_mixing_model(), vouched).info.max_joined_rows == 8


def test_what_the_caller_vouched_for_in_vain_runs_alone() -> None:
    """The output has one row whatever the input: it cannot be split, so each request is run by itself."""
    x = ops.parameter(ov.PartialShape([-1, 4]), ov.Type.f32)
    model = ov.Model([ops.result(ops.reduce_sum(x, np.array([0]), keep_dims=True))], [x], "sum")
    vouched = Batching(batch_size=8, merging=Merging.ALWAYS)

    with serving(model, vouched, **ONE) as server:
        replies = server.ask(an_envelope([[np.full((1, 4), value, np.float32)] for value in range(8)]))

    assert [outputs_of(reply)[0][0, 0] for reply in replies] == list(range(8))


def test_nothing_is_joined_where_latency_is_wanted() -> None:
    engine = an_engine(a_perceptron(), AUTO, PERFORMANCE_HINT="LATENCY")

    assert (engine.joining, engine.info.max_joined_rows, engine.info.batch) == (None, 1, None)


def test_one_bad_request_of_a_batch_harms_no_other() -> None:
    a, b = (ops.parameter(ov.PartialShape([-1, -1]), ov.Type.f32) for _ in range(2))
    model = ov.Model([ops.result(ops.add(a, b))], [a, b], "adding")
    good = (np.ones((1, 3), np.float32), np.ones((1, 3), np.float32))
    bad = (np.ones((1, 3), np.float32), np.ones((1, 2), np.float32))

    with serving(model, Batching(batch_size=8, merging=Merging.ALWAYS), **ONE) as server:
        replies = server.ask(an_envelope([good, bad, good, bad, good]))

    assert [type(reply.error).__name__ for reply in replies] == [
        "NoneType",
        "DataError",
        "NoneType",
        "DataError",
        "NoneType",
    ]


def test_requests_of_several_drivers_share_an_inference() -> None:
    batching = Batching(batch_size=4, timeout_ms=0.0)
    engine = HeldEngine(an_engine(a_perceptron(), batching, **ONE))
    answers = Answers()

    with a_server(engine, batching) as server:
        server.submit(an_envelope([[np.zeros((9, 32), np.float32)]], client="first"), answers)
        for number in range(4):
            envelope = an_envelope([[np.zeros((1, 32), np.float32)]], client=f"driver {number}", first=number + 1)
            server.submit(envelope, answers)
        engine.let_go()
        replies = {reply.dispatch: reply for reply in answers.wait_for(5)}

    assert [replies[number].batch_rows for number in range(5)] == [9, 4, 4, 4, 4]


def test_a_client_that_waits_for_each_answer_does_not_wait_for_the_timeout() -> None:
    batching = Batching(batch_size=8, timeout_ms=2_000.0)
    x = np.zeros((1, 32), np.float32)

    with serving(a_perceptron(), batching, **ONE) as server:
        began_s = time.monotonic()
        for number in range(50):
            outputs_of(server.ask(an_envelope([[x]], first=number))[0])
        took_s = time.monotonic() - began_s

    assert took_s < 50, "fifty timeouts would be a hundred seconds"


def test_many_threads_get_their_own_rows_of_joined_inferences() -> None:
    weights_model = a_perceptron()
    chance = np.random.default_rng(3)
    rows = chance.random((400, 32), dtype=np.float32)
    wanted = alone(weights_model, [rows])[0]
    sizes: list[int] = []
    adding = threading.Lock()

    def ask(thread: int) -> None:
        for at in range(thread * 50, thread * 50 + 50, 5):
            envelope = an_envelope([[rows[each : each + 1]] for each in range(at, at + 5)], str(thread), at)
            for each, reply in enumerate(server.ask(envelope), at):
                np.testing.assert_allclose(outputs_of(reply)[0][0], wanted[each], rtol=1e-4, atol=1e-5)
                with adding:
                    sizes.append(reply.batch_rows)

    with serving(weights_model, AUTO) as server, ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))

    assert len(sizes) == 400
    assert max(sizes) > 1


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": "many"}, {"timeout_ms": -1.0}])
def test_batching_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Batching(**wrong)  # type: ignore[arg-type]
