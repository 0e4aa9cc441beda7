"""Many requests from many threads: each completes exactly once, with the result of its own input."""

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

import ovray
from tests.integration import models
from tests.waiting import until

#: ``OVRAY_TEST_REQUESTS=100000`` is the promise; the default fits a small machine.
REQUESTS = int(os.environ.get("OVRAY_TEST_REQUESTS", "8000"))
THREADS, REPLICAS, IN_FLIGHT_A_THREAD = 8, 4, 64


def a_model_that_tells_inputs_apart() -> ov.Model:
    """``x`` i64[?, 2] in; ``y`` i64[?, 2] out: both numbers in places changed, and twice the first plus one."""
    x = models._input("x", ov.Type.i64, [-1, 2])
    swapped = ops.gather(x, ops.constant(np.array([1, 0])), ops.constant(np.int64(1)))
    weights = ops.constant(np.array([[1, 2]]))
    return ov.Model([models._output("y", ops.add(ops.multiply(swapped, weights), np.int64(1)))], [x], "swap")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_requests_of_eight_threads_complete_exactly_once_with_their_own_results(local_ray: None) -> None:
    each = REQUESTS // THREADS
    with ovray.compile_model(
        a_model_that_tells_inputs_apart(), ",".join(["CPU"] * REPLICAS), share_cores=True
    ) as compiled:
        until(lambda: sum(replica.state == "ready" for replica in compiled.replicas) == REPLICAS)

        def work(thread: int) -> Counter[tuple[int, int]]:
            ended: Counter[tuple[int, int]] = Counter()
            queue = ovray.AsyncInferQueue(compiled, IN_FLIGHT_A_THREAD)

            def note(request: ovray.InferRequest, number: int) -> None:
                swapped, own = request.results["y"].tolist()[0]
                assert (own, swapped) == (2 * thread + 1, number + 1)
                with noting:
                    ended[(thread, number)] += 1

            noting = threading.Lock()
            queue.set_callback(note)
            array = np.empty((1, 2), np.int64)
            for number in range(each):
                array[:] = thread, number  # written over again, as soon as it was taken
                queue.start_async(array, number)
            queue.wait_all()
            return ended

        with ThreadPoolExecutor(THREADS) as threads:
            ended = sum(threads.map(work, range(THREADS)), Counter())

        assert ended == {(thread, number): 1 for thread in range(THREADS) for number in range(each)}
        done = compiled.stats()["rows_done"]
        assert done.sum() == THREADS * each
        assert (done > 0).all()
