"""Starts two real replicas on disjoint cores and asks /proc, OpenVINO and the register of leases about them."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from ovray import digits
from ovray.devices.leases import CoreLeases
from ovray.devices.records import Plan
from ovray.driver.placement import PlacementOptions, place
from ovray.replica.actor import ReplicaActor
from ovray.replica.model import pack, read_model, reshape
from ovray.replica.orphans import this_process
from ovray.replica.pinning import thread_affinities
from ovray.replica.properties import compile_properties
from ovray.replica.workload import ReplicaReport, Workload
from tests.integration.processes import running
from tests.waiting import DEADLINE_S

MY_CPUS = sorted(os.sched_getaffinity(0))
MODEL = Path(digits.__file__).parent / "model.xml"
BATCH_ROWS = 8

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(len(MY_CPUS) < 2, reason="two replicas on disjoint cores need two cores"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Two replicas that are ready, in the order of the plan."""

    plan: Plan
    reports: tuple[ReplicaReport, ...]
    leases: CoreLeases


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        plan = place(PlacementOptions(devices=f"CPU@{MY_CPUS[0]},CPU@{MY_CPUS[1]}")).plan
        actors = [ReplicaActor.remote(spec, "a test", 10.0, this_process()) for spec in plan.replicas]
        workload = ray.put(_workload())
        started: list[Any] = [
            actor.start.remote(workload, compile_properties(spec, {}))
            for actor, spec in zip(actors, plan.replicas, strict=True)
        ]
        reports = ray.get(started, timeout=DEADLINE_S)
        yield Running(plan=plan, reports=tuple(reports), leases=CoreLeases())
    finally:
        ray.shutdown()
        patch.undo()


def _workload() -> Workload:
    model = read_model(MODEL)
    reshape(model, {"pixels": (BATCH_ROWS, 64)})
    return Workload(model=pack(model), batch_rows=BATCH_ROWS, work_module="ovray.scoring.chunk")


def test_every_thread_of_each_process_is_on_its_own_core(replicas: Running) -> None:
    for cpu, report in zip(MY_CPUS, replicas.reports, strict=False):
        affinities = thread_affinities(report.pid)

        assert len(affinities) > 5, "Ray's own threads are there too"
        assert set(affinities.values()) == {frozenset({cpu})}


def test_what_the_first_piece_of_work_needs_is_loaded_when_a_replica_is_ready(replicas: Running) -> None:
    for report in replicas.reports:
        assert "pyarrow/_parquet" in Path(f"/proc/{report.pid}/maps").read_text()


def test_openvino_took_the_one_core_and_no_more(replicas: Running) -> None:
    engines = [report.engine for report in replicas.reports]

    assert [(engine.threads, engine.streams) for engine in engines] == [(1, 1), (1, 1)]
    assert [engine.execution_devices for engine in engines] == [("CPU",), ("CPU",)]


def test_each_core_is_leased_by_the_process_that_runs_on_it(replicas: Running) -> None:
    owners = replicas.leases.held()

    for cpu, report in zip(MY_CPUS, replicas.reports, strict=False):
        assert (owners[cpu].pid, owners[cpu].job) == (report.pid, "a test")


def test_memory_comes_from_where_the_plan_says(replicas: Running) -> None:
    assert [report.memory_policy for report in replicas.reports] == [
        spec.memory_policy for spec in replicas.plan.replicas
    ]


# Last, because it ends one of the replicas.
def test_the_core_of_a_killed_replica_can_be_leased(replicas: Running) -> None:
    os.kill(replicas.reports[0].pid, signal.SIGKILL)

    with replicas.leases.acquire([MY_CPUS[0]], "the heir", DEADLINE_S):
        assert replicas.leases.held()[MY_CPUS[1]].pid == replicas.reports[1].pid


#: Is a pool of its own: a driver with a Ray of its own, which holds the core it is told.
POOL = """
import queue, sys
from ovray.driver.messages import Started
from ovray.driver.placement import PlacementOptions, place
from ovray.driver.session import ray_session
from ovray.driver.transport import RayTransport
from tests.integration.test_pinned_replicas import _workload
with ray_session("local"):
    (spec,) = place(PlacementOptions(devices=sys.argv[1])).plan.replicas
    inbox = queue.SimpleQueue()
    transport = RayTransport(inbox, owner="a pool", lease_timeout_s=10.0)
    transport.put(_workload(), None)
    transport.start(spec, {})
    while not isinstance(heard := inbox.get(timeout=60), Started):
        pass  # what the cluster looks like
    print(heard.report.pid)
    sys.stdin.readline()
"""


def test_the_cores_of_a_killed_driver_can_be_leased(tmp_path: Path) -> None:
    leases = CoreLeases(tmp_path)
    with running(POOL, f"CPU@{MY_CPUS[0]}", OVRAY_LEASE_DIR=str(tmp_path)) as pool:
        replica_pid = int(pool.read_line())
        assert leases.held()[MY_CPUS[0]].pid == replica_pid

        pool.process.kill()

        with leases.acquire([MY_CPUS[0]], "the heir", DEADLINE_S) as lease:
            assert MY_CPUS[0] in lease.cpus
