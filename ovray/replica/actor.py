"""The Ray actor: takes its cores, pins itself, compiles, and runs whatever work it is sent.

May not enter: what the work is (it comes as an object with ``run``), where other replicas are, scheduling.
The order in ``start`` is a promise: lease, pin, memory policy, and only then OpenVINO's CPU plugin.
"""

import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import psutil
import ray

from ovray.devices.leases import CoreLeases, Lease
from ovray.devices.records import CoreSharing, ReplicaSpec
from ovray.devices.telemetry import keep_telemetry_out
from ovray.errors import ReplicaError
from ovray.replica.engine import Engine, EngineInfo, Tensors
from ovray.replica.memory import bind_memory
from ovray.replica.orphans import ProcessIdentity, end_with
from ovray.replica.pinning import pin_process
from ovray.replica.workload import ReplicaReport, Runner, Work, Workload

#: Pieces of work that a replica holds at once: one that infers, one that is being read or written beside it.
WORK_THREADS = 2


class Replica:
    """Owns one engine, on the cores that its spec names.  ``ReplicaActor`` is its remote form."""

    def __init__(
        self, spec: ReplicaSpec, owner: str, lease_timeout_s: float, driver: ProcessIdentity | None = None
    ) -> None:
        """Stores; ``start`` acts.

        Args:
            spec: where this is, and what it owns here.
            owner: what the lease tells those who wait for the same cores.
            lease_timeout_s: how long to wait for cores that somebody else holds.
            driver: the process to end with; ``None`` leaves that to Ray, which takes seconds over it.
        """
        keep_telemetry_out()
        if driver is not None:
            end_with(driver)
        self._spec = spec
        self._owner = owner
        self._lease_timeout_s = lease_timeout_s
        self._lease: Lease | None = None
        self._engine: Engine | None = None
        self._runners: dict[int, Runner] = {}
        self._opening = threading.Lock()
        #: Of the pieces that run now, by dispatch.
        self._cancelled: dict[int, threading.Event] = {}

    @ray.method(concurrency_group="control")
    def start(self, workload: Workload, properties: Mapping[str, str]) -> ReplicaReport:
        """Takes the cores, compiles with these OpenVINO properties, and warms up.

        Raises:
            CoresTakenError: somebody else holds the cores.
            CompileError: OpenVINO refused the model.
            ReplicaError: the process, or OpenVINO, did not get what the spec says.
        """
        memory_policy = self._take_cores()
        # Imported here and not above: nothing of OpenVINO is loaded before the process is on its cores.
        from ovray.replica.engines import make_engine

        engine = make_engine(self._spec, workload, properties)
        _check(self._spec, engine.info)
        self._engine = engine
        return ReplicaReport(
            pid=os.getpid(),
            engine=engine.info,
            memory_policy=memory_policy,
            rss_mb=psutil.Process().memory_info().rss / 1e6,
        )

    @ray.method(concurrency_group="work")
    def run(self, dispatch: int, job: int, work: "list[ray.ObjectRef[Work]]", piece: Any) -> Any:
        """Runs one piece of a job.

        Args:
            dispatch: by which ``cancel`` knows it.
            job: number of the job.
            work: where its ``Work`` is; in a list, so that Ray fetches it once and not at every call.
            piece: what ``Runner.run`` of that work takes.
        """
        cancelled = self._cancelled.setdefault(dispatch, threading.Event())
        try:
            return self._runner(job, work[0]).run(piece, cancelled)
        finally:
            del self._cancelled[dispatch]

    @ray.method(concurrency_group="control")
    def cancel(self, dispatch: int) -> None:
        """Ends a piece that nobody needs any more, if it is running here."""
        cancelled = self._cancelled.get(dispatch)
        if cancelled is not None:
            cancelled.set()

    @ray.method(concurrency_group="control")
    def probe(self) -> None:
        """Runs one inference on what the slot happens to hold, to see whether the device works again."""
        answered: Future[None] = Future()

        def answer(_: Tensors | None, failure: Exception | None) -> None:
            answered.set_exception(failure) if failure else answered.set_result(None)

        engine = self._started_engine()
        engine.start(engine.acquire(), 1, answer)
        answered.result()

    @ray.method(concurrency_group="control")
    def let_go(self) -> None:
        """Gives the cores back, just before this process is ended: it may take a while to be gone."""
        if self._lease is not None:
            self._lease.release()

    def _started_engine(self) -> Engine:
        if self._engine is None:
            raise ReplicaError(f"replica {self._spec.id} was given work before it was started")
        return self._engine

    def _runner(self, job: int, work: "ray.ObjectRef[Work]") -> Runner:
        with self._opening:
            if job not in self._runners:
                self._runners[job] = ray.get(work).open(self._started_engine())
            return self._runners[job]

    def _take_cores(self) -> str | None:
        if not self._spec.cpus or self._spec.sharing is CoreSharing.SHARED:
            return self._spec.memory_policy
        # The process holds the lease until it is told to go, or to its end, however that comes.
        self._lease = CoreLeases().acquire(
            (*self._spec.cores, *self._spec.cpus), self._owner, self._lease_timeout_s
        )
        pin_process(self._spec.cpus)
        if self._spec.numa_node is not None and self._spec.memory_policy != "local":
            return bind_memory(self._spec.numa_node)
        return self._spec.memory_policy


# Ray's annotations do not know concurrency_groups.  No restarts, no retries: the driver keeps the only ledger.
_remote: Any = ray.remote
ReplicaActor: Any = _remote(
    concurrency_groups={"work": WORK_THREADS, "control": 1}, max_restarts=0, max_task_retries=0
)(Replica)


def _check(spec: ReplicaSpec, info: EngineInfo) -> None:
    """Holds what OpenVINO says it does against what the spec gave it."""
    if spec.openvino_device and spec.openvino_device not in info.execution_devices:
        raise ReplicaError(
            f"replica {spec.id} was to run on {spec.openvino_device}, but OpenVINO runs it on"
            f" {', '.join(info.execution_devices)}; it was not used"
        )
    if spec.cpus and info.threads is not None and info.threads > len(spec.cpus):
        raise ReplicaError(
            f"replica {spec.id} has {len(spec.cpus)} CPUs, but OpenVINO took {info.threads} threads; it was not"
            " used; leave INFERENCE_NUM_THREADS out of --config"
        )
