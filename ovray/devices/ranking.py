"""Says which devices are better than others: by the order of the device string, or as OpenVINO's AUTO ranks them.

May not enter: hosts, cores, what becomes of the rank (core/serving_order.py).

*Source:* OpenVINO's AUTO plugin (2026.4), ``Plugin::get_valid_device``: discrete GPUs, integrated GPUs, other
devices, CPUs, where no list is given; a given list counts as it is.
"""

from __future__ import annotations

from ovray.devices.grammar import DeviceEntry, DeviceString
from ovray.devices.records import OpenVINODevice

_DISCRETE_GPU, _GPU, _OTHER, _CPU = range(4)

#: What a string without a wanted entry means, best first.
EVERY_DEVICE = tuple(DeviceEntry(device=device) for device in ("GPU", "NPU", "CPU"))

#: The same for AUTO: OpenVINO leaves NPUs out unless they are asked for.
AUTO_DEVICES = tuple(DeviceEntry(device=device) for device in ("GPU", "CPU"))


def wanted_entries(devices: DeviceString) -> tuple[DeviceEntry, ...]:
    """Returns the entries that name devices to use; those that a string without any stands for."""
    named = tuple(entry for entry in devices.entries if not entry.excluded)
    return named or (AUTO_DEVICES if devices.mode == "AUTO" else EVERY_DEVICE)


def rank_of(devices: DeviceString, entry: DeviceEntry, device: OpenVINODevice | None) -> int:
    """Returns the place of a device that an entry stands for; 0 is the best.

    Args:
        devices: the whole string.
        entry: one of ``wanted_entries``.
        device: as its host describes it; ``None`` for a simulated one.
    """
    if any(not named.excluded for named in devices.entries):
        return next(place for place, named in enumerate(wanted_entries(devices)) if named is entry)
    if entry.device == "GPU":
        return _DISCRETE_GPU if device is not None and device.type == "discrete" else _GPU
    return _CPU if entry.device == "CPU" else _OTHER
