"""Shows where replicas would run, and what a model turns out to be there: ``ovray.plan()`` and ``ovray plan``.

May not enter: work for replicas, printing.  What entries mean and which cores: devices/.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import openvino as ov

from ovray.core.ids import ReplicaId
from ovray.devices.inventory import ClusterProbe
from ovray.devices.probe import probe_cluster, probe_local_host, recorded_sysfs_root
from ovray.devices.records import Measurement, Plan
from ovray.driver.lifecycle import START_TIMEOUT_S
from ovray.driver.messages import Started, StartFailed
from ovray.driver.placement import PlacementOptions, lay_out, lay_out_what_is_free, place
from ovray.driver.session import has_ray, ray_session
from ovray.driver.transport import Inbox, RayTransport
from ovray.errors import ConfigError, ReplicaError
from ovray.replica.model import describe, pack, read_model, reshape, with_plain_types
from ovray.replica.properties import compile_properties
from ovray.replica.workload import ReplicaReport, Workload


def plan(  # noqa: PLR0913 (the public face: every option has its name)
    model: str | os.PathLike[str] | ov.Model | None = None,
    *,
    devices: str = "MULTI",
    hint: str = "THROUGHPUT",
    precision: str | None = None,
    share_cores: bool = False,
    lease_timeout_s: float = PlacementOptions().lease_timeout_s,
    address: str | None = None,
) -> Plan:
    """Returns where every replica would run.

    Without a model nothing is compiled, leased or claimed, and where no Ray runs none is started: this machine is
    looked at.  With ``OVRAY_SYSFS_ROOT=DIR`` in the environment, the machine recorded in DIR stands for every
    host, and the plan is not held against what Ray has.

    With a model every replica is started, compiles it, runs it, and is ended; the plan then says what came of it.

    Args:
        model: a file that OpenVINO reads, or a model in memory; open dimensions are compiled as 1.
        devices: device string; ``MULTI`` is every device of the cluster.
        hint: OpenVINO's performance hint, ``THROUGHPUT``, ``LATENCY`` or ``CUMULATIVE_THROUGHPUT``.
        precision: ``f32``, ``f16`` or ``bf16`` for every replica; ``None`` leaves it to each device.
        share_cores: lets replicas run on cores that others hold.
        lease_timeout_s: seconds to wait for cores that others hold.
        address: ``HOST:PORT`` of a Ray head; ``local`` means this machine alone.

    Raises:
        ConfigError: the device string is wrong, means nothing here, claims a core twice, or Ray has too few CPUs;
            the model cannot be read, or no device can run it.

    Example:
        >>> laid_out = ovray.plan(devices="CPU,SIM*2?ms=5", hint="LATENCY").to_pandas()
        >>> laid_out["id"].str.partition("/")[2].tolist()[-2:]
        ['SIM#0', 'SIM#1']
    """
    options = PlacementOptions.parse(
        devices=devices,
        hint=hint,
        precision=precision,
        share_cores=share_cores,
        lease_timeout_s=lease_timeout_s,
    )
    if model is None:
        return _only_placed(options, address)
    workload = Workload(model=pack(_with_closed_shapes(with_plain_types(read_model(model)))), batch_rows=1)
    with ray_session(address):
        return _measured(place(options).plan, workload, options)


def _only_placed(options: PlacementOptions, address: str | None) -> Plan:
    sysfs_root = recorded_sysfs_root(os.environ)
    found = look_at_hosts(address, sysfs_root)
    is_ray_asked = sysfs_root is None and any(host.node_id for host in found.hosts)
    return lay_out_what_is_free(options, found) if is_ray_asked else lay_out(options, found)


def look_at_hosts(address: str | None, sysfs_root: Path | None) -> ClusterProbe:
    """Looks at a cluster; where no Ray runs, at this machine, without the seconds that starting one takes."""
    if not has_ray(address):
        return ClusterProbe(hosts=(probe_local_host(sysfs_root),))
    with ray_session(address):
        return probe_cluster(sysfs_root=sysfs_root)


def _with_closed_shapes(model: ov.Model) -> ov.Model:
    """Gives every open dimension the least length that it may have, at least 1."""
    shapes = {}
    for port, found in zip(describe(model).inputs, model.inputs, strict=True):
        if port.shape is None:
            raise ConfigError(
                f"input {port.name!r} does not say how many dimensions it has; reshape the model first"
            )
        shapes[port.name] = tuple(max(1, dimension.get_min_length()) for dimension in found.get_partial_shape())
    reshape(model, shapes)
    return model


def _measured(laid_out: Plan, workload: Workload, options: PlacementOptions) -> Plan:
    """Starts every replica, notes what it turned out to be, and ends it."""
    inbox = Inbox()
    transport = RayTransport(
        inbox, owner=f"ovray plan, driver pid {os.getpid()}", lease_timeout_s=options.lease_timeout_s
    )
    try:
        transport.put(workload, None)
        for spec in laid_out.replicas:
            transport.start(spec, compile_properties(spec, {}))
        wanted = [spec.id for spec in laid_out.replicas]
        measurements, failures = _wait_for_all(inbox, wanted, START_TIMEOUT_S)
    finally:
        transport.close()
    if not measurements:
        reasons = "; ".join(f"{replica}: {error}" for replica, error in failures.items())
        raise ConfigError(f"no device can run the model: {reasons}")
    warnings = tuple(f"{replica} could not be started: {error}" for replica, error in failures.items())
    return replace(laid_out.with_measurements(measurements), warnings=(*laid_out.warnings, *warnings))


def _wait_for_all(
    inbox: Inbox, wanted: Sequence[ReplicaId], timeout_s: float
) -> tuple[dict[ReplicaId, Measurement], Mapping[ReplicaId, Exception]]:
    """Returns what each replica turned out to be, or why it did not; one that says nothing in time failed."""
    measurements: dict[ReplicaId, Measurement] = {}
    failures: dict[ReplicaId, Exception] = {}
    end_s = time.monotonic() + timeout_s
    while len(measurements) + len(failures) < len(wanted):
        try:
            message = inbox.get(timeout=max(0.0, end_s - time.monotonic()))
        except queue.Empty:
            late = ReplicaError(f"was not ready after {timeout_s:g} s")
            failures |= {replica: late for replica in wanted if replica not in {*measurements, *failures}}
            break
        if isinstance(message, Started):
            measurements[message.replica] = measurement_of(message.report)
        elif isinstance(message, StartFailed):
            failures[message.replica] = message.error
    return measurements, failures


def measurement_of(report: ReplicaReport) -> Measurement:
    """Returns what a replica turned out to be, for its place in the plan."""
    engine = report.engine
    return Measurement(
        nireq=engine.nireq,
        streams=engine.streams,
        threads=engine.threads,
        precision=engine.precision,
        compile_s=engine.compile_s,
        first_inference_ms=engine.first_inference_ms,
        rss_mb=report.rss_mb,
    )
