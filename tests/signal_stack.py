"""Lets signals arrive where OpenVINO was loaded more than once: see ``_core`` in the replica's compiling.py."""

import ctypes

_SS_DISABLE = 2


class _Stack(ctypes.Structure):
    """Is the ``stack_t`` of sigaltstack(2)."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


def use_the_plain_stack() -> None:
    """Has handlers of signals run on the stack that this thread has anyway."""
    done = ctypes.CDLL(None, use_errno=True).sigaltstack(ctypes.byref(_Stack(ss_flags=_SS_DISABLE)), None)
    assert done == 0, f"sigaltstack: error {ctypes.get_errno()}"
