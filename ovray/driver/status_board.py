"""Where drivers leave how they stand, and those who watch a cluster find it: small entries in Ray's own key-value
store.

A driver replaces its entry once a second, whether anybody looks or not, and takes it away when it ends.  Entries
of drivers that died without a word are known by Ray's word on their job, and taken away by whoever finds them.
May not enter: what an entry says (status.py).
"""

import itertools
import json
import logging
import os
import time
from dataclasses import dataclass

import ray
from ray._private.state import jobs
from ray.exceptions import RpcError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from ovray.driver.metrics_export import MetricsExport
from ovray.driver.reading import Reading
from ovray.driver.reporter import RHYTHM_S
from ovray.driver.status import Status, StatusMaker
from ovray.logs import fields, run_id

_log = logging.getLogger(__name__)

#: In a namespace of its own, so that Ray's own keys are no concern.
_NAMESPACE = b"ovray"
_PREFIX = b"status:"

#: Who has said nothing for so long is shown as silent: several entries are missing, and clocks differ by less.
SILENT_AFTER_S = 10 * RHYTHM_S

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Is what a driver left, as it was found."""

    status: Status
    #: Since it was left, by this host's clock.
    age_s: float

    @property
    def is_silent(self) -> bool:
        """Says whether the driver should have been heard of since; it may be stopped, or cut off."""
        return self.age_s > SILENT_AFTER_S


class Board:
    """Holds the entry of one pool or job, and its metrics.  Suits one thread."""

    def __init__(self, model: str, work: str) -> None:
        """Puts up nothing yet; this process must be connected to Ray.

        Args:
            model: how the model is called.
            work: ``requests`` or ``chunks``.
        """
        self._metrics = MetricsExport(model, work)
        self._maker = StatusMaker(model, work)
        self._job = ray.get_runtime_context().get_job_id()
        self._key = _PREFIX + f"{run_id()}:{os.uname().nodename}:{os.getpid()}:{next(_numbers)}".encode()

    def tell(self, reading: Reading) -> None:
        """Puts up how things stand."""
        self._metrics.hand_over(reading)
        entry = {"job": self._job, "status": self._maker.make(reading).to_json()}
        try:
            _internal_kv_put(self._key, json.dumps(entry).encode(), namespace=_NAMESPACE)
        except RpcError as error:
            # The head may come back; whether the work goes on without it is for others to say.
            _log.info("the head did not take how things stand", extra=fields(reason=error))

    def close(self) -> None:
        """Tells what was left of the metrics, and takes the entry away."""
        self._metrics.finish()
        try:
            _internal_kv_del(self._key, namespace=_NAMESPACE)
        except RpcError as error:
            _log.info("the head did not take the entry away", extra=fields(reason=error))


def read_board() -> tuple[Entry, ...]:
    """Returns what the drivers of this cluster left, those that live; this process must be connected to it."""
    dead = {job["JobID"] for job in jobs() if job["IsDead"]}  # type: ignore[no-untyped-call]
    found = []
    for key in sorted(_internal_kv_list(_PREFIX, namespace=_NAMESPACE)):
        text: bytes | None = _internal_kv_get(key, namespace=_NAMESPACE)
        if text is None:
            continue  # its driver ended just now
        entry = json.loads(text)
        if entry["job"] in dead:
            _internal_kv_del(key, namespace=_NAMESPACE)
            continue
        try:
            status = Status.from_json(entry["status"])
        except (TypeError, KeyError):
            continue  # of another version of ovray, which shows it better
        found.append(Entry(status=status, age_s=max(0.0, time.time() - status.at_s)))
    return tuple(found)
