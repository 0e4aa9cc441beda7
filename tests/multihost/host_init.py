"""Is the first process of a host of the bench: sets up what its namespaces need, then collects dead children.

Run by hosts.py as ``python host_init.py NAME SHARED LOCAL``; imports nothing but the standard library.
Everything that is set up here lives in this process's own namespaces, and ends with it.
"""

import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

#: What plasma and other users of shared memory get, and what a host's disk holds.
SHARED_MEMORY = "512m"
DISK = "256m"


def main() -> None:
    name, local = sys.argv[1], Path(sys.argv[2])
    socket.sethostname(name)
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "tmpfs", "-o", f"size={SHARED_MEMORY},mode=1777", "tmpfs", "/dev/shm")
    # The same path on each host, and on each host a disk of its own: Ray wants one temp dir for the whole cluster.
    run("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=1777", "tmpfs", str(local))
    (local / "tmp").mkdir(mode=0o1777)
    # What ovray tells machines apart by.
    (local / "boot_id").write_text(f"{uuid.uuid4()}\n")
    run("mount", "--bind", str(local / "boot_id"), "/proc/sys/kernel/random/boot_id")
    # The kernel buries children of a process that does not care for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        signal.pause()


def run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
