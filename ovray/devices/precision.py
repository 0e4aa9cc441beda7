"""Says in which precision a device computes, and whether the replicas of a pool agree.

May not enter: openvino.  Who asks OpenVINO: hostprobe.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ovray.devices.records import OpenVINODevice, ReplicaSpec

#: OpenVINO's name of the property.
PRECISION_PROPERTY = "INFERENCE_PRECISION_HINT"

#: What may be asked for, and the OPTIMIZATION_CAPABILITIES that a device must list to compute in it.
CAPABILITIES: Mapping[str, str] = {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}


def expected_precision(device: OpenVINODevice, asked: str | None, mode: str | None) -> str:
    """Returns what a device will compute in; the empty string where nobody knows.

    Args:
        device: as OpenVINO described it.
        asked: the INFERENCE_PRECISION_HINT that it will be given; ``None`` for none.
        mode: the EXECUTION_MODE_HINT that it will be given; ``None`` for OpenVINO's default, PERFORMANCE.

    Not asked, a device takes what its INFERENCE_PRECISION_HINT reads by default: bf16 on a CPU with native bf16,
    f16 on a GPU; under ACCURACY that of the model, which OpenVINO calls ``dynamic``.  Asked for one that it does
    not have, the CPU plugin stays with f32 and says nothing.
    Source: src/plugins/intel_cpu/src/config.cpp, Config::readProperties.
    """
    if asked is None:
        return "dynamic" if mode == "ACCURACY" else device.precision
    if can_compute_in(device, asked):
        return asked
    return "f32" if device.name == "CPU" else device.precision


def can_compute_in(device: OpenVINODevice, precision: str) -> bool:
    """Tells whether a device lists a precision; one that lists nothing is given the benefit of the doubt."""
    return not device.capabilities or CAPABILITIES.get(precision) in device.capabilities


def precision_warnings(replicas: Sequence[ReplicaSpec]) -> list[str]:
    """Warns of replicas that would compute in different precisions."""
    by_precision: dict[str, list[str]] = {}
    for replica in replicas:
        if replica.precision:
            by_precision.setdefault(replica.precision, []).append(replica.id)
    if len(by_precision) < 2:
        return []
    counts = ", ".join(f"{precision} on {_some(ids)}" for precision, ids in by_precision.items())
    return [
        f"replicas compute in different precisions, so the same input gives different numbers: {counts}; "
        f"--precision f32 makes them equal"
    ]


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:2]) + (f" and {len(ids) - 2} more" if len(ids) > 2 else "")
