"""What AsyncInferQueue promises beyond OpenVINO's: callbacks of every kind, bad input, and no slot ever lost."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovray
from ovray.errors import ConfigError, DataError, RequestError
from tests.integration.runtime.served_models import Served
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.ray

ROW = np.ones((1, 32), np.float32)


def within(call: Callable[[], Any]) -> None:
    """Makes a call on another thread, and fails where it does not return: a hang must not stop the tests."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 (is raised below)
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "the call did not return"
    if errors:
        raise errors[0]


def test_a_callbacks_exception_surfaces_once_at_the_next_call_and_the_queue_goes_on(ours: Served) -> None:
    queue, seen = ours.queue("perceptron", 1), []

    def callback(request: ovray.InferRequest, row: int) -> None:
        if row == 0:
            raise ValueError("boom")
        seen.append(row)

    queue.set_callback(callback)
    queue.start_async(ROW, 0)
    with pytest.raises(ValueError, match="boom"):
        queue.start_async(ROW, -1)  # waits for the slot, which is free after the callback
    for row in range(1, 6):
        queue.start_async(ROW, row)
    queue.wait_all()

    assert sorted(seen) == [1, 2, 3, 4, 5]


def test_an_inference_that_fails_surfaces_at_wait_all_and_its_slot_is_free_again(ours: Served) -> None:
    queue = ours.queue("refusing", 1)
    grid = np.ones((2, 2, 3), np.float32)

    queue.start_async([grid, np.ones(3, np.float32)])

    with pytest.raises(DataError, match="'factor' \\[3\\]"):
        within(queue.wait_all)
    within(queue.wait_all)
    assert queue.is_ready()


def test_wrong_shapes_names_and_values_raise_at_once_and_cost_no_slot(ours: Served) -> None:
    queue = ours.queue("perceptron", 1)

    for wrong, error in [
        (np.ones((1, 31)), DataError),
        ({"nope": ROW}, DataError),
        ({1: ROW}, DataError),
        (object(), TypeError),
        ("text", ValueError),
    ]:
        with pytest.raises(error, match=r"features"):
            queue.start_async(wrong)
        assert queue.is_ready()
    queue.start_async(ROW)
    queue.wait_all()

    assert queue[0].results["logits"].shape == (1, 3)


def test_a_slot_that_is_not_there_is_an_index_error(ours: Served) -> None:
    with pytest.raises(IndexError, match="99"):
        ours.queue("perceptron", 2)[99]


def test_a_slot_is_free_only_after_its_callback_has_returned(ours: Served) -> None:
    queue, go_on, entered, seen = ours.queue("perceptron", 1), threading.Event(), threading.Event(), []

    def callback(request: ovray.InferRequest, row: int) -> None:
        entered.set()
        assert go_on.wait(DEADLINE_S)
        seen.append(row)

    queue.set_callback(callback)
    queue.start_async(ROW, "first")
    assert entered.wait(DEADLINE_S)
    assert not queue.is_ready()
    second = threading.Thread(target=queue.start_async, args=(ROW, "second"), daemon=True)
    second.start()
    assert seen == []
    go_on.set()
    second.join(DEADLINE_S)
    queue.wait_all()

    assert seen == ["first", "second"]


def test_a_callback_may_submit_the_next_request_of_a_chain_even_with_one_slot(ours: Served) -> None:
    queue, seen = ours.queue("perceptron", 1), []

    def callback(request: ovray.InferRequest, row: int) -> None:
        seen.append((row, request.results["logits"].shape[0]))
        if row < 20:
            queue.start_async(np.ones((row + 1, 32)), row + 1)

    queue.set_callback(callback)
    queue.start_async(ROW, 1)
    within(queue.wait_all)

    assert seen == [(row, row) for row in range(1, 21)]


def test_callbacks_that_would_wait_for_each_other_for_good_are_told_so(ours: Served) -> None:
    queue, told = ours.queue("perceptron", 2), []
    both_run = threading.Barrier(2, timeout=DEADLINE_S)

    def callback(request: ovray.InferRequest, row: int) -> None:
        if row >= 2:
            return
        both_run.wait()
        queue.start_async(ROW, 2)
        both_run.wait()
        try:
            queue.start_async(ROW, 3)
        except RequestError as error:
            told.append(str(error))

    queue.set_callback(callback)
    for row in range(2):
        queue.start_async(ROW, row)
    within(queue.wait_all)

    assert told, "neither was told"
    assert "callback that waits" in told[0]


