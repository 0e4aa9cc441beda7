"""Hands figures to ``ray.util.metrics``, so that every node's Prometheus endpoint shows them as ``ray_ovray_*``.

Ray's own histogram takes one observation a call, and its agent then repeats each of them in Python; at thousands
of requests a second that costs more than the requests.  So a histogram is handed over as what it is in the end:
cumulative counters by ``le``, with ``_sum`` and ``_count``, exact and at a cost that does not grow with the load.
``histogram_quantile`` takes them as they are.

May not enter: counting (meter.py), when this happens (reporter.py).
"""

from collections.abc import Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Any

from ray.util.metrics import Counter, Gauge

from ovray.driver.meter import Histogram, ReplicaMeter
from ovray.driver.reading import LEFT, STATES, Reading, ReplicaReading
from ovray.logs import run_id

LABELS = ("host", "device", "replica", "model", "work")

#: As they are called here; Prometheus sees them with ``ray_`` before and ``_total`` behind.
COUNTERS = {
    "ovray_requests_accepted": "requests taken, or chunks sent",
    "ovray_requests_rejected": "requests for which there was no room before their deadline",
    "ovray_requests_succeeded": "requests answered, or chunks done",
    "ovray_requests_failed": "requests that ended with an error, or chunks that came back without results",
    "ovray_requests_retried": "requests or chunks that went to another replica after a failure or a loss",
    "ovray_rows": "rows done",
    "ovray_evictions": "times that a replica was given no more work because it failed too often",
}

#: Prometheus sees ``ray_`` before.
GAUGES = {
    "ovray_queue_length": "requests, or bundles of small ones, that no replica has yet",
    "ovray_outstanding": "messages' worth of work at a replica: requests, bundles of small ones, chunks",
    "ovray_replicas": "replicas by state",
    "ovray_rows_left": "rows of a job that are not done",
}

#: Prometheus sees ``ray_`` before, and ``_bucket_total``, ``_sum_total`` and ``_count_total`` behind.
HISTOGRAMS = {
    "ovray_wait_seconds": "in the queues of driver and replica",
    "ovray_transport_seconds": "to the replica and back, and all else that is neither queue nor inference",
    "ovray_inference_seconds": "in the inference that answered a request, or waiting for those of a chunk",
    "ovray_end_to_end_seconds": "from submission, or the sending of a chunk, to its end",
    "ovray_batch_rows": "rows of the tensor in which a request was inferred",
    "ovray_envelope_requests": "requests in a message to a replica",
}

RUN_INFO = "ovray_run_info"

#: Of so many replicas the histograms are handed over at a time: of each, a hundred counters have changed, each of
#: which costs 10 to 40 us.
HISTOGRAMS_AT_A_TIME = 50

_Labels = tuple[str, ...]


