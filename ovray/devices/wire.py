"""Turns what a host found out about itself into JSON, and back into records on the driver's side.

May not enter: ray, openvino, files.  JSON and not pickle: the other end may run another version of ovray, and
then its answer must still be readable enough to say so.
"""

import dataclasses
from enum import Enum
from typing import Any

from ovray.devices.records import Core, CoreKind, Host, HostTopology, NumaNode, OpenVINODevice


def to_json(record: object) -> Any:
    """Return plain lists, dicts, strings and numbers for a record and all that it holds."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: to_json(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, Enum):
        return record.value
    if isinstance(record, dict):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, frozenset):
        return sorted(to_json(item) for item in record)
    if isinstance(record, tuple | list):
        return [to_json(item) for item in record]
    return record


def host_from_json(fields: dict[str, Any]) -> Host:
    """Return the host that ``to_json`` wrote.

    Raises:
        KeyError, TypeError, ValueError: this is not what our version of ``to_json`` writes.
    """
    return Host(
        **{
            **fields,
            "topology": _topology(fields["topology"]),
            "devices": tuple(_device(device) for device in fields["devices"]),
            "leased_cpus": frozenset(fields["leased_cpus"]),
        }
    )


def _topology(fields: dict[str, Any]) -> HostTopology:
    return HostTopology(
        nodes=tuple(_node(node) for node in fields["nodes"]),
        online_cpus=tuple(fields["online_cpus"]),
        quota_cpus=fields["quota_cpus"],
    )


def _node(fields: dict[str, Any]) -> NumaNode:
    return NumaNode(
        id=fields["id"],
        cores=tuple(_core(core) for core in fields["cores"]),
        memory_bytes=fields["memory_bytes"],
    )


def _core(fields: dict[str, Any]) -> Core:
    return Core(**{**fields, "cpus": tuple(fields["cpus"]), "kind": CoreKind(fields["kind"])})


def _device(fields: dict[str, Any]) -> OpenVINODevice:
    return OpenVINODevice(
        **{**fields, "capabilities": tuple(fields["capabilities"]), "tiles": tuple(fields["tiles"])}
    )