def test_wait_all_in_a_callback_is_an_error_instead_of_a_hang(ours: Served) -> None:
    queue = ours.queue("perceptron", 2)
    queue.set_callback(lambda request, row: queue.wait_all())

    queue.start_async(ROW)

    with pytest.raises(RequestError, match="callback"):
        within(queue.wait_all)


def test_callbacks_that_wait_for_each_other_all_run(ours: Served) -> None:
    # More than there are threads at first.
    together = threading.Barrier(12, timeout=DEADLINE_S)
    queue = ours.queue("perceptron", 12)
    queue.set_callback(lambda request, row: together.wait())

    for row in range(12):
        queue.start_async(ROW, row)

    within(queue.wait_all)


def test_a_callback_may_infer_and_block_without_holding_up_other_requests(ours: Served) -> None:
    queue, compiled, go_on, seen = ours.queue("perceptron", 2), ours.perceptron, threading.Event(), []

    def callback(request: ovray.InferRequest, row: int) -> None:
        seen.append(compiled(ROW)["logits"].shape)
        assert go_on.wait(DEADLINE_S)

    queue.set_callback(callback)
    queue.start_async(ROW)
    others = [compiled(ROW)["total"].shape for _ in range(20)]
    go_on.set()
    queue.wait_all()

    assert others == [(1, 1)] * 20
    assert seen == [(1, 3)]


def test_a_ctrl_c_while_a_request_is_being_sent_costs_neither_the_request_nor_a_slot(
    ours: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, seen = ours.queue("perceptron", 2), []
    queue.set_callback(lambda request, row: seen.append(row))
    pool = ours.perceptron.serving.pool
    submit = pool.submit_small

    def interrupted(request: Any) -> None:
        submit(request)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "submit_small", interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.start_async(ROW, 0)
    monkeypatch.undo()
    for row in range(1, 20):
        queue.start_async(ROW, row)
    within(queue.wait_all)

    assert sorted(seen) == list(range(20))


def test_callbacks_never_run_on_the_driver_thread(ours: Served) -> None:
    queue, names = ours.queue("perceptron", 4), set()
    queue.set_callback(lambda request, row: names.add(threading.current_thread().name))

    for _ in range(50):
        queue.start_async(ROW)
    queue.wait_all()

    assert names == {"ovray-callback"}


def test_userdata_is_the_very_object(ours: Served) -> None:
    queue, given, got = ours.queue("perceptron", 1), threading.Lock(), []  # a lock cannot be pickled
    queue.set_callback(lambda request, userdata: got.append(userdata))

    queue.start_async(ROW, given)
    queue.wait_all()

    assert got[0] is given
    assert queue.userdata == [given]


def test_no_more_requests_are_in_flight_than_the_queue_has_jobs(local_ray: None) -> None:
    with ovray.compile_model(Served.MAKERS["perceptron"](), "SIM?ms=10&nireq=8") as compiled:
        queue, in_flight, most = ovray.AsyncInferQueue(compiled, jobs=3), [], []
        queue.set_callback(lambda request, row: in_flight.remove(row))

        for row in range(30):
            queue.start_async(ROW, row)
            in_flight.append(row)
            most.append(int(compiled.stats()["requests_outstanding"].sum()))
        queue.wait_all()

        assert max(most) == 3
        assert in_flight == []


def test_a_queue_without_a_number_of_jobs_keeps_every_replica_busy(local_ray: None) -> None:
    with ovray.compile_model(Served.MAKERS["perceptron"](), "SIM*4?ms=20&nireq=2") as compiled:
        within(lambda: _wait_for_replicas(compiled, 4))
        assert compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 8
        queue = ovray.AsyncInferQueue(compiled)

        for _ in range(80):
            queue.start_async(ROW)
        queue.wait_all()

        assert len(queue) >= 8
        assert (compiled.stats()["rows_done"] > 0).all()


def _wait_for_replicas(compiled: ovray.CompiledModel, count: int) -> None:
    until(lambda: sum(replica.state == "ready" for replica in compiled.replicas) >= count)


def test_a_queue_of_a_device_that_is_not_there_is_told_what_there_is(ours: Served) -> None:
    queue = ours.queue("perceptron", 1)

    with pytest.raises(ConfigError, match=r"legal are .*/CPU\.0"):
        queue.start_async(ROW, device="node-x/GPU")

    assert queue.is_ready()
