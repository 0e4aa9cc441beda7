"""Calls set_mempolicy(2), through libnuma where it is installed.

May not enter: the choice of a policy.  That is replica/memory.py.
"""

import ctypes
import errno
import platform

#: From linux/mempolicy.h.
MPOL_PREFERRED = 1

#: Of set_mempolicy, where libnuma is not installed.
SYSCALL_NUMBERS = {"x86_64": 238, "aarch64": 237}

#: The kernel's own limit (CONFIG_NODES_SHIFT=10) is 1,024 nodes.
MAX_NODES = 1024


def prefer_node(numa_node: int) -> int:
    """Prefer memory of this node for the calling thread and those it starts later; return 0 or an error number."""
    if not 0 <= numa_node < MAX_NODES:
        return errno.EINVAL
    # The kernel reads one bit less than it is told (mm/mempolicy.c, get_nodes), hence the + 1.
    return _set_mempolicy(ctypes.c_int(MPOL_PREFERRED), _node_mask(numa_node), ctypes.c_ulong(MAX_NODES + 1))


def _node_mask(numa_node: int) -> "ctypes.Array[ctypes.c_ulong]":
    word_bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask = (ctypes.c_ulong * (MAX_NODES // word_bits))()
    mask[numa_node // word_bits] = 1 << (numa_node % word_bits)
    return mask


def _set_mempolicy(mode: ctypes.c_int, mask: "ctypes.Array[ctypes.c_ulong]", max_node: ctypes.c_ulong) -> int:
    try:
        result = ctypes.CDLL("libnuma.so.1", use_errno=True).set_mempolicy(mode, mask, max_node)
    except (OSError, AttributeError):
        number = SYSCALL_NUMBERS.get(platform.machine())
        if number is None:
            return errno.ENOSYS
        libc = ctypes.CDLL(None, use_errno=True)
        result = libc.syscall(ctypes.c_long(number), mode, mask, max_node)
    return ctypes.get_errno() if result != 0 else 0
