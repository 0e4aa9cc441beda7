"""What infer requests, futures and maps promise beyond OpenVINO's InferRequest."""

import asyncio
import io
import itertools
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import numpy as np
import openvino as ov
import pytest

import ovray
from ovray.errors import ConfigError, DataError, ReplicaError, RequestError
from tests.integration.runtime.served_models import Served, a_running_sum
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.ray

ROW = np.ones((1, 32), np.float32)


@pytest.fixture(scope="module")
def slow(local_ray: None) -> Iterator[ovray.CompiledModel]:
    """Is a model on two simulated devices that run one request at a time, each for 50 ms."""
    with ovray.compile_model(Served.MAKERS["perceptron"](), "SIM*2?ms=50") as compiled:
        until(lambda: sum(replica.state == "ready" for replica in compiled.replicas) == 2)
        yield compiled


def test_a_remote_tensor_is_refused_with_what_to_give(ours: Served) -> None:
    # One with memory behind it takes a GPU to make; what it is, is refused before that is looked at.
    remote = ov.RemoteTensor.__new__(ov.RemoteTensor)

    with pytest.raises(DataError, match=r"lives in the memory of one device.*give an openvino\.Tensor"):
        ours.request("perceptron").set_input_tensor(remote)


def test_messages_name_the_port_and_what_it_expects(ours: Served) -> None:
    with pytest.raises(DataError, match=r"input 0 'features' f32\[\?,32\] was given the shape \[1, 31\]"):
        ours.perceptron(ROW[:, :31])
    with pytest.raises(DataError, match=r"input 1 'factor' f32\[\?\] was never given"):
        ours.request("pair").infer({"grid": np.ones((1, 2, 3))})
    with pytest.raises(DataError, match=r"no input 'nope'; its inputs are 0 'features' f32\[\?,32\]"):
        ours.perceptron({"nope": ROW})
    with pytest.raises(DataError, match=r"'x' f32\[6\] was given a tensor of f64; give f32"):
        ours.request("bare").set_input_tensor(ov.Tensor(np.ones(6)))


def test_a_copied_input_never_lands_in_an_array_that_was_shared_before(ours: Served) -> None:
    request, shared, as_tensor = ours.request("bare"), np.ones(6, np.float32), np.ones(6, np.float32)

    request.infer(shared, share_inputs=True)
    request.infer(np.zeros(6))
    request.infer(ov.Tensor(as_tensor, shared_memory=True))
    request.infer(np.zeros(6))

    assert shared.tolist() == as_tensor.tolist() == [1] * 6


@pytest.mark.parametrize("rows", [1, 512])  # kept as bytes; placed where the pool keeps what is large
def test_an_array_that_is_shared_is_the_input_tensor_from_then_on(
    original: Served, ours: Served, rows: int
) -> None:
    for served in (original, ours):
        request, shared = served.request("perceptron"), np.ones((rows, 32), np.float32)

        first = request.infer(shared, share_inputs=True)["total"].copy()
        shared += 1.0
        second = request.infer()["total"].copy()
        shared += 1.0

        expected = [original.perceptron(np.full((rows, 32), value, np.float32))["total"] for value in (1.0, 2.0)]
        np.testing.assert_allclose([first, second], expected, rtol=1e-5)
        assert request.get_input_tensor().data[0, 0] == 3.0
        request.get_input_tensor().data[...] = 7.0
        assert shared[-1, -1] == 7.0


def test_results_stay_as_they_are_when_others_are_written_into(ours: Served) -> None:
    request = ours.request("bare")

    first = request.infer(np.ones(6))
    first["double"].fill(-1)

    assert request.results["double"].tolist() == [2] * 6
    assert request.get_output_tensor(1).data.tolist() == [2] * 6


def test_a_model_that_is_reshaped_after_compiling_does_not_change_the_compiled_one(local_ray: None) -> None:
    model = Served.MAKERS["perceptron"]()
    with ovray.compile_model(model, "CPU", share_cores=True) as compiled:
        model.reshape([7, 32])

        assert str(compiled.input().partial_shape) == "[?,32]"
        assert compiled(ROW)["logits"].shape == (1, 3)


