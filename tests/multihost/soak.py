"""Has every fault of the bench happen at random for some minutes, and then adds up.

``python -m tests.multihost.soak --minutes 10 [--seed N]``, as root: a script asks all the time, scoring jobs
follow each other, and so do faults.  It ends with 0 when every request has one right answer, every row is there
once, and the script's process holds no more memory, files and threads than after its first tenth.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.integration.scoring_job import write_numbered_digits
from tests.multihost import hosts
from tests.multihost.cluster import Cluster
from tests.multihost.conftest import HOSTS, ROWS
from tests.multihost.loads import JobOnHosts, ScoringLoad
from tests.multihost.request_load import RequestLoad, RequestsOnHosts
from tests.multihost.soak_faults import FAULTS, Victims

#: Between faults: what one did is mostly over when the next comes, and sometimes not.
PAUSE_S = (0.5, 4.0)

#: What may be there at the end beyond what was there after the first tenth.  Memory: allocators keep what a burst
#: of retries took once.  Files and threads: connections to replicas that Ray has not closed yet.
MORE_MEMORY_SHARE = 0.10
MORE_MEMORY_MB = 40.0
MORE_FILES = 24
MORE_THREADS = 16

#: Simulated devices on every host, and real ones, which can die of an input.
REQUEST_DEVICES = "w*/SIM*3?ms=3&answer=sum&trouble={trouble},w*/CPU"
JOB_DEVICES = "w*/SIM*3?ms=1&trouble={trouble}"


@dataclass(slots=True)
class Sums:
    """Is what is counted up to now."""

    jobs: int = 0
    rows_lost: int = 0
    rows_twice: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


class Soak:
    """Runs the loads and the faults."""

    def __init__(self, cluster: Cluster, seed: int, seconds: float) -> None:
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._seconds = seconds
        self._trouble = f"{cluster.local}/tmp/trouble"
        self._data = cluster.shared / "in.parquet"
        self.sums = Sums()

    def run(self) -> Sums:
        """Runs for the time that was asked for."""
        write_numbered_digits(self._data, rows=ROWS)
        self._cluster.set_up(HOSTS)
        asked = RequestsOnHosts(
            address=self._cluster.address,
            devices=REQUEST_DEVICES.format(trouble=self._trouble),
            replicas=2 * len(HOSTS),
            log=str(self._cluster.shared / "requests"),
            until_hurried=True,
            fed="w0/CPU.0#0",
        )
        with RequestLoad(self._cluster, asked=asked, host=self._cluster.hosts["w0"]) as script:
            script.wait_for(lambda standing: standing.done > 0)
            victims = Victims(self._cluster, script, self._chance, self._trouble)
            self._make_trouble(victims)
            (self._cluster.shared / "hurry").touch()
            report = script.report()
            self._judge_requests(report, victims.poisoned)
            self._judge_process([line["process"] for line in script.lines_with("process")])
        return self.sums

    def _make_trouble(self, victims: Victims) -> None:
        end_s = time.monotonic() + self._seconds
        job = self._start_job()
        while time.monotonic() < end_s:
            time.sleep(self._chance.uniform(*PAUSE_S))
            name = self._chance.choice(sorted(FAULTS))
            say(f"{end_s - time.monotonic():6.0f} s left: {name}")
            FAULTS[name](victims)
            self.sums.faults[name] = self.sums.faults.get(name, 0) + 1
            if job.process is not None and job.process.poll() is not None:
                self._judge_job(job)
                job = self._start_job()
        self._judge_job(job)

    def _start_job(self) -> ScoringLoad:
        self.sums.jobs += 1
        job = JobOnHosts(
            address=self._cluster.address,
            input=str(self._data),
            output=str(self._cluster.shared / f"scores-{self.sums.jobs}"),
            rows=ROWS,
            devices=JOB_DEVICES.format(trouble=self._trouble),
        )
        load = ScoringLoad(self._cluster, job=job)
        load.begin()
        return load

    def _judge_job(self, load: ScoringLoad) -> None:
        try:
            count = load.finish()
        finally:
            load.end()
        self.sums.rows_lost += count.lost
        self.sums.rows_twice += count.twice
        if count.lost or count.twice:
            self.sums.complaints.append(f"scoring job {self.sums.jobs}: {count.lost} lost, {count.twice} twice")

    def _judge_requests(self, report: Mapping[str, object], poisoned: int) -> None:
        counted = {name: report[name] for name in ("sent", "answered", "lost", "twice", "wrong", "failed")}
        say(f"requests: {counted}; {poisoned} of them were poison")
        if (report["lost"], report["twice"], report["wrong"]) != (0, 0, 0):
            self.sums.complaints.append(f"requests: {counted}")
        if report["failed"] != poisoned:
            self.sums.complaints.append(f"{report['failed']} failed, {poisoned} were poison: {report['errors']}")

    def _judge_process(self, told: list[Mapping[str, Any]]) -> None:
        """Hold the last tenth of the run against the second."""
        tenth = max(1, len(told) // 10)
        limits: dict[str, Callable[[float], float]] = {
            "rss_mb": lambda before: before * (1 + MORE_MEMORY_SHARE) + MORE_MEMORY_MB,
            "files": lambda before: before + MORE_FILES,
            "threads": lambda before: before + MORE_THREADS,
        }
        for name, limit in limits.items():
            before, after = (
                statistics.median(each[name] for each in part) for part in (told[tenth : 2 * tenth], told[-tenth:])
            )
            say(f"{name}: {before:.0f} after the first tenth, {after:.0f} at the end, at most {limit(before):.0f}")
            if after > limit(before):
                what = f", of Python's at the end {told[-1]['python_threads']}" if name == "threads" else ""
                self.sums.complaints.append(f"{name} grew from {before:.0f} to {after:.0f}{what}")


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    reason = hosts.why_not()
    if reason is not None:
        say(f"no soak here: {reason}")
        return 1
    seed = random.SystemRandom().randrange(1 << 30) if given.seed is None else given.seed
    say(f"seed {seed}, {given.minutes:g} minutes")
    cluster = Cluster()
    try:
        sums = Soak(cluster, seed, given.minutes * 60).run()
    finally:
        cluster.close()
    say(f"faults: {dict(sorted(sums.faults.items()))}")
    say(f"scoring: {sums.jobs} jobs of {ROWS:,} rows, {sums.rows_lost} rows lost, {sums.rows_twice} twice")
    for complaint in sums.complaints:
        say(f"FAILED: {complaint}")
    say(f"{'FAILED' if sums.complaints else 'all is well'}; make soak SEED={seed} has the same faults again")
    return 1 if sums.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
