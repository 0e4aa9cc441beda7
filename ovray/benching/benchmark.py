"""Measures a model on every device of a cluster, as ``benchmark_app`` does on one host.

May not enter: arguments, printing.  How requests are kept in flight: load.py.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import TypeVar

from ovray.benching.inputs import BenchInputs, InputGroup, prepare
from ovray.benching.latencies import Samples
from ovray.benching.load import Measured, Sendable, run_load
from ovray.benching.options import Api, BenchOptions, Limits
from ovray.benching.report import BenchReport, BenchResult, ReplicaLine
from ovray.core.ids import ReplicaId
from ovray.driver.lifecycle import request_window
from ovray.errors import ReplicaError
from ovray.replica.model import read_model
from ovray.runtime.core import Core
from ovray.runtime.serving import ReplicaInfo, Serving
from ovray.runtime.tensors import InputTensors, Sharing

T = TypeVar("T")

Say = Callable[[str], None]

#: Replicas that are not ready by then are measured without; starts of a minute have been seen.
START_TIMEOUT_S = 600.0

#: How long a replica is measured alone at most: its rate is steady within that, and there may be many.
ALONE_S = 5.0

_LOOK_S = 0.1


def run(options: BenchOptions, say: Say) -> BenchReport:
    """Starts replicas, warms them up, measures, and ends them.

    Args:
        options: what and how.
        say: is told each step, in words.

    Raises:
        ConfigError: the model, its shapes, a device or a property cannot be; nothing was started.
        ReplicaError: no replica could start, or all were lost.
        OvrayError: what a request ended with that failed.
    """
    say(f"reading {options.model}")
    model, read_s = _timed(lambda: read_model(options.model))
    inputs, reshape_s = _timed(lambda: prepare(model, options.shapes))
    say(f"compiling on {options.devices}")
    started_s = time.perf_counter()
    compiled = Core(address=options.address).compile_model(
        model,
        options.devices,
        options.config,
        share_cores=options.share_cores,
        lease_timeout_s=options.lease_timeout_s,
        trace=options.trace,
    )
    with closing(compiled):
        bench = _Bench(compiled.serving, inputs, options, say)
        bench.wait_for_replicas()
        compile_s = time.perf_counter() - started_s
        first_s = None if options.is_compiling_only else bench.warm_up()
        result = None if options.is_compiling_only else bench.measure()
        return BenchReport(
            topology=model.get_friendly_name(),
            devices=options.devices,
            hint=options.hint,
            api=options.api,
            batch=inputs.batch,
            iterations_limit=options.limits.iterations,
            duration_limit_s=options.limits.duration_s,
            nireq=bench.nireq,
            percentile=options.percentile,
            read_s=read_s,
            reshape_s=reshape_s if inputs.is_reshaped else None,
            compile_s=compile_s,
            first_inference_s=first_s,
            result=result,
            warnings=bench.warnings(),
        )


class _Bench:
    """Measures over a pool that serves."""

    def __init__(self, serving: Serving, inputs: BenchInputs, options: BenchOptions, say: Say) -> None:
        self._serving = serving
        self._options = options
        self._say = say
        self._inputs = [_sendable(serving, group) for group in inputs.groups]
        self._replicas: tuple[ReplicaInfo, ...] = ()
        self.nireq = options.nireq or 1

    def wait_for_replicas(self) -> None:
        """Returns when every replica is ready, or will not be."""
        end_s = time.monotonic() + START_TIMEOUT_S
        while any(replica.state == "starting" for replica in self._serving.replicas()):
            if time.monotonic() > end_s:
                break
            time.sleep(_LOOK_S)
        self._replicas = tuple(one for one in self._serving.replicas() if one.state == "ready")
        if not self._replicas:
            raise ReplicaError("every replica was lost before anything was measured; see `ovray doctor`")

    def warnings(self) -> tuple[str, ...]:
        """Names the replicas that did not take part."""
        failures = self._serving.snapshot().failures
        return tuple(f"replica {name} did not take part: {error}" for name, error in failures.items())

    def warm_up(self) -> float:
        """Runs one inference on each replica; returns the longest."""
        self._say(f"first inference on {_counted(self._replicas)}")
        once = Limits(iterations=1, duration_s=None)
        loads = [
            run_load(self._serving, self._inputs[:1], once, lambda: 1, device=replica.id)
            for replica in self._replicas
        ]
        return max(load.total_s for load in loads)

    def measure(self) -> BenchResult:
        """Measures each replica alone where that is wanted, and then all together."""
        alone = self._alone() if self._options.with_ideal else {}
        self._say(f"measuring on {_counted(self._replicas)}, {self._wanted_in_flight()} requests in flight")
        load = run_load(self._serving, self._inputs, self._options.limits, self._wanted_in_flight)
        self.nireq = load.nireq
        return BenchResult(
            iterations=load.iterations,
            total_s=load.total_s,
            fps=load.fps,
            split=Samples.joined(load.samples).split(self._options.percentile),
            replicas=tuple(self._line(info, load, alone.get(info.id)) for info in self._serving.replicas()),
        )

    def _wanted_in_flight(self) -> int:
        if self._options.api is Api.SYNC:
            return 1
        return self._options.nireq or self._serving.wanted_in_flight()

    def _alone(self) -> Mapping[ReplicaId, float]:
        found = {}
        for replica in self._replicas:
            self._say(f"measuring {replica.id} alone")
            limits = Limits(iterations=None, duration_s=min(ALONE_S, self._options.limits.duration_s or ALONE_S))
            in_flight = partial(self._in_flight_alone, replica)
            load = run_load(self._serving, self._inputs, limits, in_flight, device=replica.id)
            found[replica.id] = load.fps
        return found

    def _in_flight_alone(self, replica: ReplicaInfo) -> int:
        if self._options.api is Api.SYNC:
            return 1
        if self._options.nireq:
            return -(-self._options.nireq // len(self._replicas))
        return request_window(replica.nireq, replica.rows_per_s)

    def _line(self, info: ReplicaInfo, load: Measured, alone_fps: float | None) -> ReplicaLine:
        samples = load.samples.get(info.id, Samples())
        return ReplicaLine(
            id=info.id,
            host=info.host,
            device=info.device,
            cpus=info.cpus,
            precision=info.precision,
            nireq=info.nireq,
            iterations=len(samples),
            fps=samples.frames / load.total_s,
            split=samples.split(self._options.percentile) if len(samples) else None,
            batch_rows=samples.batch_rows / len(samples) if len(samples) else 0.0,
            alone_fps=alone_fps,
        )


def _sendable(serving: Serving, group: InputGroup) -> Sendable:
    taken = InputTensors(serving.ports, serving.pool.storage)
    taken.take(group.tensors, Sharing.SHARE)
    return Sendable(arrays=list(taken.arrays()), shapes=taken.shapes(), frames=group.frames)


def _timed(do: Callable[[], T]) -> tuple[T, float]:
    started_s = time.perf_counter()
    return do(), time.perf_counter() - started_s


def _counted(replicas: tuple[ReplicaInfo, ...]) -> str:
    return f"{len(replicas)} replica" + ("s" if len(replicas) != 1 else "")
