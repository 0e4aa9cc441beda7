"""Starts a user's script on a host of the bench, and reads what it says (asking_script.py)."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.multihost.cluster import Cluster
from tests.multihost.hosts import Host
from tests.waiting import wait_until

#: A script that has not ended by then never will.
END_TIMEOUT_S = 200.0

_MODULE = "tests.multihost.asking_script"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingScript:
    """Says what the script is to do; travels to it as JSON."""

    address: str
    devices: str
    replica_timeout_s: float = 30.0
    #: For how long it asks, unless something ends it.
    for_s: float = 120.0


class RunningScript:
    """Is a script that runs; leaves nothing running when the block ends."""

    def __init__(self, cluster: Cluster, script: AskingScript, host: Host, output: Path) -> None:
        self._cluster = cluster
        self._script = script
        self._host = host
        self._said = Path(f"{output}.script")
        self._complaints = Path(f"{output}.script.err")

    def __enter__(self) -> "RunningScript":
        with open(self._said, "w") as said, open(self._complaints, "w") as complaints:
            self.process: subprocess.Popen[str] = self._cluster.start_driver(
                [sys.executable, "-m", _MODULE, json.dumps(asdict(self._script))],
                said,
                complaints,
                host=self._host,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self.process.wait(END_TIMEOUT_S)

    def send(self, number: signal.Signals) -> None:
        for process in self._host.processes(f"{sys.executable} -m {_MODULE}"):
            process.send_signal(number)

    def lines(self) -> list[dict[str, Any]]:
        whole = self._said.read_text().split("\n")[:-1]
        return [json.loads(line) for line in whole if line.startswith("{")]

    def wait_for_answers(self, count: int, since_s: float = 0.0) -> Mapping[str, Any]:
        """Wait until so many more answers have come since a moment."""

        def enough() -> Mapping[str, Any] | None:
            later = [line for line in self.lines() if "answered" in line and line["at_s"] > since_s]
            return later[-1] if later and later[-1]["answered"] - later[0]["answered"] >= count else None

        return self._wait(enough)

    def ended(self) -> Mapping[str, Any]:
        """Wait until the script says what became of its requests."""
        return self._wait(lambda: next((line["ended"] | line for line in self.lines() if "ended" in line), None))

    def _wait(self, look: Callable[[], Mapping[str, Any] | None]) -> Mapping[str, Any]:
        found: list[Mapping[str, Any]] = []

        def is_there() -> bool:
            told = look()
            found.extend([told] if told is not None else [])
            return bool(found) or self.process.poll() is not None

        end_s = time.monotonic() + END_TIMEOUT_S
        assert wait_until(is_there, END_TIMEOUT_S), f"not within {END_TIMEOUT_S:g} s: {self.last_words()}"
        assert found or (look() is not None and time.monotonic() < end_s), self.last_words()
        return found[0] if found else self._wait(look)

    def last_words(self) -> str:
        return f"{self.process.poll()} {self.lines()[-2:]} {self._complaints.read_text()[-3000:]}"
