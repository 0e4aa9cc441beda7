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
    #: So many are asked, or two more: there are two who ask.
    requests: int = REQUESTS
    #: And more of them, until ``hurry`` lies in the shared folder.
    until_hurried: bool = False
    #: The number that no process survives.
    poison: int | None = None
    #: The replica that gets a very large request when ``meal`` lies in the shared folder.
    fed: str | None = None


@dataclass(slots=True, kw_only=True)
class RequestLoad(DriverLoad):
    """Is a script that asks and asks."""

    asked: RequestsOnHosts
    #: How many it were; known at the end.
    sent: int = 0

    @property
    def text(self) -> str:
        return f"{self.sent or self.asked.requests:,} requests"

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
        """Wait for the end, at which every request must have been sent, and no answer be another's."""
        report = self.report()
        self.sent = report["sent"]
        assert report["wrong"] == 0, f"answers of other requests: {report}"
        assert self.asked.requests <= self.sent == report["answered"] + report["failed"] + report["lost"], report
        return Count(lost=report["lost"], twice=report["twice"], report=report)
