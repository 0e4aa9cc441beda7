"""The Ray actor: takes its cores, pins itself, compiles, and runs whatever work or requests it is sent.

May not enter: what the work is (it comes as an object with ``run``), how requests are served (serving.py), where
other replicas are, scheduling.
The order in ``start`` is a promise: lease, pin, memory policy, and only then OpenVINO's CPU plugin.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import psutil
import ray

from ovray.devices.leases import CoreLeases, Lease
from ovray.devices.records import CoreSharing, ReplicaSpec
from ovray.devices.telemetry import keep_telemetry_out
from ovray.errors import ReplicaError
from ovray.logs import LogSettings, fields, follow
from ovray.replica.engine import Engine, EngineInfo, Tensors
from ovray.replica.envelope import Envelope, Reply
from ovray.replica.local_socket import LocalSocket
from ovray.replica.memory import bind_memory
from ovray.replica.niceness import renice, split_priority
from ovray.replica.orphans import ProcessIdentity, end_with
from ovray.replica.pinning import pin_process
from ovray.replica.request_engine import RequestEngine
from ovray.replica.serving import PROBE_TIMEOUT_S, RequestServer
from ovray.replica.workload import ReplicaReport, RequestWorkload, Runner, Work, Workload

_log = logging.getLogger(__name__)

#: Pieces of work that a replica holds at once: one that infers, one that is being read or written beside it.
WORK_THREADS = 2

#: Envelopes that a replica holds at once; each holds a thread, which sleeps until its requests are answered.
ENVELOPE_THREADS = 32


class Replica:
    """Owns one engine, on the cores that its spec names.  ``ReplicaActor`` is its remote form."""

    def __init__(
        self,
        spec: ReplicaSpec,
        owner: str,
        lease_timeout_s: float,
        driver: ProcessIdentity | None = None,
        logs: LogSettings | None = None,
    ) -> None:
        """Stores; ``start`` acts.

        Args:
            spec: where this is, and what it owns here.
            owner: what the lease tells those who wait for the same cores.
            lease_timeout_s: how long to wait for cores that somebody else holds.
            driver: the process to end with; ``None`` leaves that to Ray, which takes seconds over it.
            logs: how the driver logs; ``None`` leaves logging as Ray has it.
        """
        keep_telemetry_out()
        if logs is not None:
            follow(replace(logs, fields={"process": spec.id}))
        if driver is not None:
            end_with(driver)
        self._spec = spec
        self._owner = owner
        self._lease_timeout_s = lease_timeout_s
        self._lease: Lease | None = None
        self._engine: Engine | None = None
        self._server: RequestServer | None = None
        self._request_engine: RequestEngine | None = None
        self._runners: dict[int, Runner] = {}
        self._opening = threading.Lock()
        #: Of the pieces that run now, by dispatch.
        self._cancelled: dict[int, threading.Event] = {}

    @ray.method(concurrency_group="control")
    def start(self, workload: Workload | RequestWorkload, properties: Mapping[str, str]) -> ReplicaReport:
        """Takes the cores, compiles with these OpenVINO properties, and warms up.

        Args:
            workload: for rows, then ``run`` may be called; or for requests, then ``infer``.
            properties: OpenVINO properties by name.

        Raises:
            CoresTakenError: somebody else holds the cores.
            CompileError: OpenVINO refused the model.
            ReplicaError: the process, or OpenVINO, did not get what the spec says.
        """
        memory_policy = self._take_cores()
        if self._spec.openvino_device == "CPU":
            priority, properties = split_priority(properties)
            renice(priority)
        # Imported here and not above: nothing of OpenVINO is loaded before the process is on its cores.
        from ovray.replica.engines import make_engine, make_request_engine

        engine: Engine | RequestEngine
        if isinstance(workload, RequestWorkload):
            engine = self._request_engine = make_request_engine(self._spec, workload, properties)
            _check(self._spec, engine.info)
            self._server = RequestServer(engine, workload.batching)
            self._server.start()
        else:
            with _loading(workload.work_module):
                engine = self._engine = make_engine(self._spec, workload, properties)
            _check(self._spec, engine.info)
        _log.info(
            "compiled",
            extra=fields(cpus=self._spec.cpus, compile_s=engine.info.compile_s, nireq=engine.info.nireq),
        )
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

    @ray.method(concurrency_group="requests")
    def infer(self, envelope: Envelope) -> list[Reply]:
        """Runs the requests of an envelope, side by side with those of other envelopes.

        Returns:
            A reply for each request, in their order; errors are in the replies.
        """
        return self._started_server().ask(envelope)

    @ray.method(concurrency_group="control")
    def connect(self, path: str) -> None:
        """Takes requests from a driver on this host over its socket, too, until the driver hangs up.

        Raises:
            ReplicaError: nobody of this user listens there.
        """
        LocalSocket(path, self._started_server())

    @ray.method(concurrency_group="control")
    def cancel(self, dispatch: int, client: str | None = None) -> None:
        """Ends a piece that nobody needs any more, if it is running here, or a request that has not begun.

        Args:
            dispatch: its number.
            client: whose request; ``None`` for every client that has one of this number.
        """
        cancelled = self._cancelled.get(dispatch)
        if cancelled is not None:
            cancelled.set()
        if self._server is not None:
            self._server.cancel(dispatch, client)

    @ray.method(concurrency_group="control")
    def read_property(self, name: str) -> Any:
        """Reads a property of a model that was compiled for requests, as OpenVINO gives it.

        An ``openvino.Type``, which does not travel, comes as a ``compiling.TypeName``.

        Raises:
            ConfigError: this device has no such property.
        """
        return self._started_request_engine().read_property(name)

    @ray.method(concurrency_group="control")
    def export_model(self) -> bytes:
        """Exports a model that was compiled for requests.

        Where requests are joined, its batch dimension is open.

        Raises:
            ConfigError: this device cannot.
        """
        return self._started_request_engine().export_model()

    @ray.method(concurrency_group="probes")
    def probe(self) -> None:
        """Runs one inference, to see whether the device works again.

        Raises:
            ReplicaError: it failed, or did not end within ``PROBE_TIMEOUT_S``.
        """
        if self._server is not None:
            self._server.probe()
            return
        answered: Future[None] = Future()

        def answer(_: Tensors | None, failure: Exception | None) -> None:
            answered.set_exception(failure) if failure else answered.set_result(None)

        engine = self._started_engine()
        end_s = time.monotonic() + PROBE_TIMEOUT_S
        try:
            # What the slot happens to hold will do.
            engine.start(engine.acquire(PROBE_TIMEOUT_S), 1, answer)
            answered.result(timeout=max(0.0, end_s - time.monotonic()))
        except (TimeoutError, FutureTimeoutError) as error:  # two classes before Python 3.11
            raise ReplicaError(
                f"a probe was not answered within {PROBE_TIMEOUT_S:g} s; the device hangs, or has too much to do"
            ) from error

    @ray.method(concurrency_group="control")
    def served(self) -> int:
        """Counts the requests that were inferred here, for all drivers."""
        return 0 if self._server is None else self._server.served

    @ray.method(concurrency_group="control")
    def retire(self) -> int:
        """Takes no more requests, of whatever driver; counts those that it has and has not answered."""
        return 0 if self._server is None else self._server.retire()

    @ray.method(concurrency_group="life")
    def stay(self) -> None:
        """Never returns: so whoever calls it hears of the end of this process, however it comes."""
        threading.Event().wait()

    @ray.method(concurrency_group="control")
    def let_go(self) -> None:
        """Gives the cores back, just before this process is ended: it may take a while to be gone."""
        if self._lease is not None:
            self._lease.release()

    def _started_engine(self) -> Engine:
        if self._engine is None:
            raise ReplicaError(f"replica {self._spec.id} was given work before it was started")
        return self._engine

    def _started_server(self) -> RequestServer:
        if self._server is None:
            raise ReplicaError(f"replica {self._spec.id} was given requests, but was not started for them")
        return self._server

    def _started_request_engine(self) -> RequestEngine:
        if self._request_engine is None:
            raise ReplicaError(f"replica {self._spec.id} was asked of a model for requests, but has none")
        return self._request_engine

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
    concurrency_groups={"work": WORK_THREADS, "requests": ENVELOPE_THREADS, "control": 1, "probes": 1, "life": 1},
    max_restarts=0,
    max_task_retries=0,
)(Replica)


@contextmanager
def _loading(module: str | None) -> Iterator[None]:
    """Loads a module while the block runs: what is ready must not be late with its first piece."""
    if module is None:
        yield
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loading") as threads:
        loaded = threads.submit(import_module, module)
        yield
    loaded.result()


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
