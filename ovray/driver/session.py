"""Connects this process to a Ray: the one it is already in, a running cluster, or one of its own.

May not enter: replicas, work.  Ends only the Ray that it started itself.
"""

import atexit
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum

import psutil
import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.services import canonicalize_bootstrap_address

from ovray.errors import ConfigError, ReplicaError
from ovray.logs import fields, set_up

_log = logging.getLogger(__name__)

#: How long a head node may take to say that it is there.  A healthy one needs milliseconds.
ANSWER_TIMEOUT_S = 5.0

#: What leaving a cluster may take.  A head behind a dead link keeps those who leave waiting for minutes (measured
#: with Ray 2.60: 160 s), in calls that nothing ends.
LEAVE_TIMEOUT_S = 10.0

#: What Ray 2.60 says when its own node is not up within the 30 s that it is given.
_NOT_UP_IN_TIME = "timed out during startup"

#: The thread that leaves a cluster; ``None`` before there was one.
_leaving: threading.Thread | None = None

#: How long the question may take whether a cluster wants a token: a second for an import, and one try.
ASK_TIMEOUT_S = 20.0

#: What an HTTP/2 client opens with (RFC 9113, section 3.4), followed by an empty SETTINGS frame.
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS_FRAME = 4

#: A local Ray serves this one job: its workers need not be nicer than the job's other processes
#: (Ray's default is 15), nobody is asked for usage statistics, and no other machine has business with it.
#: The last is Ray's own switch for that, named for where it is the default (ray#18730): its processes then
#: listen on loopback; else all of them would on every interface.
_LOCAL_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
}


class Origin(Enum):
    """Says whose Ray it is, and so who ends it."""

    CALLER = "caller"  # initialised before we came
    CLUSTER = "cluster"  # running on its own; we only connect
    LOCAL = "local"  # started here, ended here


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySession:
    """Describes the Ray that this process is connected to."""

    origin: Origin
    #: ``host:port`` of the head, or ``local``.
    address: str


@contextmanager
def ray_session(address: str | None = None) -> Iterator[RaySession]:
    """Holds a connection to a Ray while the block runs.

    Uses the Ray that this process already has; else the one at ``address``, at ``RAY_ADDRESS``, or started on
    this machine by ``ray start``; else starts one for this block alone.

    Args:
        address: ``HOST:PORT`` of a head node, ``auto`` (a running one or an error), ``local`` (always a new
            one), or ``None``.

    Raises:
        ConfigError: nothing answers at the address, or what answers refuses us.
        ReplicaError: a Ray was to be started here, but did not come up.

    Example:
        >>> with ray_session("local") as session:  # doctest: +SKIP
        ...     session.origin
        <Origin.LOCAL: 'local'>
    """
    set_up()
    if ray.is_initialized() and not is_stuck():
        yield RaySession(origin=Origin.CALLER, address=ray.get_runtime_context().gcs_address)
        return
    session = _open(address)
    try:
        yield session
    finally:
        if session.origin is Origin.LOCAL:
            ray.shutdown()
        else:
            _leave()


class HeldSession:
    """Is a connection to a Ray that the pools of this process hold together; the last to let go ends it."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._holders = 0
        self._connection = ExitStack()

    def take(self, address: str | None) -> None:
        """Connects as ``ray_session`` does, unless a holder has done so already.

        Raises:
            ConfigError: as ``ray_session``.
        """
        with self._changing:
            if self._holders == 0:
                self._connection.enter_context(ray_session(address))
            self._holders += 1

    def let_go(self) -> None:
        """Gives the connection up; the last holder's doing so ends what ``take`` began."""
        with self._changing:
            self._holders -= 1
            if self._holders == 0:
                self._connection.close()


#: That of this process.
held_session = HeldSession()


def has_ray(address: str | None = None) -> bool:
    """Tells whether ``ray_session`` would use a Ray that is there, or be asked to, rather than start one.

    For those who only look at this machine: they can do so without the seconds that starting a Ray takes.
    """
    if ray.is_initialized():
        return True
    wanted = address or os.environ.get("RAY_ADDRESS") or None
    if wanted is not None:
        return wanted != "local"
    found = _find_head(None)
    return found is not None and _answers(found)


def starts_its_own(address: str | None = None) -> bool:
    """Tells whether ``ray_session`` is sure to start a Ray; asks nobody, and so misses some of these cases."""
    if ray.is_initialized():
        return False
    wanted = address or os.environ.get("RAY_ADDRESS") or None
    return wanted == "local" or (wanted is None and _find_head(None) is None)


def _leave() -> None:
    """Disconnects from a cluster, or gives that up after a while: its head may be out of reach."""
    global _leaving
    _leaving = threading.Thread(target=ray.shutdown, name="ovray-leave", daemon=True)
    _leaving.start()
    _leaving.join(LEAVE_TIMEOUT_S)
    if _leaving.is_alive():
        # Ray would wait for the same once more when the interpreter ends.
        atexit.unregister(ray.shutdown)


def is_stuck() -> bool:
    """Says whether this process is still about to leave a cluster whose head is out of reach."""
    return _leaving is not None and _leaving.is_alive()


