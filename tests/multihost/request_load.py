"""Requests that go on while faults happen, each with a number by which its answer is known.

May not enter: faults.  What the driver prints: requests_driver.py.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tests.multihost.loads import Count, DriverLoad

REQUESTS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestsOnHosts:
    """Says what is to be asked; travels to the driver as JSON."""

    address: str
    devices: str
    #: Requests begin when so many are ready.
    replicas: int
    #: Begins the names of the files that the driver prints into.
    log: str
    requests: int = REQUESTS
    #: Most of the second half waits until ``hurry`` lies in the shared folder.
    holds_back: bool = False
    #: The number that no process survives.
    poison: int | None = None
    #: The replica that gets a very large request when ``meal`` lies in the shared folder.
    fed: str | None = None


@dataclass(slots=True, kw_only=True)
class RequestLoad(DriverLoad):
    """Is a script that asks and asks."""

    asked: RequestsOnHosts

    @property
    def text(self) -> str:
        return f"{self.asked.requests:,} requests"

    @property
    def module(self) -> str:
        return "tests.multihost.requests_driver"

    @property
    def arguments(self) -> Mapping[str, Any]:
        return asdict(self.asked)

    @property
    def log(self) -> str:
        return self.asked.log

    def __enter__(self) -> "RequestLoad":
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def finish(self) -> Count:
        """Wait for the end, at which every answer must be right and every request sent."""
        report = self.report()
        assert report["wrong"] == 0, f"answers of other requests: {report}"
        assert report["sent"] == self.asked.requests == report["answered"] + report["failed"] + report["lost"]
        return Count(lost=report["lost"], twice=report["twice"], report=report)
