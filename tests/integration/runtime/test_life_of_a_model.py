"""How compiled models end: closed, dropped, with the interpreter, and in a process that was forked from theirs."""

import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

import ovray
from ovray.errors import ReplicaError
from tests.integration.runtime.served_models import Served
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.ray

ROW = np.ones((1, 32), np.float32)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def a_simulated_model(ms: int = 1) -> ovray.CompiledModel:
    return ovray.compile_model(Served.MAKERS["perceptron"](), f"SIM?ms={ms}")


def test_a_closed_model_says_so_and_what_was_under_way_ends_with_an_error(local_ray: None) -> None:
    compiled = a_simulated_model(ms=30_000)
    (replica,) = compiled.replicas
    request, queue = compiled.create_infer_request(), ovray.AsyncInferQueue(compiled, 2)
    request.start_async(ROW)
    queue.start_async(ROW)
    future = compiled.submit(ROW)

    compiled.close()
    compiled.close()

    for ended in (request.wait, queue.wait_all, lambda: future.result(DEADLINE_S)):
        with pytest.raises(ReplicaError):
            ended()
    for use in (
        lambda: compiled(ROW),
        lambda: request.infer(ROW),
        lambda: queue.start_async(ROW),
        lambda: compiled.submit(ROW),
        lambda: next(compiled.map([ROW])),
        compiled.stats,
        lambda: compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"),
    ):
        with pytest.raises(ReplicaError, match="closed"):
            use()
    assert replica.pid is not None
    until(lambda: is_gone(replica.pid))


def test_results_outlive_their_model(local_ray: None) -> None:
    with a_simulated_model() as compiled:
        request = compiled.create_infer_request()
        kept = request.infer(ROW)

    assert kept["logits"].tolist() == request.results["logits"].tolist() == [[0, 0, 0]]


def test_replicas_end_with_the_last_reference(local_ray: None) -> None:
    compiled = a_simulated_model()
    request = compiled.create_infer_request()
    pid = compiled.replicas[0].pid
    assert pid is not None

    del compiled
    assert request.infer(ROW)["logits"].shape == (1, 3)
    del request

    until(lambda: is_gone(pid))


def test_a_request_pinned_to_a_device_that_could_not_start_is_refused(local_ray: None) -> None:
    model = Served.MAKERS["perceptron"]()
    with ovray.compile_model(model, "SIM?ms=1,CPU?NO_SUCH_PROPERTY=1", share_cores=True) as compiled:
        until(lambda: {replica.state for replica in compiled.replicas} == {"ready", "failed"})
        # What replicas said of themselves is taken for known for a while.
        until(lambda: {replica.state for replica in compiled.serving._lately()} == {"ready", "failed"})

        with pytest.raises(ReplicaError, match="could start"):
            compiled(ROW, device="CPU")
        assert compiled(ROW, device="SIM")["logits"].shape == (1, 3)


LEAVING = """
import time
import numpy as np
import ovray as ov
from tests.integration import models

if __name__ == "__main__":
    compiled = ov.compile_model(models.a_perceptron(), "SIM?ms=60000")
    queue = ov.AsyncInferQueue(compiled, 8)
    queue.set_callback(lambda request, userdata: None)
    for row in range(4):
        queue.start_async(np.ones((1, 32)), row)
    request = compiled.create_infer_request()
    request.start_async(np.ones((1, 32)))
    futures = [compiled.submit(np.ones((1, 32))) for _ in range(4)]
    print(time.time(), flush=True)
"""


def test_an_interpreter_ends_promptly_with_requests_in_flight() -> None:
    run = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=200, check=False)
    ended_s = time.time()

    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    # An inference takes a minute; nobody waits for one.
    assert ended_s - float(run.stdout.split()[-1]) < 30


def test_a_forked_process_is_told_that_the_replicas_are_its_parents(local_ray: None) -> None:
    with a_simulated_model() as compiled:
        request, queue = compiled.create_infer_request(), ovray.AsyncInferQueue(compiled, 1)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            told = []
            for use in (lambda: compiled(ROW), lambda: request.infer(ROW), lambda: queue.start_async(ROW)):
                try:
                    use()
                except ReplicaError as error:
                    told.append("forked" in str(error))
            compiled.close()
            os.write(writer, repr(told).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            said = answer.read()
        os.waitpid(child, 0)

        assert said == "[True, True, True]"
        assert compiled(ROW)["logits"].shape == (1, 3)
