"""Which replicas of a pool get requests: AUTO, MULTI, policies, properties of devices; on real replicas."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ovray.core.policies import SchedulePolicy
from ovray.driver.calls import Ended
from ovray.driver.opening import PoolOptions, open_pool
from ovray.driver.placement import PlacementOptions
from ovray.driver.pool import RequestPool
from ovray.driver.pool_options import Lifetime
from ovray.driver.session import held_session
from ovray.errors import ConfigError
from tests.integration.models import a_perceptron
from tests.waiting import DEADLINE_S, until

#: Takes as long to compile as nothing else in here.
SLOW_START = "SIM?compile_s=4"

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    held_session.take("local")
    yield
    held_session.let_go()


@contextmanager
def _serving(
    devices: str,
    policy: SchedulePolicy = SchedulePolicy.FASTEST_COMPLETION,
    config: Mapping[str, str] | None = None,
    device_config: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[RequestPool]:
    options = PoolOptions(
        placement=PlacementOptions.parse(
            devices=devices, hint="LATENCY", precision="f32", share_cores=True, lease_timeout_s=30.0
        ),
        policy=policy,
        config=config or {},
        device_config=device_config or {},
    )
    pool = open_pool(a_perceptron(), options).pool
    try:
        yield pool
    finally:
        pool.close()


def _ask(pool: RequestPool) -> Ended:
    answer: Future[Ended] = Future()
    pool.submit([np.ones((1, 32), np.float32)], ended=answer.set_result)
    return answer.result(DEADLINE_S)


def _served_by(pool: RequestPool) -> str:
    """Returns which entry of the device string answered one request: ``SIM#0`` is the first of SIMs."""
    ended = _ask(pool)
    assert ended.error is None
    assert ended.replica is not None
    return ended.replica.rpartition("/")[2]


def _ready(pool: RequestPool) -> set[str]:
    return {replica.rpartition("/")[2] for replica in pool.snapshot().reports}


def _pid(pool: RequestPool, entry: str) -> int:
    (report,) = [report for replica, report in pool.snapshot().reports.items() if replica.endswith(entry)]
    return report.pid


def _is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


# --- AUTO and MULTI: who serves -----------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [f"{SLOW_START},SIM", f"MULTI:{SLOW_START},SIM", f"AUTO:{SLOW_START},SIM"])
def test_the_first_replica_that_is_ready_serves_and_others_join(devices: str) -> None:
    with _serving(devices) as pool:
        assert _served_by(pool) == "SIM#1"
        assert _ready(pool) == {"SIM#1"}

        until(lambda: _served_by(pool) == "SIM#0")


def test_auto_moves_to_the_best_device_for_good_when_it_has_compiled() -> None:
    # The lesser one is the faster one: only the rank speaks for the other.
    with _serving("AUTO:SIM?compile_s=3&ms=20,SIM?ms=1") as pool:
        assert _served_by(pool) == "SIM#1"

        until(lambda: "SIM#0" in _ready(pool))
        assert [_served_by(pool) for _ in range(20)] == ["SIM#0"] * 20


def test_auto_falls_back_when_the_best_device_is_killed_and_its_requests_run_elsewhere() -> None:
    with _serving("AUTO:SIM?ms=200,SIM?ms=1") as pool:
        until(lambda: _ready(pool) == {"SIM#0", "SIM#1"})
        answers: list[Ended] = []
        for _ in range(6):
            pool.submit([np.ones((1, 32), np.float32)], ended=answers.append)

        os.kill(_pid(pool, "SIM#0"), 9)

        assert pool.drain(DEADLINE_S)
        assert len(answers) == 6
        assert [answer.error for answer in answers] == [None] * 6
        assert str(answers[-1].replica).endswith("SIM#1")


def test_without_startup_fallback_requests_wait_for_the_best_device() -> None:
    with _serving(f"AUTO:{SLOW_START},SIM", config={"ENABLE_STARTUP_FALLBACK": "NO"}) as pool:
        assert _ready(pool) == {"SIM#1"}

        assert _served_by(pool) == "SIM#0"


def test_without_runtime_fallback_lesser_devices_are_let_go_and_nobody_takes_over() -> None:
    with _serving(f"AUTO:{SLOW_START},SIM", config={"ENABLE_RUNTIME_FALLBACK": "NO"}) as pool:
        helper = _pid(pool, "SIM#1")
        assert _served_by(pool) == "SIM#1"

        until(lambda: not _is_alive(helper))
        os.kill(_pid(pool, "SIM#0"), 9)

        # The one that was killed is started anew, and answers what came meanwhile.
        assert _served_by(pool) == "SIM#0"


