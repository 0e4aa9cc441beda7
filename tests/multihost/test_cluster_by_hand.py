"""Follows ``cluster/README.md`` as a person does who has three machines and SSH, command by command.

The machines are hosts of the bench that share a folder, as over NFS; at first nothing runs on them.
Only the installation is left out: it would be three times that of this checkout.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ovray import digits
from tests.multihost import hosts
from tests.multihost.cluster import clear_what_dead_runs_left, own_folder
from tests.multihost.hosts import Host, Switch
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "cluster" / "README.md").read_text()
SECTION = re.split(r"^## ", README, flags=re.MULTILINE)[1]

#: Hosts of the bench have half a gigabyte of shared memory.
SMALL_STORE = " -- --object-store-memory=100000000"
COMMAND_TIMEOUT_S = 200.0

_SCRAPE = (
    "import sys, urllib.request as web; "
    "[print(web.urlopen(url, timeout=60).read().decode()) for url in sys.argv[1:]]"
)


class Machines:
    """Is three machines, of which the first is to be the head; ``close`` takes all of them away."""

    def __init__(self) -> None:
        clear_what_dead_runs_left()
        self._folder = own_folder()
        local = self._folder / "l"
        local.mkdir(parents=True)
        self.shared = self._folder / "shared"
        self.shared.mkdir()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OVRAY_"))},
            # Each machine has a disk of its own there.
            "HOME": str(local),
            "TMPDIR": str(local / "tmp"),
            "RAY_TMPDIR": str(local),
            "OVRAY_LEASE_DIR": str(local / "tmp"),
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
            # What `. .venv/bin/activate` brings about.
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "PYTHON": sys.executable,
            "PYTHONPATH": str(REPOSITORY),
        }
        self._switch = Switch()
        self.head, self.second, self.third = (Host(name, self._switch, local) for name in ("head", "w0", "w1"))

    def type(self, host: Host, command: str, more: str = "", **environment: str) -> str:
        """Types what the page says into a shell on a host; returns what it printed."""
        assert f"$ {command}\n" in SECTION, f"the page has no {command!r}"
        return self.run(host, command + more, **environment)

    def run(self, host: Host, command: str, **environment: str) -> str:
        code, printed = self.tried(host, command, **environment)
        assert code == 0, f"{command} on {host.name}: {printed}"
        return printed

    def tried(self, host: Host, command: str, **environment: str) -> tuple[int, str]:
        command = command.replace("192.0.2.10", self.head.address).replace("/shared", str(self.shared))
        # In a file: the daemons of a Ray keep a pipe open for as long as they live.
        with tempfile.TemporaryFile("w+") as printed:
            shell = ["bash", "-c", f"cd {REPOSITORY} && {command}"]
            everything = {**self._environment, **environment}
            with host.start(shell, everything, printed, subprocess.STDOUT) as process:
                code = process.wait(COMMAND_TIMEOUT_S)
            printed.seek(0)
            return code, printed.read()

    def close(self) -> None:
        for host in (self.head, self.second, self.third):
            host.close()
        self._switch.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture
def machines() -> Iterator[Machines]:
    reason = hosts.why_not()
    if reason is not None:
        pytest.skip(f"no test over several hosts: {reason}")
    machines = Machines()
    try:
        yield machines
    finally:
        machines.close()


def test_the_page_leads_from_three_machines_to_a_scored_data_set(machines: Machines) -> None:
    head, others = machines.head, (machines.second, machines.third)

    # a head, with a token
    machines.type(head, "cluster/start_node.sh --head", SMALL_STORE)
    token = machines.run(head, "stat -c %a ~/.ray/auth_token && cat ~/.ray/auth_token")
    assert token.startswith("600\n")
    assert len(token) > 20

    # others: without the token they are told what is missing, and with it they join
    join = "cluster/start_node.sh --address 192.0.2.10:6379"
    for host in others:
        code, printed = machines.tried(host, join)
        assert code == 2
        assert "copy that of the head here" in printed
    machines.run(head, "cp ~/.ray/auth_token /shared/token")
    for host in others:
        # What scp does.
        machines.run(host, "mkdir -p ~/.ray && cp /shared/token ~/.ray/auth_token")
        machines.type(host, join, SMALL_STORE)

    # a look at it
    with_token = {"RAY_AUTH_MODE": "token"}
    assert f"$ export {'='.join(*with_token.items())}\n" in SECTION
    found: list[dict[str, Any]] = []

    def all_are_found() -> bool:
        printed = machines.type(head, "ovray devices", " --json", **with_token)
        found[:] = json.loads(printed.splitlines()[-1])["hosts"]
        return {host["host"] for host in found} == {"head", "w0", "w1"}

    assert wait_until(all_are_found), found
    for host in found:
        assert host["labels"]["ovray-numa-nodes"] == str(len(host["numa_nodes"]))
    assert "$ ovray doctor\n" in SECTION
    code, printed = machines.tried(head, "ovray doctor --json", **with_token)
    findings = json.loads(printed.splitlines()[-1])["findings"]
    assert [one["status"] for one in findings if one["check"] == "token-auth"] == ["ok"], printed
    assert code in (0, 1)

    # a data set
    machines.type(head, "cp -r ovray/digits /shared/")
    (submit,) = re.findall(r"^\$ (ray job submit .*)$", SECTION, re.MULTILINE)
    machines.run(head, submit, **with_token)
    scored = pq.read_table(machines.shared / "digits-scores").to_pandas()
    assert len(scored) == pq.read_metadata(digits.held_out_file()).num_rows
    assert (scored[digits.DIGIT_COLUMN] == scored[digits.LABEL_COLUMN]).mean() > 0.95
    machines.run(head, re.findall(r"^\$ (python -c .*)$", SECTION, re.MULTILINE)[0])

    # a trace that opens, with what was done on which machine
    trace = json.loads((machines.shared / "digits-trace.json").read_text())
    assert {"head", "w0", "w1"} & set(re.findall(r"head|w0|w1", json.dumps(trace["traceEvents"])))

    # figures, from the endpoints that Prometheus is told of
    listed = json.loads(machines.run(head, "cat $RAY_TMPDIR/ray/prom_metrics_service_discovery.json"))
    targets = [target for group in listed for target in group["targets"]]
    for host in (head, *others):
        assert any(target.startswith(f"{host.address}:") for target in targets), targets

    def rows_in_figures() -> float:
        urls = " ".join(f"http://{target}/metrics" for target in targets)
        scraped = machines.run(head, f"python -c '{_SCRAPE}' {urls}")
        return sum(
            float(count) for count in re.findall(r"^ray_ovray_rows_total\{.*\} (\S+)$", scraped, re.MULTILINE)
        )

    assert wait_until(lambda: rows_in_figures() == len(scored))
