"""Asks the kernel to take a replica's memory from its own NUMA node.

May not enter: openvino.  A memory policy belongs to one thread and is handed down to the threads it starts later.
So this is called on the thread that will load OpenVINO, after pinning and before OpenVINO starts its workers.
Threads that Ray started earlier keep the kernel's default, which takes memory from the node they run on: once
they are pinned that is the same node.  Memory that exists already stays where it is.

``preferred`` and not ``bind``: under MPOL_BIND a full node ends in the OOM killer while the node next door is
empty (mm/oom_kill.c, CONSTRAINT_MEMORY_POLICY); under MPOL_PREFERRED the rest comes from there, slower.
"""

import ctypes
import errno
import logging
import os
import platform

_log = logging.getLogger(__name__)

#: From linux/mempolicy.h.
MPOL_PREFERRED = 1

#: Of set_mempolicy, where libnuma is not installed.
SYSCALL_NUMBERS = {"x86_64": 238, "aarch64": 237}

#: The kernel's own limit (CONFIG_NODES_SHIFT=10) is 1,024 nodes.
MAX_NODES = 1024

FIRST_TOUCH = "first-touch"


def bind_memory(numa_node: int) -> str:
    """Prefer memory of this NUMA node for the calling thread and all that it starts from now on.

    Never fails a replica: a kernel without NUMA, a node without memory, or a container whose seccomp profile
    forbids the call (Docker's does without CAP_SYS_NICE) leaves the kernel's default.

    Returns:
        The policy it got: ``"preferred:<node>"``, or ``"first-touch"`` for the kernel's default.
    """
    if not 0 <= numa_node < MAX_NODES:
        return FIRST_TOUCH
    error = _set_mempolicy(MPOL_PREFERRED, _node_mask(numa_node))
    if error:
        _log.info("set_mempolicy for NUMA node %d: %s; memory by first touch", numa_node, os.strerror(error))
        return FIRST_TOUCH
    return f"preferred:{numa_node}"


def _node_mask(numa_node: int) -> "ctypes.Array[ctypes.c_ulong]":
    word_bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask = (ctypes.c_ulong * (MAX_NODES // word_bits))()
    mask[numa_node // word_bits] = 1 << (numa_node % word_bits)
    return mask


def _set_mempolicy(mode: int, mask: "ctypes.Array[ctypes.c_ulong]") -> int:
    """Call the kernel through libnuma, else directly; return 0 or the error number."""
    # The kernel reads one bit less than it is told (mm/mempolicy.c, get_nodes), hence the + 1.
    arguments = (ctypes.c_int(mode), mask, ctypes.c_ulong(MAX_NODES + 1))
    try:
        result = ctypes.CDLL("libnuma.so.1", use_errno=True).set_mempolicy(*arguments)
    except (OSError, AttributeError):
        number = SYSCALL_NUMBERS.get(platform.machine())
        if number is None:
            return errno.ENOSYS
        result = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
    return ctypes.get_errno() if result != 0 else 0
