"""What goes on while faults happen, and what became of it: a load is started, watched and counted.

May not enter: faults.  A load's driver prints its ledger as JSON lines (scoring_driver.py); here they are read.
"""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow.parquet as pq

from tests.multihost.cluster import Cluster
from tests.multihost.hosts import Host
from tests.waiting import wait_until

#: A job that has not ended by then never will.
END_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Is one line of a driver's ledger."""

    at_s: float
    done: int
    starting: tuple[str, ...]
    counters: Mapping[str, int]
    #: By replica: ``state``, ``stalled``, ``outstanding``, ``done``.
    replicas: Mapping[str, Mapping[str, Any]]

    def holds_work(self, replica: str) -> bool:
        return replica in self.replicas and self.replicas[replica]["outstanding"] > 0

    def trusts(self, replica: str) -> bool:
        """Say whether a replica is there, and gets work."""
        known = self.replicas.get(replica)
        return known is not None and known["state"] == "ready" and not known["stalled"]


class Load(Protocol):
    """Is something that runs on a cluster while faults happen to it."""

    @property
    def text(self) -> str:
        """What the table calls it."""
        ...

    def standings(self) -> list[Standing]:
        """Return the driver's ledger up to now, oldest first."""
        ...

    def finish(self) -> "Count":
        """Wait for a good end and count what came of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Says what was lost and what came twice."""

    lost: int
    twice: int
    #: What the driver said at its end.
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOnHosts:
    """Says what is to be scored; travels to the driver as JSON."""

    address: str
    input: str
    output: str
    rows: int
    devices: str
    #: Parts of a quarter of a second: what is done shows soon.
    commit_every_s: float = 0.5
    batch_size: int = 32
    preprocess: str | None = None
    on_error: str = "raise"
    replica_timeout_s: float = 30.0


@dataclass(slots=True)
class DriverLoad:
    """Is a driver on a host of the bench that prints its ledger; leaves nothing running when the block ends."""

    cluster: Cluster
    #: Where the driver runs; ``None`` is the head.
    host: Host | None = None
    process: "subprocess.Popen[str] | None" = None
    _lines: list[dict[str, Any]] = field(default_factory=list)
    _standings: list[Standing] = field(default_factory=list)
    _printed: IO[str] | None = None
    _rest: str = ""

    @property
    def module(self) -> str:
        """What is run."""
        raise NotImplementedError

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What it is told."""
        raise NotImplementedError

    @property
    def log(self) -> str:
        """Begins the names of the files that it prints into."""
        raise NotImplementedError

    def begin(self) -> None:
        """Start the driver."""
        self._printed = open(f"{self.log}.log", "a+")  # noqa: SIM115 (``end`` closes it)
        self._printed.seek(0, 2)
        command = [sys.executable, "-m", self.module, json.dumps(self.arguments)]
        with open(f"{self.log}.log", "a") as stdout, open(f"{self.log}.err", "a") as stderr:
            self.process = self.cluster.start_driver(command, stdout, stderr, host=self.host)

    def end(self) -> None:
        """Kill the driver, unless it has ended, and read its last words."""
        self.kill()
        self._read()
        assert self._printed is not None
        self._printed.close()

    def kill(self) -> None:
        """End the driver, as kill -9 does, and wait until it is gone."""
        assert self.process is not None
        self.send(signal.SIGKILL)
        self.process.wait(END_TIMEOUT_S)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the driver, as a terminal or a job system does."""
        host = self.host or self.cluster.head
        for process in host.processes(f"{sys.executable} -m {self.module}"):
            process.send_signal(number)

    def standings(self) -> list[Standing]:
        self._read()
        return self._standings

    def lines_with(self, key: str) -> list[Mapping[str, Any]]:
        """Return what the driver has said of something other than its standing."""
        self._read()
        return [line for line in self._lines if key in line]

    def wait_for(self, condition: Callable[[Standing], object], *, since_s: float = 0.0) -> Standing:
        """Wait until the ledger says something; fails when it does not in time, or the driver ended before.

        Args:
            condition: on one line of the ledger.
            since_s: lines before that moment do not count.
        """
        assert self.process is not None
        process, seen = self.process, 0
        found: Standing | None = None

        def is_said() -> bool:
            nonlocal found, seen
            is_over = process.poll() is not None
            said = self.standings()
            new = (standing for standing in said[seen:] if standing.at_s > since_s)
            found = next(filter(condition, new), None)
            seen = len(said)
            assert found or not is_over, f"the driver ended with {process.returncode}: {self.last_words()}"
            return found is not None

        wait_until(is_said, END_TIMEOUT_S)
        assert found, f"not within {END_TIMEOUT_S:g} s; the last that was said: {self._standings[-1:]}"
        return found

    def report(self) -> Mapping[str, Any]:
        """Wait for a good end; returns what the driver said of it."""
        assert self.process is not None
        assert self.process.wait(END_TIMEOUT_S) == 0, self.last_words()
        self._read()
        report: Mapping[str, Any] = self._lines[-1]["report"]
        return report

    def fail(self) -> Mapping[str, Any]:
        """Wait for an end that is not good; returns what the driver said of it."""
        assert self.process is not None
        assert self.process.wait(END_TIMEOUT_S) != 0, self.last_words()
        self._read()
        assert "error" in self._lines[-1], self.last_words()
        return self._lines[-1]

    def last_words(self) -> str:
        self._read()
        return f"{self._standings[-1:]} {self._lines[-1:]} {Path(f'{self.log}.err').read_text()[-2000:]}"

    def _read(self) -> None:
        assert self._printed is not None
        if self._printed.closed:
            return
        *lines, self._rest = (self._rest + self._printed.read()).split("\n")
        # Ray prints there, too.
        for said in (json.loads(line) for line in lines if line.startswith("{")):
            if "standing" in said:
                self._standings.append(_standing(said))
            else:
                self._lines.append(said)


