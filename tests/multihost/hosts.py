"""Makes hosts of one machine: each with a network, processes, shared memory and a disk of its own.

A host is a set of anonymous namespaces that one process holds, and so is the switch between them.  Nothing has a
name on the machine outside: when the holders are gone, by whatever way, processes, links, mounts and shared
memory are gone with them.  The kernel ends the holders when the process that made them dies, kill -9 included.

May not enter: Ray (cluster.py), what a fault is to prove (the tests).
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from tests.waiting import DEADLINE_S, wait_until

#: Nobody outside sees these addresses: the switch is in a namespace of its own.
_PREFIX = "10.77.0"

_INIT = Path(__file__).with_name("host_init.py")
_ENTER = ("--net", "--pid", "--uts", "--mount", "--ipc")
_NEW = ("unshare", *_ENTER, "--fork", "--kill-child=KILL")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str | None:
    """Return why this machine lets us make no hosts; ``None`` if it does."""
    try:
        tried = subprocess.run(
            ["unshare", *_ENTER, "--fork", "--mount-proc", "sh", "-c", "ip link add v0 type veth peer name v1"],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    except FileNotFoundError as error:
        return f"{error.filename} is not installed (apt-get install util-linux iproute2)"
    if tried.returncode:
        return f"namespaces cannot be made here: {tried.stderr.strip() or tried.returncode}"
    return None


class Switch:
    """Connects hosts: a bridge in a network namespace of its own."""

    def __init__(self) -> None:
        self._holder = _hold(["unshare", "--net", "--fork", "--kill-child=KILL", "sleep", "infinity"])
        self._pid = _child_of(self._holder.pid)
        self._hosts = 0
        self.run("ip", "link", "add", "br0", "type", "bridge")
        self.run("ip", "link", "set", "br0", "up")

    def run(self, *command: str) -> None:
        subprocess.run(["nsenter", "-t", str(self._pid), "--net", *command], check=True, timeout=DEADLINE_S)

    def plug_in(self, host_pid: int) -> tuple[str, str]:
        """Connect a host; returns the name of its port here and its address."""
        self._hosts += 1
        port, address = f"port{self._hosts}", f"{_PREFIX}.{self._hosts}"
        self.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host_pid))
        self.run("ip", "link", "set", port, "master", "br0", "up")
        inside = ["nsenter", "-t", str(host_pid), "--net", "ip"]
        subprocess.run([*inside, "addr", "add", f"{address}/24", "dev", "eth0"], check=True, timeout=DEADLINE_S)
        subprocess.run([*inside, "link", "set", "eth0", "up"], check=True, timeout=DEADLINE_S)
        # Nothing answers there; but who asks for the way to the world, as Ray does, learns the host's address.
        way_out = ["route", "add", "default", "via", f"{_PREFIX}.254"]
        subprocess.run([*inside, *way_out], check=True, timeout=DEADLINE_S)
        return port, address

    def close(self) -> None:
        _end(self._holder)


class Host:
    """Is one host: its processes see one another, its address, its disk, and nothing of other hosts."""

    def __init__(self, name: str, switch: Switch, local: Path) -> None:
        """Make a host.

        Args:
            name: its host name.
            switch: what it is connected to.
            local: an empty folder; seen from within the host, the host's own disk is there.
        """
        self.name = name
        self.local = local
        self._switch = switch
        self._holder = _hold(
            [*_NEW, "--mount-proc", sys.executable, str(_INIT), name, str(local)],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", f"host {name} could not be set up"
        self.pid = _child_of(self._holder.pid)
        self._namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        self._port, self.address = switch.plug_in(self.pid)
        #: Nothing has been done to it that it would not get over by itself.
        self.is_whole = True

    # --- what goes on there ---------------------------------------------------------------------------------

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        stdout: IO[str] | int | None = subprocess.DEVNULL,
        stderr: IO[str] | int | None = subprocess.DEVNULL,
    ) -> "subprocess.Popen[str]":
        """Start a command on this host; ends with this process at the latest."""
        return subprocess.Popen(
            ["nsenter", "-t", str(self.pid), *_ENTER, "--", *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )

    def run(self, *command: str) -> str:
        """Run a command to its good end; returns what it printed."""
        with self.start(command, os.environ, stdout=subprocess.PIPE) as process:
            printed, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, f"{command} on {self.name} ended with {process.returncode}"
        return printed

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Return the processes of this host whose command line begins with ``title``, by their numbers outside."""
        return [process for process in psutil.process_iter() if self._has(process, title)]

    def _has(self, process: psutil.Process, title: str) -> bool:
        try:
            return (
                process.pid != self.pid
                and os.readlink(f"/proc/{process.pid}/ns/pid") == self._namespace
                and process.status() != psutil.STATUS_ZOMBIE
                and " ".join(process.cmdline()).startswith(title)
            )
        except (psutil.Error, OSError):
            return False

    # --- faults ---------------------------------------------------------------------------------------------

    def kill_all_processes(self) -> None:
        """Send SIGKILL to everything that runs here; the host itself stays, and its link."""
        self.is_whole = False
        for process in self.processes():
            process.kill()
        assert wait_until(lambda: not self.processes())

    def power_off(self) -> None:
        """End the host at once: nobody on it says goodbye, as the link goes first."""
        self.link_down()
        _end(self._holder)

    def link_down(self) -> None:
        """Pull the plug: packets of either direction are lost from now on."""
        self.is_whole = False
        self._switch.run("ip", "link", "set", self._port, "down")

    def link_up(self) -> None:
        self._switch.run("ip", "link", "set", self._port, "up")

    def fill_disk(self) -> None:
        """Write until not a byte more fits onto the host's disk."""
        self.run("sh", "-c", f"cat /dev/zero > {self.local}/ballast 2>/dev/null || true")

    def free_disk(self) -> None:
        self.run("rm", "-f", f"{self.local}/ballast")

    def load_cores(self, cpus: Sequence[int]) -> list["subprocess.Popen[str]"]:
        """Keep these CPUs busy, one process each; who called ends them."""
        return [self.start(["taskset", "-c", str(cpu), "sh", "-c", "while :; do :; done"], {}) for cpu in cpus]

    def close(self) -> None:
        _end(self._holder)


def _hold(command: Sequence[str], stdout: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=stdout, text=True, preexec_fn=_die_with_parent
    )


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _child_of(holder: int) -> int:
    """Return the number of the process that ``unshare --fork`` made, once it is there."""
    children = Path(f"/proc/{holder}/task/{holder}/children")
    assert wait_until(lambda: children.read_text().strip())
    return int(children.read_text().split()[0])


def _end(holder: "subprocess.Popen[str]") -> None:
    """End a holder and, by way of it, all that its namespaces hold."""
    holder.kill()
    holder.wait(DEADLINE_S)
    if holder.stdout is not None:
        holder.stdout.close()
