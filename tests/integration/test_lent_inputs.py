"""Inputs that OpenVINO reads where they lie give what copied ones give, and are never written to."""

import mmap
from collections.abc import Iterator

import numpy as np
import openvino as ov
import pytest

from ovray.replica import openvino_requests
from ovray.replica.envelope import Reply
from ovray.replica.workload import Batching
from tests.integration.models import SQUEEZENET, a_perceptron
from tests.integration.serving import a_server, alone, an_engine, an_envelope, plain_openvino

SHAPE = (1, 3, 224, 224)
PICTURE_BYTES = 4 * 3 * 224 * 224


def lying_at(offset: int, picture: np.ndarray) -> Iterator[np.ndarray]:
    """Gives a copy that lies in memory which nobody may write to, and checks that nobody did."""
    memory = mmap.mmap(-1, offset + PICTURE_BYTES)
    memory[offset:] = picture.tobytes()
    whole = np.frombuffer(memory, np.uint8)
    whole.flags.writeable = False
    yield whole[offset:].view(np.float32).reshape(SHAPE)
    assert memory[offset:] == picture.tobytes()


def scores(reply: Reply) -> np.ndarray:
    if reply.error is not None:
        raise reply.error
    assert reply.outputs is not None
    return reply.outputs[0]


def test_lent_and_copied_inputs_take_turns_on_one_infer_request() -> None:
    model = ov.Core().read_model(SQUEEZENET)
    chance = np.random.default_rng(4)
    pictures = [chance.random(SHAPE, dtype=np.float32) for _ in range(6)]
    # Every other one lies where OpenVINO's own tensors would not begin, and is copied.
    held = [lying_at(16 * (number % 2), picture) for number, picture in enumerate(pictures)]
    lying = [next(one) for one in held]

    engine = an_engine(model, NUM_STREAMS="1", PERFORMANCE_HINT_NUM_REQUESTS="1")
    with a_server(engine) as server:
        replies = server.ask(an_envelope([[picture] for picture in [*lying, *lying[::-1]]]))

    plain = plain_openvino(model)
    wanted = [plain([picture])[0] for picture in pictures]
    for reply, expected in zip(replies, [*wanted, *wanted[::-1]], strict=True):
        np.testing.assert_allclose(scores(reply), expected, rtol=1e-4, atol=1e-6)
    for one in held:
        assert next(one, None) is None


@pytest.mark.parametrize("pays", [False, True])
def test_a_batch_of_one_is_opened_only_where_joining_pays(pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_requests, "joining_pays", lambda infer: pays)
    model = a_perceptron(batch=1)
    rows = np.random.default_rng(5).random((12, 1, 32), dtype=np.float32)

    engine = an_engine(model, Batching())
    with a_server(engine, Batching()) as server:
        replies = server.ask(an_envelope([[row] for row in rows]))

    assert (engine.joining is not None) is pays
    assert engine.signature.inputs[0].shape == (None if pays else 1, 32)
    for row, reply in zip(rows, replies, strict=True):
        np.testing.assert_allclose(scores(reply), alone(model, [row])[0], rtol=1e-4, atol=1e-5)
