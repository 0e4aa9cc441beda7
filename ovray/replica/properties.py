"""Says which OpenVINO properties a replica is compiled with.

May not enter: openvino, choices of place.  Of three voices the later one wins: plan, device entry, caller.
"""

from collections.abc import Mapping

from ovray.devices.records import CoreSharing, ReplicaSpec


def compile_properties(spec: ReplicaSpec, config: Mapping[str, str]) -> dict[str, str]:
    """Returns the properties for one replica.

    Args:
        spec: its place, hint, threads and the ``?KEY=VALUE`` pairs of its device entry.
        config: what the caller set for all replicas.

    Example:
        >>> from ovray.core.ids import ReplicaId
        >>> spec = ReplicaSpec(id=ReplicaId("a/CPU.0#0"), host="a", node_id="", device="CPU.0",
        ...                    openvino_device="CPU", numa_node=0, cpus=(0, 1), nireq=4)
        >>> compile_properties(spec, {"CACHE_DIR": "/var/cache/ovray"})
        {'PERFORMANCE_HINT': 'THROUGHPUT', 'PERFORMANCE_HINT_NUM_REQUESTS': '4', 'CACHE_DIR': '/var/cache/ovray'}
    """
    if not spec.openvino_device:
        return {}
    planned = {"PERFORMANCE_HINT": spec.hint.value}
    if spec.nireq is not None:
        # The number of streams follows from it, as in benchmark_app's -nireq.
        planned["PERFORMANCE_HINT_NUM_REQUESTS"] = str(spec.nireq)
    if spec.threads is not None:
        planned["INFERENCE_NUM_THREADS"] = str(spec.threads)
    if spec.streams is not None:
        planned["NUM_STREAMS"] = str(spec.streams)
    if spec.sharing is CoreSharing.SHARED:
        # OpenVINO pins from the first core of the mask; two that share a mask would meet on the same cores.
        planned["ENABLE_CPU_PINNING"] = "NO"
    return {**planned, **spec.properties, **config}
