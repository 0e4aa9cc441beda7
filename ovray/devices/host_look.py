"""Runs hostprobe.py on this host in a process of its own, beside whatever its caller does meanwhile.

A look takes a second, most of it the loading of OpenVINO; Ray takes longer than that to start.
May not enter: Ray, what the answer means (probe.py).
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType

#: What hostprobe.py gives: its exit code, output and errors.
Done = tuple[int, str, str]


class HostLook:
    """Is one look, which begins with the ``with`` block and is ended with it."""

    def __init__(self, flags: Sequence[str]) -> None:
        """Take the flags of hostprobe.py."""
        self._flags = flags

    def __enter__(self) -> "HostLook":
        self.began_s = time.time()
        # Files and not pipes: a pipe ends when the last process that inherited it does, and what a driver or a
        # plugin forked may outlive the look.
        self._output, self._errors = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ovray.devices.hostprobe", *self._flags],
            # The same modules as in this process: what a job ships is on sys.path and not always elsewhere.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
        )
        return self

    def wait(self, timeout_s: float) -> Done:
        """Return what came of it; of one that takes longer, that it did."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return -1, "", f"no answer within {timeout_s:g} s"
        self._output.seek(0)
        self._errors.seek(0)
        return code, self._output.read(), self._errors.read()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()
        self._errors.close()
