"""Keeps OpenVINO's telemetry out of processes that ovray starts.

``import openvino`` reports the import over the network, from a thread that forks the process that multithreaded
OpenVINO has just been loaded into (openvino/tools/ovc/__init__.py, openvino_telemetry/backend/backend_ga4.py).
The forked child can wait for ever for a lock of the loader that nobody holds any more (seen with OpenVINO 2026.4.1
and openvino_telemetry 2025.2.0).  It outlives its parent and keeps what it inherited: pipes, and the sockets by
which Ray notices a death.  The user's own process is not ours to change, and so keeps its telemetry.

May not enter: openvino.
"""

import sys


def keep_telemetry_out() -> None:
    """Makes a later ``import openvino`` in this process find no telemetry package, which it can do without."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: "cannot be imported"
