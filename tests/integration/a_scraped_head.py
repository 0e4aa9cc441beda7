"""A head node as ``ray start`` leaves it, whose Prometheus endpoint on loopback is told every second."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.waiting import wait_until

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapedHead:
    address: str
    metrics_port: int

    def scrape(self) -> list[Sample]:
        """Return what Prometheus would read of ovray now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        return [sample for family in families for sample in family.samples if sample.name.startswith("ray_ovray_")]

    @property
    def answers(self) -> bool:
        """Say whether its endpoint is there, which comes up last."""
        try:
            self.scrape()
        except OSError:
            return False
        return True

    def sum(self, name: str, **labels: str) -> float:
        """Add up the samples of a name that have these labels."""
        return sum(
            sample.value
            for sample in self.scrape()
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def a_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def a_scraped_head(cpus: int, options: Mapping[str, str] | None = None) -> Iterator[ScrapedHead]:
    """Run a head node; ``options`` are further ones of ``ray start``."""
    port, metrics_port = a_free_port(), a_free_port()
    temp_dir = Path("/tmp", f"ovray-scraped-{port}")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "disabled",
        "RAY_metrics_report_interval_ms": "1000",
        "RAY_worker_niceness": "0",
    }
    words = [f"--port={port}", f"--metrics-export-port={metrics_port}", f"--num-cpus={cpus}"]
    words += [f"--temp-dir={temp_dir}", "--include-dashboard=false"]
    words += [f"--{name}={value}" for name, value in (options or {}).items()]
    head = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--disable-usage-stats", *words],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        started = ScrapedHead(address=f"127.0.0.1:{port}", metrics_port=metrics_port)
        assert wait_until(lambda: started.answers), "the head did not come up"
        yield started
    finally:
        family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):  # the first of them ends the others
                process.terminate()
        _, left = psutil.wait_procs(family, timeout=30)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()
        shutil.rmtree(temp_dir, ignore_errors=True)