def _open(address: str | None) -> RaySession:
    if is_stuck():
        raise ConfigError(
            "this process is still leaving a Ray cluster whose head does not answer; nothing was started; try"
            " again in a minute, or in a new process"
        )
    wanted = address or os.environ.get("RAY_ADDRESS") or None
    if wanted == "local":
        return _start_local()
    found = _find_head(wanted)
    if found is None:
        return _start_local()
    if not _answers(found):
        if wanted is None:
            # Ray's note of the last `ray start` outlives the cluster it speaks of.
            return _start_local()
        raise ConfigError(
            f"no Ray answers at {wanted!r}; nothing was started. Give the HOST:PORT that `ray start --head`"
            " printed, or leave --address out to use this machine alone."
        )
    _connect(found)
    return RaySession(origin=Origin.CLUSTER, address=found)


def _find_head(wanted: str | None) -> str | None:
    if wanted is not None and wanted.startswith("ray://"):
        raise ConfigError(
            f"--address {wanted!r} is a Ray client address, which cannot carry tensors at speed; run ovray on a"
            " host of the cluster (`ray job submit -- ovray ...`) or give the head's HOST:PORT, usually port 6379."
        )
    try:
        # Ray takes None here for "look for one", whatever its annotation says.
        found: str | None = canonicalize_bootstrap_address(wanted)  # type: ignore[arg-type]
    except (ValueError, ConnectionError, OSError) as error:
        raise ConfigError(
            f"cannot use Ray address {wanted!r}: {error}; nothing was started. Give HOST:PORT."
        ) from error
    return found


def _answers(head: str) -> bool:
    """Asks whether an HTTP/2 server, as gRPC's is, listens there.  ``ray.init`` would ask for ten minutes."""
    host, _, port = head.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_TIMEOUT_S) as connection:
            connection.sendall(_HTTP2_GREETING)
            frame = connection.recv(9)
    except (OSError, ValueError):
        return False
    return len(frame) >= 4 and frame[3] == _SETTINGS_FRAME


def _connect(head: str) -> None:
    if "RAY_AUTH_MODE" not in os.environ and _is_here(head) and _asks_for_token(head):
        # As Ray does for a cluster that it finds by itself.  A token is not sent to another host unless the user
        # says so with RAY_AUTH_MODE.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        with _sigterm_as_before():
            ray.init(address=head, log_to_driver=False, logging_level=logging.ERROR)
    except (ray.exceptions.RayError, RuntimeError, ConnectionError, ValueError) as error:
        raise ConfigError(f"the Ray at {head!r} cannot be used: {_reason(error)}") from error


def _is_here(head: str) -> bool:
    """Says whether an address is one of this machine's own."""
    own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    return head.rpartition(":")[0].strip("[]") in own


def _asks_for_token(head: str) -> bool:
    """Says whether a cluster refuses those who bring no token.

    Its own word for that is a log line of Ray's, in between tries that go on for twenty seconds.  With a token in
    a cluster that has none, replicas would die at their start; so it is not sent on suspicion.
    """
    asking = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])",
            head,
        ],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    end = threading.Timer(ASK_TIMEOUT_S, asking.kill)
    end.start()
    try:
        assert asking.stderr is not None
        return any("InvalidAuthToken" in line for line in asking.stderr)
    finally:
        end.cancel()
        asking.kill()
        asking.wait()


def _reason(error: BaseException) -> str:
    told = str(error)
    while error.__cause__ is not None:
        error = error.__cause__
        told = f"{told}\n{error}"
    if "InvalidAuthToken" in told:
        return (
            "it asks for a token, and the one given here is missing or wrong; put the cluster's token into"
            " ~/.ray/auth_token and set RAY_AUTH_MODE=token"
        )
    return told.strip().splitlines()[0] if told.strip() else type(error).__name__


def _start_local() -> RaySession:
    defaults = {name: value for name, value in _LOCAL_ENVIRONMENT.items() if name not in os.environ}
    with _environment(defaults), _switch_as_in_environment(), _sigterm_as_before():
        error = _why_not_started()
        if error is not None and _NOT_UP_IN_TIME in str(error):
            _log.info("Ray was not up in time and is started once more", extra=fields(reason=error))
            error = _why_not_started()
    if error is not None:
        raise ReplicaError(
            f"Ray could not be started on this machine: {_reason(error)}; try again when the machine has less"
            " to do, or start Ray with `ray start --head` and look at /tmp/ray/session_latest/logs"
        ) from error
    return RaySession(origin=Origin.LOCAL, address="local")


def _why_not_started() -> Exception | None:
    """Starts a Ray, and returns ``None``; where that fails, nothing is left of it."""
    try:
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # noqa: BLE001 (of no other class is what Ray raises when it is not up in time)
        ray.shutdown()
        return error
    return None


@contextmanager
def _sigterm_as_before() -> Iterator[None]:
    """Gives SIGTERM back to who handles it in this process: ``ray.init`` makes it end the process on the spot.

    A process that left it to the system keeps what Ray does: the driver's Ray is taken down with it.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _switch_as_in_environment() -> Iterator[None]:
    """Lets Ray in this process follow the switch while the block runs: it read that when it was imported.

    Set back behind the block, because a Ray that this process joins later is a cluster.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    switch = os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]
    ray_constants.ENABLE_RAY_CLUSTER = switch.lower() in ("1", "true")
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
