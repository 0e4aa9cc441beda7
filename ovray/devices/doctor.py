"""Puts together what is wrong with a cluster: what its hosts say of themselves, and what shows only from outside.

May not enter: starting or stopping a Ray.  The checks that run on each host: hostchecks.py.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovray.devices.findings import Diagnosis, Finding, Status, finding_from_json
from ovray.devices.hostprobe import own_versions
from ovray.devices.probe import (
    DEFAULT_TIMEOUT_S,
    NodeAnswer,
    ask_nodes,
    host_flags,
    host_of,
    problem_of,
    version_skew,
)
from ovray.devices.records import Host

#: What a cluster-wide finding calls its host.
CLUSTER = "cluster"

#: Clocks are compared by when an answer was written and when it was here; less than this is not looked at.
CLOCK_TOLERANCE_S = 1.0

#: A window is nireq and as much again to hide the round trip, nireq is at most one a core under THROUGHPUT, and
#: a batch of 50 images of 224x224x3 float32 takes 30 MB: so twice 32 MiB for each core, and room to breathe on
#: small hosts.  Ray's default of 30 % of the memory is above it on all hosts with 220 MiB of memory a core.
OBJECT_STORE_BYTES_PER_CORE = 64 * 2**20
MIN_OBJECT_STORE_BYTES = 256 * 2**20


def diagnose(*, timeout_s: float = DEFAULT_TIMEOUT_S, sysfs_root: Path | None = None) -> Diagnosis:
    """Check the Ray that this process is connected to, and every host of it.

    Args:
        timeout_s: how long the hosts may take; who has not answered by then is a finding.
        sysfs_root: a recorded tree that stands for ``/sys`` of every node; ``None`` means their own.
    """
    answers = ask_nodes([*host_flags(sysfs_root), "--checks"], timeout_s)
    findings = [check_token_auth(answers)]
    for answer in answers:
        findings += check_node(answer, own_versions())
        if sysfs_root is None and not problem_of(answer, own_versions()):
            # Not on a recorded tree: its cores and this Ray's memory are two machines.
            findings.append(check_object_store(host_of(answer)))
    return Diagnosis(findings=tuple(findings))


def check_node(answer: NodeAnswer, own: Mapping[str, str]) -> list[Finding]:
    """Return all that can be said about one node; of one that cannot take part, why it cannot."""
    findings = [check_versions(answer, own), check_clock(answer)] if answer.fields else []
    if problem := problem_of(answer, own):
        if not version_skew(answer, own):
            findings.append(_silent_node(answer.node.host, problem))
        return findings
    said = answer.fields.get("findings", ())
    return findings + [finding_from_json(fields, answer.node.host) for fields in said]


def check_versions(answer: NodeAnswer, own: Mapping[str, str]) -> Finding:
    """Fail when a node runs other versions than this process."""
    host = answer.node.host
    if skew := version_skew(answer, own):
        return Finding(
            check="versions",
            host=host,
            status=Status.FAIL,
            what=f"its versions differ: {skew}; its devices are left out",
            mend="install the same versions on every node, from one lock file or one container image",
        )
    return _ok("versions", host, "Python, OpenVINO, Ray and ovray are the same there as here")


def check_clock(answer: NodeAnswer) -> Finding:
    """Warn when a node's clock cannot be right: it wrote its answer before it was asked, or after it was read."""
    written_s = float(answer.fields["time_s"])
    ahead_s = max(written_s - answer.answered_s, 0.0)
    behind_s = max(answer.asked_s - written_s, 0.0)
    host = answer.node.host
    if max(ahead_s, behind_s) <= CLOCK_TOLERANCE_S:
        return _ok("clock", host, "its clock agrees with this one")
    direction = f"{ahead_s:.0f} s ahead of" if ahead_s else f"{behind_s:.0f} s behind"
    return Finding(
        check="clock",
        host=host,
        status=Status.WARN,
        what=f"its clock is at least {direction} this one: logs, tokens and file times will not fit together",
        mend="run a time service on every host (chrony, or `timedatectl set-ntp true`)",
    )


def check_object_store(host: Host) -> Finding:
    """Warn when Ray's object store cannot hold the work that is under way at this host's replicas."""
    needed = max(MIN_OBJECT_STORE_BYTES, OBJECT_STORE_BYTES_PER_CORE * len(host.topology.cores))
    given = int(host.resources.get("object_store_memory", 0))
    has, wants = f"{given // 2**20:,} MiB", f"{needed // 2**20:,} MiB"
    if given >= needed:
        return _ok("object-store", host.name, f"Ray's object store holds {has}")
    return Finding(
        check="object-store",
        host=host.name,
        status=Status.WARN,
        what=f"Ray's object store holds {has}; the windows of {len(host.topology.cores)} cores can fill {wants}, "
        "and what does not fit is written to disk",
        mend=f"start this node with `ray start --object-store-memory={needed}` or more, with a /dev/shm as large",
    )


def check_token_auth(answers: Sequence[NodeAnswer]) -> Finding:
    """Warn when anybody on the network may run code on this cluster.

    Ray's servers listen on every interface of a node; only a node whose address is loopback is out of reach.
    """
    open_hosts = [
        answer.node.host
        for answer in answers
        if answer.fields.get("auth_mode", "token").lower() != "token" and not _is_loopback(answer.node.address)
    ]
    if not open_hosts:
        return _ok("token-auth", CLUSTER, "Ray asks for a token, or is reached from its own host only")
    return Finding(
        check="token-auth",
        host=CLUSTER,
        status=Status.WARN,
        what=f"Ray's token authentication is off on {', '.join(sorted(set(open_hosts)))}, which other machines "
        "can reach: whoever connects can run any code there",
        mend="run `ray get-auth-token --generate`, copy the token to every node, and start each with "
        "RAY_AUTH_MODE=token",
    )


def _silent_node(host: str, problem: str) -> Finding:
    return Finding(
        check="node",
        host=host,
        status=Status.FAIL,
        what=f"{problem}; its devices are left out",
        mend="run `python -m ovray.devices.hostprobe` there, as the user that runs Ray, to see it fail",
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _ok(check: str, host: str, what: str) -> Finding:
    return Finding(check=check, host=host, status=Status.OK, what=what)
