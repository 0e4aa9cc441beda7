"""Asks every Ray node what it has, and turns the answers into ``Host`` records.

May not enter: placement choices, starting or stopping a Ray.  What is asked on each host: hostprobe.py.
The cluster may be broken in part: a node that does not answer, or runs other versions, is reported and left out.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ovray.devices.host_look import Done, HostLook
from ovray.devices.hostprobe import ANSWER, own_versions
from ovray.devices.inventory import ClusterProbe, LeftOut
from ovray.devices.records import Host
from ovray.devices.wire import host_from_json
from ovray.errors import ConfigError

#: A host answers within a second; starting a worker on a busy node, and a GPU driver's first load, take longer.
DEFAULT_TIMEOUT_S = 60.0

#: Stands for ``/sys`` when it is set: a recorded tree of another machine.
SYSFS_VARIABLE = "OVRAY_SYSFS_ROOT"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """What Ray says about one of its nodes."""

    id: str
    host: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    available_resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAnswer:
    """What one node answered: either ``fields``, as hostprobe.py wrote them, or why there are none."""

    node: RayNode
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    #: On the clock of this process, before and after; the node's own ``time_s`` lies between if clocks agree.
    asked_s: float
    answered_s: float


class _NoAnswerError(Exception):
    """A host could not look at itself; the text says why."""


def probe_cluster(
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    sysfs_root: Path | None = None,
    only: Collection[str] | None = None,
    look: HostLook | None = None,
) -> ClusterProbe:
    """Ask every alive node of the Ray that this process is connected to.

    Args:
        timeout_s: how long all of them together may take; who has not answered by then is left out.
        sysfs_root: a recorded tree that stands for ``/sys`` of every node; ``None`` means their own.
        only: Ray's ids of the nodes to ask; ``None`` means all.
        look: at this host, under way; is used if this host is all that there is.
    """
    hosts: list[Host] = []
    left_out: list[LeftOut] = []
    for answer in ask_nodes(host_flags(sysfs_root), timeout_s, only, look):
        problem = problem_of(answer, own_versions())
        if problem:
            left_out.append(LeftOut(host=answer.node.host, node_id=answer.node.id, reason=problem))
        else:
            hosts.append(host_of(answer))
    return ClusterProbe(hosts=tuple(hosts), left_out=tuple(left_out))


def probe_local_host(sysfs_root: Path | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Host:
    """Look at this machine, without Ray; at a recorded tree's cores where one is given.

    Raises:
        ConfigError: OpenVINO cannot be loaded here, or did not answer in time.
    """
    try:
        answer = _answer_in(run_hostprobe(host_flags(sysfs_root), timeout_s))
    except _NoAnswerError as error:
        answer = {"error": str(error)}
    if "error" in answer:
        raise ConfigError(
            f"this host could not be looked at: {answer['error']}; nothing was started; "
            "run `python -m ovray.devices.hostprobe` to see it fail, and reinstall openvino if it cannot be loaded"
        )
    return host_from_json(answer["host"])


def recorded_sysfs_root(environment: Mapping[str, str]) -> Path | None:
    """Return the recorded tree that the user named to stand for ``/sys``, ``None`` if there is none.

    Raises:
        ConfigError: it is no folder with CPUs in it.
    """
    named = environment.get(SYSFS_VARIABLE)
    if not named:
        return None
    if not Path(named, "devices/system/cpu").is_dir():
        raise ConfigError(
            f"{SYSFS_VARIABLE}={named} has no devices/system/cpu, so it does not stand for /sys; nothing was "
            "started; name the root of a recorded tree, or unset the variable"
        )
    return Path(named).absolute()


def host_flags(sysfs_root: Path | None) -> list[str]:
    """Return the flags with which hostprobe.py looks at a host."""
    return [] if sysfs_root is None else ["--sysfs-root", str(sysfs_root)]


def ask_nodes(
    flags: Sequence[str],
    timeout_s: float,
    only: Collection[str] | None = None,
    look: HostLook | None = None,
) -> tuple[NodeAnswer, ...]:
    """Run hostprobe.py on every alive node, or on those of them named, all at once; one answer a node, in Ray's
    order."""
    nodes = [node for node in _alive_nodes() if only is None or node.id in only]
    if len(nodes) == 1 and _is_started_by_us(nodes[0]):
        if look is not None:
            return (_node_answer(nodes[0], look.wait(timeout_s), look.began_s),)
        with HostLook(flags) as new:
            return (_node_answer(nodes[0], new.wait(timeout_s), new.began_s),)
    return _ask_through_ray(nodes, flags, timeout_s)


def problem_of(answer: NodeAnswer, own: Mapping[str, str]) -> str:
    """Return why a node cannot take part; empty if it can."""
    if answer.problem:
        return answer.problem
    if skew := version_skew(answer, own):
        return f"its versions differ: {skew}"
    if "error" in answer.fields:
        return str(answer.fields["error"])
    try:
        host_of(answer)
    except (KeyError, TypeError, ValueError) as error:
        return f"its answer is that of another version of ovray ({error!r})"
    return ""


def version_skew(answer: NodeAnswer, own: Mapping[str, str]) -> str:
    """Return which versions differ between a node and here, with both; empty if they agree."""
    theirs = answer.fields.get("versions", {})
    # "none" is a package that is there without having been installed, such as ovray shipped as a working_dir.
    return ", ".join(
        f"{name} {theirs[name]} (here: {version})"
        for name, version in own.items()
        if theirs.get(name, "none") not in ("none", version) and version != "none"
    )


def host_of(answer: NodeAnswer) -> Host:
    """Return the host as the node described it, with what Ray knows about it."""
    node = answer.node
    return replace(
        host_from_json(answer.fields["host"]),
        name=node.host,
        node_id=node.id,
        address=node.address,
        labels=node.labels,
        resources=node.resources,
        available_resources=node.available_resources,
    )


def run_hostprobe(flags: Sequence[str], timeout_s: float) -> Done:
    """Run hostprobe.py in a process of its own; return its exit code, output and errors."""
    with HostLook(flags) as look:
        return look.wait(timeout_s)


def _answer_in(done: Done) -> dict[str, Any]:
    """Return what hostprobe.py printed.

    Raises:
        _NoAnswerError: it ended without an answer.
    """
    code, output, errors = done
    for line in output.splitlines():
        if line.startswith(ANSWER):
            answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
            return answer
    said = errors.strip().splitlines()
    raise _NoAnswerError(said[-1] if said else f"its probe ended with code {code} and said nothing")


def _alive_nodes() -> list[RayNode]:
    available = available_resources_per_node()  # type: ignore[no-untyped-call]
    return [
        RayNode(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            address=node["NodeManagerAddress"],
            labels=node["Labels"],
            resources=node["Resources"],
            available_resources=available.get(node["NodeID"], {}),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def _is_started_by_us(node: RayNode) -> bool:
    """Return whether this process started that node, which then has our mask, control group and environment.

    It is looked at without a Ray worker in between: starting one takes longer than the look.
    """
    if node.id != ray.get_runtime_context().get_node_id():
        return False
    return any(child.name() == "raylet" for child in psutil.Process().children())


def _ask_through_ray(nodes: Sequence[RayNode], flags: Sequence[str], timeout_s: float) -> tuple[NodeAnswer, ...]:
    asked_s = time.time()
    task = ray.remote(_travelling_probe())
    references = {node.id: task.options(**_pinned_to(node)).remote(list(flags), timeout_s) for node in nodes}
    # Beyond the time that the hosts give themselves: a node that starts no worker would never say so.
    ready, _ = ray.wait(list(references.values()), num_returns=len(nodes), timeout=timeout_s)
    answers = []
    for node in nodes:
        reference = references[node.id]
        if reference in ready:
            answers.append(_collected(node, reference, asked_s))
        else:
            ray.cancel(reference, force=True)
            problem = f"no answer within {timeout_s:g} s"
            answers.append(NodeAnswer(node=node, problem=problem, asked_s=asked_s, answered_s=time.time()))
    return tuple(answers)


def _collected(node: RayNode, reference: Any, asked_s: float) -> NodeAnswer:
    try:
        return _node_answer(node, ray.get(reference), asked_s)
    except ray.exceptions.RayError as error:
        problem = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return NodeAnswer(node=node, problem=problem, asked_s=asked_s, answered_s=time.time())


def _node_answer(node: RayNode, done: Done, asked_s: float) -> NodeAnswer:
    answered_s = time.time()
    try:
        return NodeAnswer(node=node, fields=_answer_in(done), asked_s=asked_s, answered_s=answered_s)
    except _NoAnswerError as error:
        return NodeAnswer(node=node, problem=str(error), asked_s=asked_s, answered_s=answered_s)


def _pinned_to(node: RayNode) -> dict[str, Any]:
    return {
        "num_cpus": 0,
        "max_retries": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node.id, soft=False),
    }


def _travelling_probe() -> Callable[[Sequence[str], float], tuple[int, str, str]]:
    """Return the function that starts hostprobe.py on a node.

    A nested function is pickled by value, and this one uses nothing but the standard library: it also runs on
    nodes that have no ovray, or another one, and can say so.
    """

    def start(flags: Sequence[str], timeout_s: float) -> tuple[int, str, str]:
        # The same modules as in this process: what a job ships is on sys.path and not always in the environment.
        path = os.pathsep.join(entry for entry in sys.path if entry)
        # Files and not pipes: a pipe ends when the last process that inherited it does, and what a driver or a
        # plugin forked may outlive the probe.
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "ovray.devices.hostprobe", *flags],
                    env={**os.environ, "PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    timeout=timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return -1, "", f"no answer within {timeout_s:g} s"
            output.seek(0)
            errors.seek(0)
            return done.returncode, output.read(), errors.read()

    return start
