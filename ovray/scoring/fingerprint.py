"""Tells models apart by what they compute, whatever OpenVINO happened to call their nodes.

May not enter: openvino, records of jobs.  Names are left out because OpenVINO numbers unnamed nodes anew in each
process; sizes of inputs, because a batch size makes no other model (job_record.py compares the rows' shapes).
"""

import hashlib
from collections.abc import Iterator
from xml.etree import ElementTree

from ovray.replica.signature import PackedModel

_NAMES = frozenset({"name", "names", "output_names"})


def fingerprint(model: PackedModel) -> str:
    """Return the SHA-256 over operations, their attributes, how they are connected, and weights."""
    digest = hashlib.sha256(model.weights.data)
    for word in _words(ElementTree.fromstring(model.xml), ElementTree.Element("")):
        digest.update(word.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _words(element: ElementTree.Element, parent: ElementTree.Element) -> Iterator[str]:
    if element.tag == "dim" or element.get("name") == "fused_names":
        return
    yield element.tag
    for key, value in sorted(element.attrib.items()):
        is_name = key in _NAMES and element.tag != "attribute"
        is_size = key == "shape" and parent.get("type") == "Parameter"
        if not (is_name or is_size):
            yield f"{key}={value}"
    for child in element:
        if child.tag != "rt_info" or any(note.get("name") != "fused_names" for note in child):
            yield from _words(child, element)
    yield "end"
