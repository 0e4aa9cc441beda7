"""Carries work to replicas and their answers back: the seam behind which messages travel.

May not enter: decisions, the scheduler.  Answers arrive as messages.py in the inbox, from threads of Ray's.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from enum import Enum
from typing import Any, Protocol

import ray
from ray._private.state import available_resources_per_node, total_resources_per_node
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ovray.core.ids import DispatchId, ReplicaId
from ovray.devices.records import ReplicaSpec
from ovray.driver.cluster_watch import ClusterWatch
from ovray.driver.mailbox import Mailbox
from ovray.driver.messages import (
    Answered,
    Gone,
    ProbePassed,
    ProbeRefused,
    Refused,
    Replied,
    Started,
    StartFailed,
)
from ovray.errors import OvrayError, ReplicaError, ReplicaLostError
from ovray.logs import settings
from ovray.replica.actor import ReplicaActor
from ovray.replica.envelope import Envelope
from ovray.replica.orphans import this_process
from ovray.replica.workload import RequestWorkload, Work, Workload

#: Where messages arrive; a pool's also takes what its callers ask of the driver thread.
Inbox = Mailbox


class Outlet(Protocol):
    """Is the end of an inbox that messages are put into."""

    def put(self, note: Any) -> None:
        """Leaves a message."""
        ...


#: How long replicas that are told to go may take to say that their cores are free; they need milliseconds.
LET_GO_TIMEOUT_S = 2.0

#: How long Ray may take to have the CPUs of ended replicas back in its books; mostly it takes a tenth of a second.
RELEASE_TIMEOUT_S = 5.0
_RELEASE_POLL_S = 0.02

#: And how long all of it may take.  What is not ended by then ends with this process, see replica/orphans.py.
CLOSE_TIMEOUT_S = 10.0


class Answer(Enum):
    """Says what a replica gives back for a piece of work."""

    #: What the driver is to know of it.
    REPORT = 1
    #: That, and what was made of the rows.  The latter stays where it is, in the object store of the replica's
    #: host, owned by this process: it outlives the replica and comes here only when somebody asks for it.
    REPORT_AND_ROWS = 2


class Transport(Protocol):
    """Starts replicas and carries pieces of work to them.  Every call returns at once; what comes of it arrives
    in the inbox."""

    def start(self, spec: ReplicaSpec, properties: Mapping[str, str], life: int = 0) -> None:
        """Starts a replica: ``Started`` or ``StartFailed``.  What it says of itself carries ``life``."""
        ...

    def send(self, replica: ReplicaId, dispatch: DispatchId, job: int, piece: Any) -> None:
        """Sends one piece: ``Answered``, ``Refused`` or ``Gone``."""
        ...

    def send_requests(self, replica: ReplicaId, envelope: Envelope) -> None:
        """Sends requests: ``Replied``, once or in parts, a ``Refused`` for each, or ``Gone``."""
        ...

    def cancel(self, replica: ReplicaId, dispatch: DispatchId) -> None:
        """Says that nobody needs a piece any more.  It still answers, somehow."""
        ...

    def probe(self, replica: ReplicaId) -> None:
        """Asks for one inference: ``ProbePassed``, ``ProbeRefused`` or ``Gone``."""
        ...

    def ask(self, replica: ReplicaId, question: str, *arguments: Any) -> Future[Any]:
        """Calls a method of a replica that changes nothing; its errors are those of the future."""
        ...

    def stop(self, replica: ReplicaId) -> None:
        """Ends the process of a replica."""
        ...

    def explain(self, error: OvrayError) -> OvrayError:
        """Says why no replica is left, where more is known of that than ``error`` says."""
        ...

    def close(self) -> None:
        """Ends every replica that is left; unlike the others, waits until what they held is free."""
        ...


class RayTransport:
    """Is ``Transport`` by Ray actor calls.

    Model and work are put into the object store once; Ray brings them once to each host.
    """

    def __init__(
        self,
        inbox: Outlet,
        *,
        owner: str,
        lease_timeout_s: float,
        client: str | None = None,
        answer: Answer = Answer.REPORT,
    ) -> None:
        """Stores; replicas are started one by one with ``start``.

        Args:
            inbox: where answers go.
            owner: what core leases say of us to those who wait for the same cores.
            lease_timeout_s: how long a replica waits for cores that others hold.
            client: what replicas that serve requests know this driver by.
            answer: what the runners of the work return: a report, or a pair of report and rows.
        """
        self._answer = answer
        self._inbox = inbox
        self._owner = owner
        self._lease_timeout_s = lease_timeout_s
        self._client = client
        self._driver = this_process()
        self._watch_on_cluster = ClusterWatch(inbox.put)
        self._workload: Any = None
        self._work: Any = None
        self._actors: dict[ReplicaId, Any] = {}
        #: Those of ``_actors`` that have started, and so may hold cores and have time to listen.
        self._started: set[ReplicaId] = set()
        #: Where each of ``_actors`` runs, and how many of Ray's CPUs it holds there.
        self._claims: dict[ReplicaId, tuple[str, int]] = {}
        self._lives: dict[ReplicaId, int] = {}
        #: References whose answer is still to come.  Ray may crash the driver when one is dropped before.
        self._pending: dict[Future[Any], Any] = {}

    def put(self, workload: Workload | RequestWorkload, work: Work | None) -> Any:
        """Hands over the model and the job, before any replica is started; returns where the model is."""
        self._workload = ray.put(workload)
        self._work = ray.put(work)
        self._watch_on_cluster.start()
        return self._workload

    def actor(self, replica: ReplicaId) -> Any:
        """Returns Ray's handle of a replica that was started and not stopped; ``None`` for any other."""
        return self._actors.get(replica)

    def attend(self, replica: ReplicaId) -> None:
        """Tells of the end of a replica, ``Gone``, although it is given nothing to do."""
        life = self._lives[replica]

        def on_answer(answer: Future[Any]) -> None:
            error = _error_of(answer)
            if error is not None:
                self._inbox.put(Gone(replica=replica, reason=str(error), life=life))

        self._watch(self._actors[replica].stay.remote(), on_answer)

    def start(self, spec: ReplicaSpec, properties: Mapping[str, str], life: int = 0) -> None:
        actor = ReplicaActor.options(
            num_cpus=spec.ray_num_cpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(spec.node_id, soft=False),
        ).remote(spec, self._owner, self._lease_timeout_s, self._driver, settings())
        self._actors[spec.id] = actor
        self._claims[spec.id] = (spec.node_id, spec.ray_num_cpus)
        self._lives[spec.id] = life
        self._started.discard(spec.id)

        def on_answer(answer: Future[Any]) -> None:
            error = _error_of(answer)
            if error is None:
                if self._lives[spec.id] == life:
                    self._started.add(spec.id)
                self._inbox.put(Started(replica=spec.id, report=answer.result(), life=life))
            else:
                self._inbox.put(StartFailed(replica=spec.id, error=error, life=life))

        self._watch(actor.start.remote(self._workload, dict(properties)), on_answer)

    def send(self, replica: ReplicaId, dispatch: DispatchId, job: int, piece: Any) -> None:
        life = self._lives[replica]
        run = self._actors[replica].run.options(num_returns=self._answer.value)
        returned = run.remote(dispatch, job, [self._work], piece)
        report, rows = (returned, None) if self._answer is Answer.REPORT else returned

        def on_answer(answer: Future[Any]) -> None:
            error = _error_of(answer)
            if error is None:
                self._inbox.put(Answered(replica=replica, dispatch=dispatch, result=answer.result(), rows=rows))
                return
            if rows is not None:
                # It holds the same error, and Ray reports those that nobody has looked at.
                self._watch(rows, lambda _: None)
            if isinstance(error, ReplicaLostError):
                self._inbox.put(Gone(replica=replica, reason=str(error), life=life))
            else:
                self._inbox.put(Refused(replica=replica, dispatch=dispatch, error=error))

        self._watch(report, on_answer)

    def send_requests(self, replica: ReplicaId, envelope: Envelope) -> None:
        dispatches = [DispatchId(request.dispatch) for request in envelope.requests]
        life = self._lives[replica]

        def on_answer(answer: Future[Any]) -> None:
            error = _error_of(answer)
            if error is None:
                self._inbox.put(Replied(replica=replica, replies=answer.result()))
            elif isinstance(error, ReplicaLostError):
                self._inbox.put(Gone(replica=replica, reason=str(error), life=life))
            else:
                for dispatch in dispatches:
                    self._inbox.put(Refused(replica=replica, dispatch=dispatch, error=error))

        self._watch(self._actors[replica].infer.remote(envelope), on_answer)

    def cancel(self, replica: ReplicaId, dispatch: DispatchId) -> None:
        actor = self._actors.get(replica)
        if actor is not None:
            self._watch(actor.cancel.remote(dispatch, self._client), lambda _: None)

    def ask(self, replica: ReplicaId, question: str, *arguments: Any) -> Future[Any]:
        asked: Future[Any] = Future()

        def on_answer(answer: Future[Any]) -> None:
            error = _error_of(answer)
            if error is None:
                asked.set_result(answer.result())
            else:
                asked.set_exception(error)

        self._watch(getattr(self._actors[replica], question).remote(*arguments), on_answer)
        return asked

    def connect(self, replica: ReplicaId, path: str, on_error: Callable[[Exception], None]) -> None:
        """Has a replica connect to a socket of its host; if it cannot, tells ``on_error`` on a thread of Ray's."""

        def on_answer(answer: Future[Any]) -> None:
            error = _error_of(answer)
            if error is not None:
                on_error(error)

        actor = self._actors.get(replica)
        if actor is not None:
            self._watch(actor.connect.remote(path), on_answer)

    def probe(self, replica: ReplicaId) -> None:
        life = self._lives[replica]

        def on_answer(answer: Future[Any]) -> None:
            error = _error_of(answer)
            if error is None:
                self._inbox.put(ProbePassed(replica=replica, life=life))
            elif isinstance(error, ReplicaLostError):
                self._inbox.put(Gone(replica=replica, reason=str(error), life=life))
            else:
                self._inbox.put(ProbeRefused(replica=replica, error=error, life=life))

        self._watch(self._actors[replica].probe.remote(), on_answer)

    def stop(self, replica: ReplicaId) -> None:
        actor = self._actors.pop(replica, None)
        if actor is not None:
            ray.kill(actor, no_restart=True)

    def explain(self, error: OvrayError) -> OvrayError:
        return error

    def close(self) -> None:
        self._watch_on_cluster.stop()
        # On a thread of its own: a head that is gone keeps those who ask it waiting.
        closing = threading.Thread(target=self._end_all, name="ovray-close", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)

    def _end_all(self) -> None:
        # Whoever starts replicas next asks which cores are leased and which CPUs Ray has free: those of a process
        # that is still ending would be missing.
        told = [self._actors[replica].let_go.remote() for replica in self._actors if replica in self._started]
        if told:
            ray.wait(told, num_returns=len(told), timeout=LET_GO_TIMEOUT_S)
        wanted = Counter(_free_cpus())
        for replica in list(self._actors):
            node_id, cpus = self._claims[replica]
            wanted[node_id] += cpus
            self.stop(replica)
        wanted &= Counter(_all_cpus())  # what was free is old news by up to a tenth of a second
        end_s = time.monotonic() + RELEASE_TIMEOUT_S
        while not wanted <= Counter(_free_cpus()) and time.monotonic() < end_s:
            time.sleep(_RELEASE_POLL_S)

    def _watch(self, reference: Any, on_answer: Callable[[Future[Any]], None]) -> None:
        answer: Future[Any] = reference.future()
        self._pending[answer] = reference

        def finish(finished: Future[Any]) -> None:
            on_answer(finished)
            self._pending.pop(finished, None)

        answer.add_done_callback(finish)


def _free_cpus() -> dict[str, int]:
    """Returns the CPUs that nobody has claimed, in whole ones, by Ray's node id."""
    books: dict[str, dict[str, float]] = available_resources_per_node()  # type: ignore[no-untyped-call]
    return {node_id: int(resources.get("CPU", 0.0)) for node_id, resources in books.items()}


def _all_cpus() -> dict[str, int]:
    books: dict[str, dict[str, float]] = total_resources_per_node()  # type: ignore[no-untyped-call]
    return {node_id: int(resources.get("CPU", 0.0)) for node_id, resources in books.items()}


def _error_of(answer: Future[Any]) -> Exception | None:
    """Returns what went wrong, as the replica raised it; ``None`` if nothing did.

    ``ReplicaLostError`` stands for all that Ray says when the process is gone or out of reach.
    """
    error = answer.exception()
    if error is None:
        return None
    if isinstance(error, RayActorError):
        return ReplicaLostError(_first_line(error))
    if isinstance(error, RayTaskError):
        cause = error.cause
        return cause if isinstance(cause, Exception) else ReplicaError(_first_line(error))
    if isinstance(error, RayError):
        return ReplicaLostError(_first_line(error))
    return ReplicaError(f"{type(error).__name__}: {error}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
