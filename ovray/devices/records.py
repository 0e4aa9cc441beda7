"""What the rooms above are told about hosts, devices and placements: plain frozen records.

May not enter: ray, openvino, files.  Who fills them: topology.py and probe.py.  Who decides with them: plan.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from ovray.core.ids import ReplicaId

if TYPE_CHECKING:
    import pandas as pd


class Hint(Enum):
    """OpenVINO's performance hint, spelt as OpenVINO spells it."""

    LATENCY = "LATENCY"
    THROUGHPUT = "THROUGHPUT"
    CUMULATIVE_THROUGHPUT = "CUMULATIVE_THROUGHPUT"


class CoreSharing(Enum):
    """Says whether a replica needs its cores for itself."""

    EXCLUSIVE = "exclusive"  # leased, pinned, nobody else's
    SHARED = "shared"  # not leased, OpenVINO's own pinning off, threads divided


class CoreKind(Enum):
    """Says which of the two kinds of a hybrid CPU a core is; all cores of other CPUs are PERFORMANCE."""

    PERFORMANCE = "performance"
    EFFICIENT = "efficient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """One physical core: the unit that is planned, leased and never shared between replicas."""

    #: The lowest logical CPU that the kernel lists for it, usable here or not: so every process of the host
    #: calls the core by the same number.
    id: int
    #: Its logical CPUs that this process may use, ascending; never empty.
    cpus: tuple[int, ...]
    numa_node: int
    package: int
    #: Cores with the same number share their last-level cache (the number is the lowest CPU that shares it).
    cache: int
    kind: CoreKind = CoreKind.PERFORMANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """One NUMA node as the kernel numbers it."""

    id: int
    #: Its usable cores in ascending order; empty for a node of memory only, or one outside the affinity mask.
    cores: tuple[Core, ...]
    #: ``None`` where the kernel does not say.
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTopology:
    """What a process may use of its host's CPUs: online, within its affinity mask and its cgroup's cpuset."""

    #: In ascending order, those without usable cores included.
    nodes: tuple[NumaNode, ...]
    #: Every logical CPU that is online, usable by this process or not.
    online_cpus: tuple[int, ...]
    #: How many CPUs' worth of time the cgroups grant, as they say it (2.5); ``None`` means no limit.
    quota_cpus: float | None = None

    @property
    def cores(self) -> tuple[Core, ...]:
        """Returns every usable core, node by node."""
        return tuple(core for node in self.nodes for core in node.cores)

    @property
    def allowed_cpus(self) -> tuple[int, ...]:
        """Returns every usable logical CPU, ascending."""
        return tuple(sorted(cpu for core in self.cores for cpu in core.cpus))

    @property
    def cpu_budget(self) -> int | None:
        """Returns how many logical CPUs may be busy at once: the quota rounded down, at least 1; ``None``: all."""
        return None if self.quota_cpus is None else max(1, math.floor(self.quota_cpus))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVINODevice:
    """One device as OpenVINO on its host describes it."""

    #: From ``available_devices``: ``CPU``, ``GPU`` or ``GPU.0``, ``GPU.0.1`` for a tile, ``NPU``.
    name: str
    full_name: str = ""
    #: OPTIMIZATION_CAPABILITIES: ``FP32``, ``BF16``, ``INT8`` ...
    capabilities: tuple[str, ...] = ()
    architecture: str = ""
    #: What INFERENCE_PRECISION_HINT reads before anybody sets it: the precision OpenVINO would compute in, as
    #: ``Type.get_type_name()`` spells it (``bf16``).  Empty where the device has no such property.
    precision: str = ""
    #: DEVICE_TYPE: ``discrete`` or ``integrated``; empty where the device does not say.
    type: str = ""
    #: Names of its tiles where it has more than one: ``("GPU.0.0", "GPU.0.1")``.
    tiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One Ray node, or this machine without Ray, as the probe found it."""

    #: Host name as Ray knows it.
    name: str
    topology: HostTopology
    devices: tuple[OpenVINODevice, ...] = ()
    #: Ray's node id, hexadecimal; empty without a cluster.
    node_id: str = ""
    #: Node IP; empty without a cluster.
    address: str = ""
    #: The same for two Ray nodes of one machine, whose cores are the same cores (the kernel's boot id).
    machine_id: str = ""
    memory_bytes: int | None = None
    #: Whether memory can be bound to a NUMA node here (the kernel has it, the sandbox allows it).
    can_bind_memory: bool = False
    #: Logical CPUs that other replicas hold leases on right now.
    leased_cpus: frozenset[int] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Ray's resources in total, and what of them is free.
    resources: Mapping[str, float] = field(default_factory=dict)
    available_resources: Mapping[str, float] = field(default_factory=dict)
    #: Versions of ``openvino``, ``ray`` and ``ovray`` there.
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """Says where one replica is to run and what it owns there; everything needed to start it."""

    #: ``host/CPU.0#0``
    id: ReplicaId
    #: Host name as Ray knows it.
    host: str
    #: Ray's node id, hexadecimal; empty in a plan that was made without a cluster.
    node_id: str
    #: As ovray names it: ``CPU.1`` for the second NUMA node, ``GPU.0``, ``SIM``.
    device: str
    #: As OpenVINO names it: ``CPU``, ``GPU.0``; the empty string for SIM.
    openvino_device: str
    numa_node: int | None
    #: Logical CPUs the process may run on, ascending; empty for those that are not pinned: GPU, NPU, SIM.
    cpus: tuple[int, ...]
    #: Numbers of the physical cores to lease (``Core.id``), ascending.  A core is leased whole, even where
    #: ``cpus`` leaves one of its threads idle.
    cores: tuple[int, ...] = ()
    hint: Hint = Hint.THROUGHPUT
    #: ``(N)`` of the device entry, or what the hint fixes; ``None`` lets OpenVINO choose.
    nireq: int | None = None
    #: NUM_STREAMS where the hint or the entry fixes it; ``None`` lets OpenVINO choose.
    streams: int | None = None
    #: INFERENCE_NUM_THREADS to ask for; ``None`` where every logical CPU of ``cpus`` may be used.
    threads: int | None = None
    sharing: CoreSharing = CoreSharing.EXCLUSIVE
    #: Place of its device among those that were asked for, 0 is the best; equal for all of one entry.
    rank: int = 0
    #: What the device is expected to compute in: ``f32``, ``bf16``, ``f16``; empty where unknown, and for SIM.
    precision: str = ""
    #: ``bind:N``, ``local`` (the host has one node), ``first-touch``; ``None`` for a replica without cores.
    memory_policy: str | None = None
    #: The entry's ``?KEY=VALUE`` pairs, precision included: OpenVINO properties, or the settings of SIM.
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def ray_num_cpus(self) -> int:
        """Returns what to claim from Ray: a CPU for each leased core; none where cores are shared."""
        return len(self.cores) if self.sharing is CoreSharing.EXCLUSIVE else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What compiling a model on a replica showed; each ``None`` was not measured."""

    nireq: int | None = None
    streams: int | None = None
    threads: int | None = None
    precision: str | None = None
    compile_s: float | None = None
    first_inference_ms: float | None = None
    rss_mb: float | None = None


Cell = str | int | float | tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Says where every replica is to run, in the order of the device string: the first has priority."""

    replicas: tuple[ReplicaSpec, ...]
    warnings: tuple[str, ...] = ()
    #: What is missing for now of what was asked for, why, and what to do; ``None`` where nothing is.  Also one of
    #: the warnings.
    shortage: str | None = None
    #: Filled by ``with_measurements`` once a model was compiled.
    measurements: Mapping[ReplicaId, Measurement] = field(default_factory=dict)

    def with_measurements(self, measurements: Mapping[ReplicaId, Measurement]) -> Plan:
        """Returns this plan with what compiling showed, which then replaces what was expected."""
        return replace(self, measurements=dict(measurements))

    def rows(self) -> list[dict[str, Cell]]:
        """Returns one row a replica, with the keys of ``ovray plan --json``; ``None`` is not known yet."""
        return [_row(spec, self.measurements.get(spec.id, Measurement())) for spec in self.replicas]

    def to_pandas(self) -> pd.DataFrame:
        """Returns the rows as a DataFrame; the warnings are in its ``attrs``."""
        import pandas as pd

        frame = pd.DataFrame(self.rows(), columns=list(ROW_KEYS))
        frame.attrs["warnings"] = list(self.warnings)
        return frame


#: The keys of a plan's row, in the order in which people read them.
ROW_KEYS = (
    "id",
    "host",
    "device",
    "numa_node",
    "cpus",
    "threads",
    "streams",
    "nireq",
    "precision",
    "memory_policy",
    "compile_s",
    "first_inference_ms",
    "rss_mb",
)


def _row(spec: ReplicaSpec, measured: Measurement) -> dict[str, Cell]:
    threads = spec.threads if spec.threads is not None else len(spec.cpus) or None
    return {
        "id": spec.id,
        "host": spec.host,
        "device": spec.device,
        "numa_node": spec.numa_node,
        "cpus": spec.cpus,
        "threads": _first_known(measured.threads, threads),
        "streams": _first_known(measured.streams, spec.streams),
        "nireq": _first_known(measured.nireq, spec.nireq),
        "precision": measured.precision or spec.precision or None,
        "memory_policy": spec.memory_policy,
        "compile_s": measured.compile_s,
        "first_inference_ms": measured.first_inference_ms,
        "rss_mb": measured.rss_mb,
    }


def _first_known(measured: int | None, planned: int | None) -> int | None:
    return planned if measured is None else measured
