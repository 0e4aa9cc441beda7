"""A real Ray cluster over several hosts of the bench, with a token, as on machines that one rents.

May not enter: faults (hosts.py), what runs on it (the loads).
"""

import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from tests.multihost.hosts import Host, Switch
from tests.waiting import DEADLINE_S, wait_until

#: What the first run after a killed one clears, told apart by the number of the process that made it.
_FOLDER = "ovm"
_clusters = itertools.count()

_REPOSITORY = Path(__file__).resolve().parents[2]
_RAY = str(Path(sys.executable).with_name("ray"))
_PORT = 6379
_OBJECT_STORE_BYTES = 100_000_000

#: Ray's Python processes need most of a core each to start; more of them than needed cost more than they bring.
_FEW_PROCESSES = {"RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0"}

#: Options of a head that takes no jobs; the dashboard's processes would cost every test here their start.
WITHOUT_DASHBOARD = ("--include-dashboard=false",)


class Cluster:
    """Owns a head and its hosts; ``close`` ends all of them."""

    def __init__(
        self, head_options: Sequence[str] = WITHOUT_DASHBOARD, environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts a head.

        Args:
            head_options: for its ``ray start``.
            environment: of every Ray and driver here, beside what all clusters of the bench have.
        """
        clear_what_dead_runs_left()
        self.folder = own_folder()
        self.local = self.folder / "l"
        self.local.mkdir(parents=True)
        #: Is the same folder on all hosts, and outside.
        self.shared = self.folder / "shared"
        self.shared.mkdir()
        self.hosts: dict[str, Host] = {}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            **_FEW_PROCESSES,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "PYTHONPATH": str(_REPOSITORY),
            "TMPDIR": str(self.local / "tmp"),
            "HOME": str(self.local),
            "OVRAY_LEASE_DIR": str(self.local / "tmp"),
            "OVRAY_TEST_SHARED": str(self.shared),
            # What a shell of the user's has there, once .venv/bin/activate was read.
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            **(environment or {}),
        }
        self._switch = Switch()
        self.head = self._add("head", ["--head", f"--port={_PORT}", *head_options], cpus=0)

    @property
    def address(self) -> str:
        """What drivers connect to."""
        return f"{self.head.address}:{_PORT}"

    def add_host(self, name: str, cpus: int = 4) -> Host:
        """Add a host whose raylet joins the cluster; returns when it runs, which is before it has joined."""
        return self._add(name, [f"--address={self.address}"], cpus)

    def start_driver(
        self,
        command: Sequence[str],
        stdout: IO[str] | int | None,
        stderr: IO[str] | int | None,
        environment: Mapping[str, str] | None = None,
        host: Host | None = None,
    ) -> "subprocess.Popen[str]":
        """Start a command on a host, by default the head, with all that it needs to use the cluster."""
        return (host or self.head).start(command, {**self._environment, **(environment or {})}, stdout, stderr)

    def remove(self, host: Host) -> None:
        """End a host in a way that Ray notices at once."""
        del self.hosts[host.name]
        host.link_up()
        host.kill_all_processes()
        host.close()

    def set_up(self, names: Sequence[str]) -> None:
        """Have these hosts and no others, each in good health; returns when all are in Ray's books."""
        alive = self.nodes() if len(self.hosts) > 1 else {}
        removed = []
        for host in [host for host in self.hosts.values() if host is not self.head]:
            if host.name not in names or host.name not in alive or not host.is_whole:
                self.remove(host)
                removed.append(host.name)
        for name in names:
            if name not in self.hosts:
                self.add_host(name)
        self.wait_for(names, but_not={alive[name] for name in removed if name in alive})

    def wait_for(self, names: Sequence[str], but_not: Collection[str] = ()) -> None:
        """Wait until Ray has these hosts, each once, and no others but the head, in its books.

        Args:
            names: of the hosts.
            but_not: Ray's ids of hosts that were removed: Ray may take seconds to notice, and until then they pass
                for those that have their names now.
        """
        wanted = sorted(["head", *names])

        def are_there() -> bool:
            books = self._books()
            return sorted(name for name, _ in books) == wanted and not {id for _, id in books} & set(but_not)

        assert wait_until(are_there), self._log_of_head()

    def nodes(self) -> dict[str, str]:
        """Return Ray's id of each living host, by its name."""
        return dict(self._books())

    def _books(self) -> list[tuple[str, str]]:
        """Return name and id of each host that lives by Ray's books: also of one whose end it has not noticed."""
        return [(name, node_id) for name, node_id in json.loads(self.ask("nodes"))]

    def drain(self, host: Host) -> None:
        """Tell Ray that a host is about to be taken away, as a cloud's notice of preemption does."""
        assert json.loads(self.ask("drain", self.nodes()[host.name])) is True

    def leased(self, host: Host) -> str:
        """Return the CPUs of a host that replicas hold, as text; empty where none is."""
        script = "from ovray.devices.leases import CoreLeases; print(*CoreLeases().held())"
        with self.start_driver([sys.executable, "-c", script], subprocess.PIPE, None, host=host) as process:
            printed, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
        return printed.strip()

    def ask(self, *question: str) -> str:
        """Ask the head, see head_questions.py."""
        command = [sys.executable, "-m", "tests.multihost.head_questions", self.address, *question]
        with self.start_driver(command, subprocess.PIPE, subprocess.PIPE) as process:
            answer, complaint = process.communicate(timeout=DEADLINE_S)
        return answer if process.returncode == 0 else self._no_answer(complaint)

    def _log_of_head(self) -> str:
        return (self.folder / "head.log").read_text()[-2000:]

    def _no_answer(self, complaint: str) -> str:
        # A head that is still starting.
        assert "Failed to connect" in complaint or "timed out" in complaint.lower(), complaint
        return "[]"

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
        self._switch.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _add(self, name: str, options: Sequence[str], cpus: int) -> Host:
        host = Host(name, self._switch, self.local)
        self.hosts[name] = host
        self.start_ray(host, options, cpus)
        return host

    def start_ray(self, host: Host, options: Sequence[str], cpus: int) -> None:
        command = [_RAY, "start", *options, f"--node-ip-address={host.address}", f"--num-cpus={cpus}", "--block"]
        command += [f"--object-store-memory={_OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        command += ["--include-log-monitor=false", f"--temp-dir={self.local}/ray"]
        with open(self.folder / f"{host.name}.log", "w") as log:
            host.start(command, self._environment, log, subprocess.STDOUT)


def own_folder() -> Path:
    """Return where a cluster of this process may keep its files; short, as paths of sockets have 107 bytes."""
    return Path(tempfile.gettempdir(), f"{_FOLDER}{next(_clusters)}-{os.getpid()}")


def clear_what_dead_runs_left() -> None:
    """Remove the folders of runs whose process is gone; all else of theirs ended with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        if not psutil.pid_exists(int(folder.name.rpartition("-")[2])):
            shutil.rmtree(folder, ignore_errors=True)
