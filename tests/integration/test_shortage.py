"""Models and jobs that start while others hold a part of the cores: what they say, and what they take later."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
import ray

import ovray
from ovray.devices.leases import DIRECTORY_VARIABLE, CoreLeases
from ovray.driver.session import held_session
from tests.integration.a_cluster import a_cluster
from tests.integration.commands import Command
from tests.integration.models import a_perceptron
from tests.integration.scoring_job import write_numbered_digits
from tests.waiting import DEADLINE_S, until

#: Keeps a job going until the test has seen enough, and its replicas answering.
PREPARE = """
import os, time

def with_leisure(columns):
    if not os.path.exists({told!r}):
        time.sleep(0.02 * len(columns["pixels"]))
    return {{"pixels": columns["pixels"]}}
"""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one core there is all or nothing"),
]

CORES = len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def leases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for leases of our own, so that other work on this machine does not matter."""
    return tmp_path_factory.mktemp("leases")


@pytest.fixture(scope="module", autouse=True)
def address(leases: Path) -> Iterator[str]:
    with a_cluster(CORES, **{DIRECTORY_VARIABLE: str(leases)}) as found:
        held_session.take(found)
        yield found
        held_session.let_go()


@ray.remote
class _Holder:
    def is_there(self) -> bool:
        return True


@contextmanager
def one_of_rays_cpus_taken() -> Iterator[Callable[[], None]]:
    """Gives what gives it back."""
    holder: Any = _Holder.options(num_cpus=1).remote()  # type: ignore[attr-defined]
    assert ray.get(holder.is_there.remote(), timeout=DEADLINE_S)
    yield lambda: ray.kill(holder)
    ray.kill(holder)


def cores_of(model: ovray.CompiledModel) -> list[int]:
    return sorted(cpu for replica in model.replicas if replica.state == "ready" for cpu in replica.cpus)


def test_a_model_serves_on_what_ray_has_says_so_once_and_takes_the_rest_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        one_of_rays_cpus_taken() as give_back,
        ovray.compile_model(a_perceptron(), "CPU") as model,
    ):
        until(lambda: cores_of(model))
        assert 0 < len(cores_of(model)) < CORES
        told = [text for text in caplog.messages if "less is free than was asked for" in text]
        assert len(told) == 1
        assert f"Ray has {CORES - 1} of {CORES} CPUs free there" in told[0]
        first = model.replicas[0].pid

        give_back()
        until(lambda: len(cores_of(model)) == CORES)

        assert model.replicas[0].pid == first
        assert model(np.ones((1, 32), np.float32))[0].shape == (1, 3)


def test_cores_that_another_job_has_leased_are_taken_when_it_gives_them_back(
    leases: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = max(os.sched_getaffinity(0))
    with (
        CoreLeases(leases).acquire([last], "another job", timeout_s=DEADLINE_S) as lease,
        ovray.compile_model(a_perceptron(), "CPU") as model,
    ):
        until(lambda: cores_of(model))
        assert set(cores_of(model)).isdisjoint(lease.cpus)
        assert sum("leased by other replicas" in text for text in caplog.messages) == 1

        lease.release()
        until(lambda: len(cores_of(model)) == CORES)


def test_cores_of_a_job_that_is_just_ending_are_enough_to_start(leases: Path) -> None:
    """Where a plan is made of all cores instead, it waits for those that stay taken, too, and then gives up."""
    *others, last = sorted(os.sched_getaffinity(0))
    with (
        CoreLeases(leases).acquire([last], "another job", timeout_s=DEADLINE_S),
        CoreLeases(leases).acquire(others, "a job that is ending", timeout_s=DEADLINE_S) as ending,
    ):
        Timer(1.5, ending.release).start()
        with ovray.compile_model(a_perceptron(), "CPU") as model:
            until(lambda: cores_of(model))
            assert last not in cores_of(model)


def test_a_job_starts_with_what_there_is_says_so_and_takes_the_rest_later(address: str, tmp_path: Path) -> None:
    write_numbered_digits(tmp_path / "in.parquet", rows=40_000)
    (tmp_path / "prepare.py").write_text(PREPARE.format(told=str(tmp_path / "told")))
    model = ovray.digits.model_file()
    with one_of_rays_cpus_taken() as give_back:
        job = Command(
            tmp_path, "score", model, "in.parquet", "-o", "out", "--devices", "CPU", "--address", address,
            "--preprocess", "prepare:with_leisure", "--commit-every", "0.02", "--batch-size", "32",
        )  # fmt: skip
        until(lambda: "less is free than was asked for" in job.stdout or job.process.poll() is not None)
        give_back()
        until(lambda: "CPU.0#1: ready" in job.stdout or job.process.poll() is not None)
        (tmp_path / "told").touch()
        assert job.wait(DEADLINE_S) == 0, f"{job.stdout}\n{job.stderr}"

    assert job.stdout.count("less is free than was asked for") == 1
    assert job.stderr.count("less is free than was asked for") == 1  # among the warnings at the end