def test_inputs_that_do_not_go_together_harm_no_later_request_of_the_same_shapes(local_ray: None) -> None:
    grid, factor = np.ones((2, 2, 3), np.float32), np.array([1, 2], np.float32)
    with ovray.compile_model(Served.MAKERS["pair"](), "CPU", share_cores=True) as compiled:
        for _ in range(3):
            assert compiled([grid, factor])["scaled"][1, 0, 0] == 2
            with pytest.raises(DataError, match="'factor' \\[3\\]"):
                compiled([grid, np.ones(3, np.float32)])


def test_threads_use_one_compiled_model_without_waiting_for_each_other(ours: Served) -> None:
    def double(value: int) -> list[float]:
        return ours.bare(np.full(6, value))["double"].tolist()

    with ThreadPoolExecutor(8) as threads:
        doubled = list(threads.map(double, range(200)))

    assert doubled == [[2.0 * value] * 6 for value in range(200)]


def test_a_request_that_runs_is_busy_and_a_cancelled_one_can_be_used_again(slow: ovray.CompiledModel) -> None:
    ahead = [slow.submit(ROW) for _ in range(10)]
    request = slow.create_infer_request()

    request.start_async(ROW)
    with pytest.raises(RequestError, match="busy"):
        request.get_input_tensor()
    request.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        request.wait()

    assert request.infer(ROW)["logits"].shape == (1, 3)
    assert [future.result(DEADLINE_S)["total"].shape for future in ahead] == [(1, 1)] * 10


def test_a_callback_may_start_its_request_again_and_wait_returns_after_the_last(ours: Served) -> None:
    request, left = ours.request("perceptron"), [3, 2, 1]

    def again(userdata: Any) -> None:
        if left:
            left.pop()
            request.start_async(ROW)

    request.set_callback(again, None)
    request.start_async(ROW)
    request.wait()

    assert left == []


def test_a_deadline_ends_a_request_that_no_replica_has_begun(slow: ovray.CompiledModel) -> None:
    ahead = [slow.submit(ROW) for _ in range(40)]

    with pytest.raises(ReplicaError, match="deadline"):
        slow.submit(ROW, deadline_s=0.05).result(DEADLINE_S)
    with pytest.raises(ConfigError, match="deadline_s"):
        slow(ROW, deadline_s=0)

    assert all(future.result(DEADLINE_S) for future in ahead)


def test_a_request_of_a_higher_priority_goes_before_those_that_wait(slow: ovray.CompiledModel) -> None:
    ended: list[str] = []
    low = [slow.submit(ROW) for _ in range(40)]
    for future in low:
        future.add_done_callback(lambda _: ended.append("low"))

    slow.submit(ROW, priority=1).result(DEADLINE_S)
    ended.append("high")
    for future in low:
        future.result(DEADLINE_S)

    assert ended.index("high") < 20


def test_a_request_is_pinned_to_a_replica_or_device(slow: ovray.CompiledModel) -> None:
    before = slow.stats().set_index("id")["rows_done"]
    pinned = slow.replicas[1].id

    for _ in range(5):
        slow(ROW, device=pinned)

    done = slow.stats().set_index("id")["rows_done"] - before
    assert done[pinned] == 5
    assert done.sum() == 5
    with pytest.raises(ConfigError, match="legal are"):
        slow.submit(ROW, device="GPU")


def test_device_priorities_change_while_the_model_serves(local_ray: None) -> None:
    model = Served.MAKERS["perceptron"]()
    with ovray.compile_model(model, "SIM?ms=1,CPU*1", share_cores=True) as compiled:
        until(lambda: sum(replica.state == "ready" for replica in compiled.replicas) == 2)
        simulated, real = (f"{replica.host}/{replica.device}" for replica in compiled.replicas)
        assert compiled.get_property("MULTI_DEVICE_PRIORITIES") == f"{simulated},{real}"

        compiled.set_property({"MULTI_DEVICE_PRIORITIES": "CPU"})
        for _ in range(5):
            compiled(ROW)

        done = compiled.stats().set_index("device")["rows_done"]
        assert done["CPU.0"] == 5
        assert compiled.get_property("MULTI_DEVICE_PRIORITIES") == real
        with pytest.raises(ConfigError, match="legal are"):
            compiled.set_property(("MULTI_DEVICE_PRIORITIES", "NPU"))


