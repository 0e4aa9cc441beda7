"""A head whose autoscaler is Ray's own, and whose cloud is Ray's fake one: nodes are processes beside the head.

It runs on a host of the bench, so that all of it ends with that host.  May not enter: what runs on it.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.multihost.hosts import Host, Switch
from tests.waiting import DEADLINE_S, wait_until

_REPOSITORY = Path(__file__).resolve().parents[2]
_PORT = 6379
_OBJECT_STORE_BYTES = 100_000_000

#: What Ray's fake provider needs.  ``ray.cluster_utils.AutoscalingCluster`` would read it from a file that the
#: wheel lacks, and would first end every Ray of this machine.
_CONFIG: dict[str, Any] = {
    "cluster_name": "fake_multinode",
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.1,
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{
        name: []
        for name in (
            "initialization_commands",
            "setup_commands",
            "head_setup_commands",
            "worker_setup_commands",
            "head_start_ray_commands",
            "worker_start_ray_commands",
            "cluster_synced_files",
            "rsync_exclude",
            "rsync_filter",
        )
    },
    "file_mounts_sync_continuously": False,
}


class AutoscaledHead:
    """Is a head with so many CPUs, to which nodes of one CPU may come."""

    def __init__(self, *, cpus: int, max_workers: int) -> None:
        # Short, since paths of Unix sockets below it may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="ova-"))
        self.local = self.folder / "l"
        self.local.mkdir()
        self._switch = Switch()
        self.host = Host("head", self._switch, self.local)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_prestart_worker_first_driver": "0",
            "RAY_enable_worker_prestart": "0",
            "PYTHONPATH": str(_REPOSITORY),
            "TMPDIR": str(self.local / "tmp"),
            "HOME": str(self.local),
            "OVRAY_LEASE_DIR": str(self.local / "tmp"),
        }
        self._start(cpus, max_workers)

    @property
    def address(self) -> str:
        return f"{self.host.address}:{_PORT}"

    def start(self, command: list[str], output: Path) -> "subprocess.Popen[str]":
        """Start a command on the head; what it prints and complains of goes to ``output`` and ``output.err``."""
        with open(output, "w") as printed, open(f"{output}.err", "w") as complaints:
            return self.host.start(command, self._environment, printed, complaints)

    def ask(self, source: str) -> Any:
        """Run Python on the head that prints one line of JSON; returns what that says, ``None`` if it failed."""
        command = [sys.executable, "-c", source, self.address]
        with self.host.start(command, self._environment, subprocess.PIPE, subprocess.DEVNULL) as process:
            answer, _ = process.communicate(timeout=DEADLINE_S)
        return json.loads(answer) if process.returncode == 0 else None

    def close(self) -> None:
        self.host.close()
        self._switch.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, cpus: int, max_workers: int) -> None:
        config = {
            **_CONFIG,
            "max_workers": max_workers,
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0},
                "worker": {
                    "resources": {"CPU": 1, "object_store_memory": _OBJECT_STORE_BYTES},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": max_workers,
                },
            },
        }
        file = self.folder / "autoscaler.json"
        file.write_text(json.dumps(config))
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={_PORT}", "--block"]
        command += [f"--autoscaling-config={file}", f"--num-cpus={cpus}", f"--temp-dir={self.local}/ray"]
        command += [f"--node-ip-address={self.host.address}", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        command += ["--include-dashboard=false", "--include-log-monitor=false", "--disable-usage-stats"]
        self.start(command, self.folder / "head.log")
        assert wait_until(lambda: self.nodes() == 1), (self.folder / "head.log").read_text()

    def nodes(self) -> int | None:
        """Count the nodes that Ray has; ``None`` while it does not answer."""
        found: int | None = self.ask(_NODES)
        return found

    def announced(self) -> Any:
        """Return what the autoscaler was told last; ``None`` before it was told anything."""
        return self.ask(_ANNOUNCED)


_NODES = """
import sys
from ray._raylet import GcsClient
from ray.core.generated import gcs_pb2
nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10).values()
print(sum(node.state == gcs_pb2.GcsNodeInfo.ALIVE for node in nodes))
"""

_ANNOUNCED = """
import sys
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL as channel
from ray._raylet import GcsClient
told = GcsClient(address=sys.argv[1]).internal_kv_get(channel, None, timeout=10)
print("null" if told is None else told.decode())
"""
