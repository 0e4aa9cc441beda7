"""Asks the kernel to take a replica's memory from its own NUMA node.

May not enter: openvino.  A memory policy belongs to one thread and is handed down to the threads it starts later.
So this is called on the thread that will load OpenVINO, after pinning and before OpenVINO starts its workers.
Threads that Ray started earlier keep the kernel's default, which takes memory from the node they run on: once
they are pinned that is the same node.  Memory that exists already stays where it is.

``preferred`` and not ``bind``: under MPOL_BIND a full node ends in the OOM killer while the node next door is
empty (mm/oom_kill.c, CONSTRAINT_MEMORY_POLICY); under MPOL_PREFERRED the rest comes from there, slower.
"""

import logging
import os

from ovray.devices.mempolicy import prefer_node

_log = logging.getLogger(__name__)

FIRST_TOUCH = "first-touch"


def bind_memory(numa_node: int) -> str:
    """Prefer memory of this NUMA node for the calling thread and all that it starts from now on.

    Never fails a replica: a kernel without NUMA, a node without memory, or a container whose seccomp profile
    forbids the call (Docker's does without CAP_SYS_NICE) leaves the kernel's default.

    Returns:
        The policy it got: ``"preferred:<node>"``, or ``"first-touch"`` for the kernel's default.
    """
    error = prefer_node(numa_node)
    if error:
        _log.info("set_mempolicy for NUMA node %d: %s; memory by first touch", numa_node, os.strerror(error))
        return FIRST_TOUCH
    return f"preferred:{numa_node}"