@dataclass(slots=True, kw_only=True)
class ScoringLoad(DriverLoad):
    """Is a scoring job whose rows are numbered."""

    job: JobOnHosts

    @property
    def text(self) -> str:
        return f"scoring {self.job.rows:,} rows"

    @property
    def module(self) -> str:
        return "tests.multihost.scoring_driver"

    @property
    def arguments(self) -> Mapping[str, Any]:
        return asdict(self.job)

    @property
    def log(self) -> str:
        return self.job.output

    def __enter__(self) -> "ScoringLoad":
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def finish(self) -> Count:
        return self.count(self.report())

    def rows_there(self) -> int:
        """Count the rows in the output folder."""
        return sum(pq.read_metadata(part).num_rows for part in Path(self.job.output).glob("part-*.parquet"))

    def count(self, report: Mapping[str, Any]) -> Count:
        """Count the rows that the output folder holds."""
        times = Counter(pq.read_table(self.job.output, columns=["number"]).column("number").to_pylist())
        return Count(
            lost=sum(number not in times for number in range(self.job.rows)),
            twice=sum(count > 1 for count in times.values()),
            report=report,
        )


def _standing(line: Mapping[str, Any]) -> Standing:
    said = line["standing"]
    return Standing(
        at_s=line["at_s"],
        done=said["done"],
        starting=tuple(said["starting"]),
        counters=said["counters"],
        replicas=said["replicas"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Says what a fault at one replica meant for the load."""

    #: The longest time in which no row was done by the others.
    others_s: float
    #: Until what the victim held was with somebody else; ``None`` if that never was.
    taken_over_s: float | None
    #: Until the victim, or its replacement, was trusted with work again; ``None`` if it was not.
    back_s: float | None


def effect_on(load: Load, victim: str, since_s: float, until_s: float = float("inf")) -> Effect:
    """Read the effect of a fault out of the driver's ledger."""
    standings = load.standings()
    taken_over_s = first_s(standings, since_s, lambda standing: not standing.trusts(victim))
    back_s = None
    if taken_over_s is not None:
        over_s = since_s + taken_over_s
        back_s = first_s(standings, over_s, lambda standing: standing.trusts(victim))
        back_s = None if back_s is None else back_s + taken_over_s
    return Effect(
        others_s=longest_silence_s(standings, since_s, until_s, without=victim),
        taken_over_s=taken_over_s,
        back_s=back_s,
    )


def rate(load: Load, since_s: float, until_s: float) -> float:
    """Return the rows done a second within a span of time."""
    within = [standing for standing in load.standings() if since_s <= standing.at_s <= until_s]
    return (within[-1].done - within[0].done) / (within[-1].at_s - within[0].at_s)


def replica_process(host: Host) -> int:
    """Return the process of the one replica of a host, once it is there."""
    assert wait_until(lambda: host.processes("ray::Replica")), (
        f"no replica on {host.name}, but {[' '.join(process.cmdline())[:80] for process in host.processes()]}"
    )
    return host.processes("ray::Replica")[0].pid


def longest_silence_s(standings: list[Standing], since_s: float, until_s: float, without: str = "") -> float:
    """Return the longest time without a row done by any replica but one, within a span of time.

    Only while another is trusted with work and rows are to be done; a silence that does not end counts, too.
    """
    if standings:
        until_s = min(until_s, next(each.at_s for each in standings if each.done == standings[-1].done))
    last_s, rows, are_there, longest_s = since_s, None, True, 0.0
    for standing in standings:
        others = [replica for replica in standing.replicas if replica != without]
        now = sum(standing.replicas[replica]["done"] for replica in others)
        if standing.at_s > until_s:
            break
        if standing.at_s > since_s:
            longest_s = max(longest_s, standing.at_s - last_s if are_there else 0.0)
            if rows is None or now > rows or not are_there:
                last_s = standing.at_s
        rows, are_there = now, any(map(standing.trusts, others))
    return longest_s


def first_s(standings: list[Standing], since_s: float, condition: Callable[[Standing], object]) -> float | None:
    """Return how long after a moment the ledger first said something; ``None`` if it never did."""
    for standing in standings:
        if standing.at_s > since_s and condition(standing):
            return standing.at_s - since_s
    return None
