"""What the rooms above are told about hosts, devices and placements: plain frozen records.

May not enter: ray, openvino, files.  Who fills them: topology.py and probe.py.  Who decides with them: plan.py.
"""

from dataclasses import dataclass, field
from enum import Enum

from ovray.core.ids import ReplicaId


class Hint(Enum):
    """OpenVINO's performance hint, spelt as OpenVINO spells it."""

    LATENCY = "LATENCY"
    THROUGHPUT = "THROUGHPUT"
    CUMULATIVE_THROUGHPUT = "CUMULATIVE_THROUGHPUT"


class CoreSharing(Enum):
    """Says whether a replica needs its cores for itself."""

    EXCLUSIVE = "exclusive"  # leased, pinned, nobody else's
    SHARED = "shared"  # not leased, OpenVINO's own pinning off, threads divided


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
    #: Logical CPUs the process may run on, ascending; empty for SIM.
    cpus: tuple[int, ...]
    hint: Hint = Hint.THROUGHPUT
    #: ``(N)`` of the device entry; ``None`` lets OpenVINO choose.
    nireq: int | None = None
    #: INFERENCE_NUM_THREADS to ask for; ``None`` where every logical CPU of ``cpus`` may be used.
    threads: int | None = None
    sharing: CoreSharing = CoreSharing.EXCLUSIVE
    #: The entry's ``?KEY=VALUE`` pairs: OpenVINO properties, or the settings of SIM.
    properties: dict[str, str] = field(default_factory=dict)