def test_auto_serves_on_a_cpu_at_once_and_moves_to_an_accelerator() -> None:
    with _serving(f"AUTO:{SLOW_START},CPU") as pool:
        assert _served_by(pool) == "CPU.0#0"

        until(lambda: _served_by(pool) == "SIM#0")


def test_an_order_that_the_user_gives_takes_the_place_of_autos() -> None:
    with _serving("AUTO:SIM?ms=1,SIM?ms=1") as pool:
        until(lambda: _ready(pool) == {"SIM#0", "SIM#1"})
        lesser = next(replica for replica in pool.snapshot().reports if replica.endswith("#1"))

        pool.set_priorities([lesser])

        assert [_served_by(pool) for _ in range(5)] == ["SIM#1"] * 5


# --- policies, properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "served_by"),
    [
        (SchedulePolicy.DEVICE_PRIORITY, {"SIM#0": 12}),
        (SchedulePolicy.ROUND_ROBIN, {"SIM#0": 6, "SIM#1": 6}),
        (SchedulePolicy.FASTEST_COMPLETION, {"SIM#1": 12}),
    ],
)
def test_a_policy_decides_who_gets_requests_that_come_one_by_one(
    policy: SchedulePolicy, served_by: dict[str, int]
) -> None:
    # The first of the list is the slow one, and is ready last.
    with _serving("SIM?ms=30&compile_s=1,SIM?ms=3", policy) as pool:
        until(lambda: _ready(pool) == {"SIM#0", "SIM#1"})

        served = [_served_by(pool) for _ in range(12)]

    assert {entry: served.count(entry) for entry in set(served)} == served_by


def test_device_priority_fills_the_first_device_before_the_second() -> None:
    answers: list[Ended] = []
    with _serving("SIM?ms=50&compile_s=1,SIM?ms=50", SchedulePolicy.DEVICE_PRIORITY) as pool:
        until(lambda: _ready(pool) == {"SIM#0", "SIM#1"})
        for _ in range(3):
            pool.submit([np.ones((1, 32), np.float32)], ended=answers.append)
        assert pool.drain(DEADLINE_S)

    # One replica holds an infer request and its prefetch.
    assert sorted(str(answer.replica)[-1] for answer in answers) == ["0", "0", "1"]


def test_properties_go_to_the_devices_that_they_name() -> None:
    by_device = {"SIM": {"nireq": "3"}, "CPU": {"NUM_STREAMS": "2", "PERFORMANCE_HINT_NUM_REQUESTS": "2"}}
    with _serving("SIM,CPU", device_config=by_device) as pool:
        until(lambda: len(pool.snapshot().reports) == 2)
        engines = {
            replica.rpartition("/")[2]: report.engine for replica, report in pool.snapshot().reports.items()
        }

    assert engines["SIM#0"].nireq == 3
    assert (engines["CPU.0#0"].streams, engines["CPU.0#0"].nireq) == (2, 2)


def test_a_second_start_reads_the_compiled_model_from_the_hosts_cache(tmp_path: Path) -> None:
    def compiled() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.blob")}

    with _serving("CPU", config={"CACHE_DIR": str(tmp_path)}) as pool:
        assert _served_by(pool) == "CPU.0#0"
    first = compiled()
    with _serving("CPU", config={"CACHE_DIR": str(tmp_path)}) as pool:
        assert _served_by(pool) == "CPU.0#0"

    assert first
    assert compiled() == first


def test_model_priority_sets_how_nice_the_threads_of_a_replica_are() -> None:
    niceness = {}
    for priority in ("LOW", "MEDIUM"):
        with _serving("CPU", config={"MODEL_PRIORITY": priority}) as pool:
            assert _served_by(pool) == "CPU.0#0"
            niceness[priority] = _niceness(_pid(pool, "CPU.0#0"))

    (medium,) = niceness["MEDIUM"]
    assert niceness["LOW"] == {min(19, medium + 4)}


def _niceness(process: int) -> set[int]:
    return {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir(f"/proc/{process}/task")}


def test_a_detached_pool_needs_a_ray_that_outlives_this_process() -> None:
    options = PoolOptions(name="kept", lifetime=Lifetime.DETACHED)

    with pytest.raises(ConfigError, match="the Ray of this process ends with it"):
        open_pool(a_perceptron(), options)