def test_futures_can_be_cancelled_and_awaited(slow: ovray.CompiledModel) -> None:
    futures = [slow.submit(ROW) for _ in range(10)]

    assert futures[-1].cancel()
    with pytest.raises(CancelledError):
        futures[-1].result(DEADLINE_S)

    async def all_of_them() -> list[Any]:
        wrapped = [asyncio.wrap_future(future) for future in futures[:-1]]
        return await asyncio.gather(*wrapped, slow.infer_async(ROW))

    assert len(asyncio.run(all_of_them())) == 10


def test_a_functions_that_waits_for_a_future_of_its_own_holds_up_nobody(slow: ovray.CompiledModel) -> None:
    shapes: list[Any] = []
    future = slow.submit(ROW)

    future.add_done_callback(lambda _: shapes.append(slow.submit(ROW).result(DEADLINE_S)["logits"].shape))
    future.result(DEADLINE_S)
    slow(ROW)
    until(lambda: shapes)
    assert shapes == [(1, 3)]


def test_map_is_lazy_on_both_sides_and_keeps_the_order(ours: Served) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Any]:
        for value in itertools.count():
            taken.append(value)
            yield np.full(6, value)

    results = ours.bare.map(endless(), look_ahead=4)
    assert taken == []
    doubled = [next(results)["double"][0] for _ in range(10)]
    results.close()

    assert doubled == [2 * value for value in range(10)]
    assert len(taken) <= 10 + 4


def test_map_without_order_gives_each_result_once(ours: Served) -> None:
    doubled = [
        results["double"][0] for results in ours.bare.map((np.full(6, n) for n in range(50)), ordered=False)
    ]

    assert sorted(doubled) == [2 * value for value in range(50)]


def test_map_raises_in_the_place_of_the_result(ours: Served) -> None:
    results = ours.bare.map([np.zeros(6), np.ones(6), np.zeros(7), np.zeros(6)], look_ahead=1)

    assert [next(results)["sum"], next(results)["sum"]] == [0, 6]
    with pytest.raises(DataError, match="shape"):
        next(results)
    with pytest.raises(ConfigError, match="look_ahead"):
        ours.bare.map([], look_ahead=0)


def test_what_cannot_be_had_across_processes_says_so(ours: Served) -> None:
    with pytest.raises(RuntimeError, match="replica's process"):
        ours.bare.get_runtime_model()
    with pytest.raises(RuntimeError, match="layers"):
        ours.request("bare").get_profiling_info()
    with pytest.raises(RuntimeError, match="remote context"):
        ours.core.get_default_context("GPU")
    with pytest.raises(RuntimeError, match="keeps state between inferences"):
        ours.core.compile_model(a_running_sum(), "CPU")
    with pytest.raises(TypeError, match="share_core"):
        ours.core.compile_model(Served.MAKERS["bare"](), "CPU", share_core=True)


def test_a_property_that_only_the_device_has_is_read_there(ours: Served) -> None:
    assert ours.perceptron.get_property("NUM_STREAMS") >= 1
    assert ours.perceptron.get_property(ov.properties.inference_num_threads) >= 1
    with pytest.raises(RuntimeError, match="NO_SUCH_THING"):
        ours.perceptron.get_property("NO_SUCH_THING")


def test_properties_of_the_whole_are_read_here(ours: Served) -> None:
    places = list(dict.fromkeys(replica.place for replica in ours.perceptron.replicas))

    assert ours.perceptron.get_property("EXECUTION_DEVICES") == places
    assert ours.perceptron.get_property(ov.properties.execution_devices) == places
    assert ours.perceptron.get_property("MULTI_DEVICE_PRIORITIES") == ",".join(places)
    assert ours.perceptron.get_property("PERFORMANCE_HINT") == ov.properties.hint.PerformanceMode.LATENCY
    assert ours.perceptron.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == sum(
        replica.nireq for replica in ours.perceptron.replicas
    )


def test_an_exported_model_runs_in_openvino_with_the_same_results(ours: Served) -> None:
    stream = io.BytesIO()
    ours.perceptron.export_model(stream)

    imported = ov.Core().import_model(stream.getvalue(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    np.testing.assert_allclose(imported(ROW)["logits"], ours.perceptron(ROW)["logits"], rtol=1e-5)
    assert ours.perceptron.export_model().getvalue() == stream.getvalue()