class MetricsExport:
    """Knows what Ray has been told of one pool or job, and tells it what is new."""

    def __init__(self, model: str, work: str) -> None:
        """Tells Ray which metrics there are.

        Args:
            model: how the model is called.
            work: ``requests`` or ``chunks``.
        """
        self._model = model
        self._work = work
        self._run = {"run": run_id(), "version": version("ovray"), "model": model, "work": work}
        self._counters = {name: Counter(name, text, LABELS) for name, text in COUNTERS.items()}
        for name, text in HISTOGRAMS.items():
            self._counters[f"{name}_bucket"] = Counter(f"{name}_bucket", text, (*LABELS, "le"))
            self._counters[f"{name}_sum"] = Counter(f"{name}_sum", text, LABELS)
            self._counters[f"{name}_count"] = Counter(f"{name}_count", text, LABELS)
        self._gauges = {
            name: Gauge(name, text, (*LABELS, "state") if name == "ovray_replicas" else LABELS)
            for name, text in GAUGES.items()
        }
        self._info = Gauge(RUN_INFO, "is 1 for each run", tuple(self._run))
        #: Those of the last reading, and the first whose histograms are next.
        self._replicas: Sequence[ReplicaReading] = ()
        self._next = 0
        #: What Ray has been told so far.
        self._told: dict[tuple[str, _Labels, str], float] = {}

    def hand_over(self, reading: Reading) -> None:
        """Tells Ray what has changed since the last time, and how things stand.

        Of many replicas the histograms take turns: a round of 200 takes one to two seconds of a core.
        """
        self._info.set(1, self._run)
        whole = ("", "", "", self._model, self._work)
        self._count("ovray_requests_accepted", whole, reading.accepted)
        self._count("ovray_requests_rejected", whole, reading.rejected)
        self._count_ends(whole, reading.elsewhere)
        self._count_histograms(whole, reading.elsewhere)
        self._show("ovray_queue_length", whole, reading.waiting)
        if reading.rows_total:
            self._show("ovray_rows_left", whole, reading.rows_total - reading.rows_done)
        self._replicas = reading.replicas
        for replica in reading.replicas:
            self._hand_over_replica(replica)
        for replica in self._in_turn():
            self._count_histograms(self._labels(replica), replica.meter)
        self._show_states(reading)

    def finish(self) -> None:
        """Tells Ray of the histograms whose turn had not come."""
        for replica in self._replicas:
            self._count_histograms(self._labels(replica), replica.meter)

    def _in_turn(self) -> Sequence[ReplicaReading]:
        first = self._next if self._next < len(self._replicas) else 0
        self._next = first + HISTOGRAMS_AT_A_TIME
        return self._replicas[first : self._next]

    def _labels(self, replica: ReplicaReading) -> _Labels:
        return (replica.host, replica.device, replica.id, self._model, self._work)

    def _hand_over_replica(self, replica: ReplicaReading) -> None:
        labels = self._labels(replica)
        self._count("ovray_requests_retried", labels, replica.retries)
        self._count("ovray_rows", labels, replica.rows_done)
        self._count("ovray_evictions", labels, replica.evictions)
        self._show("ovray_outstanding", labels, replica.outstanding)
        self._count_ends(labels, replica.meter)

    def _count_ends(self, labels: _Labels, meter: ReplicaMeter) -> None:
        self._count("ovray_requests_succeeded", labels, meter.succeeded)
        self._count("ovray_requests_failed", labels, meter.failed)

    def _count_histograms(self, labels: _Labels, meter: ReplicaMeter) -> None:
        self._count_histogram("ovray_wait_seconds", labels, meter.wait_s)
        self._count_histogram("ovray_transport_seconds", labels, meter.transport_s)
        self._count_histogram("ovray_inference_seconds", labels, meter.inference_s)
        self._count_histogram("ovray_end_to_end_seconds", labels, meter.end_to_end_s)
        self._count_histogram("ovray_batch_rows", labels, meter.batch_rows)
        self._count_histogram("ovray_envelope_requests", labels, meter.envelope_requests)

    def _count_histogram(self, name: str, labels: _Labels, histogram: Histogram) -> None:
        cumulative = list(accumulate(histogram.counts))
        if cumulative[-1] == self._told.get((f"{name}_count", labels, ""), 0):
            return
        for bound, count in zip(histogram.bounds, cumulative, strict=False):
            self._count(f"{name}_bucket", labels, count, le=f"{bound:g}")
        self._count(f"{name}_bucket", labels, cumulative[-1], le="+Inf")
        self._count(f"{name}_sum", labels, histogram.sum)
        self._count(f"{name}_count", labels, cumulative[-1])

    def _count(self, name: str, labels: _Labels, value: float, le: str = "") -> None:
        key = (name, labels, le)
        told = self._told.get(key, 0)
        if value == told:
            return
        self._told[key] = value
        # One that has begun anew counts from 0 again.
        more = value - told if value > told else value
        if more > 0:
            self._counters[name].inc(more, _tags(labels, le=le) if le else _tags(labels))

    def _show(self, name: str, labels: _Labels, value: float, **more: str) -> None:
        self._gauges[name].set(value, _tags(labels, **more))

    def _show_states(self, reading: Reading) -> None:
        """Shows every state of every device, also those in which no replica is any more."""
        places = {(replica.host, replica.device): dict.fromkeys(STATES, 0) for replica in reading.replicas}
        for replica in reading.replicas:
            if replica.state != LEFT:
                places[replica.host, replica.device][replica.state] += 1
        for (host, device), states in places.items():
            for state, count in states.items():
                labels = (host, device, "", self._model, self._work)
                self._show("ovray_replicas", labels, count, state=state)


def _tags(labels: _Labels, **more: Any) -> dict[str, str]:
    return {**dict(zip(LABELS, labels, strict=True)), **more}
