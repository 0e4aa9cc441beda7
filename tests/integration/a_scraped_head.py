"""A head node as ``ray start`` leaves it, whose Prometheus endpoint on loopback is told every second."""

import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.integration.a_head import a_free_port, a_head, environment_without_ray
from tests.waiting import wait_until


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


@contextmanager
def a_scraped_head(cpus: int, options: Mapping[str, str] | None = None) -> Iterator[ScrapedHead]:
    """Run a head node; ``options`` are further ones of ``ray start``."""
    metrics_port = a_free_port()
    environment = {
        **environment_without_ray(),
        "RAY_AUTH_MODE": "disabled",
        "RAY_metrics_report_interval_ms": "1000",
        "RAY_worker_niceness": "0",
    }
    with a_head(environment, num_cpus=cpus, metrics_export_port=metrics_port, **(options or {})) as address:
        started = ScrapedHead(address=address, metrics_port=metrics_port)
        assert wait_until(lambda: started.answers), "the head's metrics are not to be had"
        yield started
