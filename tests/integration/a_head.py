"""A head node as ``ray start`` leaves it, in a folder of its own."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.waiting import wait_until

RAY = str(Path(sys.executable).with_name("ray"))

#: Ray gives a node 30 s to come up, which others on the machine may use up.
_STARTS = 3

_IS_UP = "Ray runtime started"


def a_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment_without_ray() -> dict[str, str]:
    """Return this process's environment without what it says of Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


@contextmanager
def a_head(environment: Mapping[str, str], **options: str | int) -> Iterator[str]:
    """Run a head node without a dashboard; yields its address.

    Args:
        environment: of its processes.
        options: further ones of ``ray start``, with ``_`` for ``-``.
    """
    port = a_free_port()
    # A temp dir of its own: the note of the last `ray start` in /tmp/ray is other people's.
    temp_dir = Path("/tmp", f"ovray-head-{port}")
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words += [f"--port={port}", f"--temp-dir={temp_dir}", "--include-dashboard=false", "--disable-usage-stats"]
    try:
        head = _started([RAY, "start", "--head", "--block", *words], environment, temp_dir)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            _end(head)
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)


def _started(command: list[str], environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    said = folder / "ray-start.log"
    for _ in range(_STARTS):
        with said.open("wb") as log:
            head = subprocess.Popen(
                command,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: _IS_UP in said.read_text() or head.poll() is not None, poll_s=0.1)  # noqa: B023
        if head.poll() is None and _IS_UP in said.read_text():
            return head
        _end(head)
    raise AssertionError(f"the head did not come up: {said.read_text()}")


def _end(head: subprocess.Popen[bytes]) -> None:
    family = _family_of(head.pid)
    for process in family:
        with suppress(psutil.NoSuchProcess):  # the first of them ends the others
            process.terminate()
    _, left = psutil.wait_procs(family, timeout=30)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()


def _family_of(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    return []
