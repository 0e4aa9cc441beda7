"""Gives ``ovray score`` to a cluster with ``ray job submit``, as a person far away does, and reads what comes.

The cluster asks for a token.  Jobs run on its head, their replicas on two hosts; who submits sits on one of these.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ovray import digits
from tests.integration.scoring_job import write_numbered_digits
from tests.multihost import hosts
from tests.multihost.cluster import Cluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

HOSTS = ("w0", "w1")
ROWS = 20_000
END_TIMEOUT_S = 240.0

#: Ray sends SIGTERM to a job that is to stop, and after so many seconds SIGKILL; its default of 3 is less than
#: replicas may take to complete what they hold.
STOP_WAIT_S = 60

#: Two devices that take a hundred seconds for all rows: Ray's commands take seconds on a busy machine.
SLOW_DEVICES = "w*/SIM*2?ms=10"

#: How a line of progress begins where no terminal is.
TIME = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "

_ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=60).status)"

PREPARATION = """
def halved(columns):
    return {"pixels": columns["pixels"] / 2}

def broken(columns):
    if (columns["number"] == 12_345).any():
        raise ValueError("there is no sense in this row")
    return {"pixels": columns["pixels"]}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Is what a command of Ray's ended with, and printed."""

    code: int
    text: str


class Jobs:
    """Is the command ``ray job`` in the hands of somebody on one of the hosts."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.address = f"http://{cluster.head.address}:8265"

    def submit(self, id: str, *arguments: str | Path, options: tuple[str, ...] = ()) -> Done:
        """Has the cluster run a command; returns when that is over, or at once with ``--no-wait``."""
        return self.ray("submit", "--submission-id", id, *options, "--", *map(str, arguments))

    def status(self, id: str) -> str:
        return self.ray("status", id).text

    def logs(self, id: str) -> str:
        """Returns what the command printed, which stands below what Ray has to say about it."""
        return self.ray("logs", id).text.partition("Running entrypoint for job ")[2]

    def ray(self, verb: str, *arguments: str) -> Done:
        command = [sys.executable, "-m", "ray.scripts.scripts", "job", verb, "--address", self.address, *arguments]
        with self.start(*command) as process:
            text, _ = process.communicate(timeout=END_TIMEOUT_S)
        return Done(code=process.returncode, text=text)

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        return self.cluster.start_driver(
            command, subprocess.PIPE, subprocess.STDOUT, environment, host=self.cluster.hosts["w0"]
        )


@pytest.fixture(scope="module")
def jobs() -> Iterator[Jobs]:
    reason = hosts.why_not()
    if reason is not None:
        pytest.skip(f"no test over several hosts: {reason}")
    options = ("--include-dashboard=true", "--dashboard-host=0.0.0.0")
    waits = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240"}
    cluster = Cluster(options, waits)
    try:
        cluster.set_up(HOSTS)
        jobs = Jobs(cluster)
        assert wait_until(lambda: jobs.ray("list").code == 0), jobs.ray("list").text
        yield jobs
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def data(jobs: Jobs) -> Path:
    path = jobs.cluster.shared / "in.parquet"
    write_numbered_digits(path, rows=ROWS)
    return path


@pytest.fixture
def output(jobs: Jobs, request: pytest.FixtureRequest) -> Path:
    return jobs.cluster.shared / request.node.name


@pytest.fixture(scope="module")
def with_preparation(jobs: Jobs) -> tuple[str, ...]:
    """Is the option that ships a folder with the caller's own module in it."""
    folder = jobs.cluster.shared / "mine"
    folder.mkdir()
    (folder / "prepare.py").write_text(PREPARATION)
    return ("--working-dir", str(folder))


def score(data: Path, output: Path, *options: str) -> tuple[str | Path, ...]:
    return ("ovray", "score", digits.model_file(), data, "--output", output, *options)


def rows_in(output: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in output.glob("part-*.parquet"))


def test_a_job_scores_on_every_host_and_its_progress_can_be_read(
    jobs: Jobs, data: Path, output: Path, with_preparation: tuple[str, ...]
) -> None:
    command = score(data, output, "--devices", "w*/CPU", "--preprocess", "prepare:halved")

    done = jobs.submit("good", *command, options=with_preparation)

    assert done.code == 0, done.text
    assert "succeeded" in jobs.status("good")
    logs = jobs.logs("good")
    assert re.search(TIME + "starting 2 replicas$", logs, re.MULTILINE), logs
    for host in HOSTS:
        assert re.search(rf"{TIME}{host}/CPU\.\d+#0: ready$", logs, re.MULTILINE), logs
    assert re.search(rf"{TIME}{ROWS:,} of {ROWS:,} rows \(100%\), .* rows/s now", logs, re.MULTILINE), logs
    assert "\x1b" not in logs, "colours are for terminals"
    scored = pq.read_table(output, columns=["number", digits.LABEL_COLUMN, digits.DIGIT_COLUMN]).to_pandas()
    assert scored["number"].tolist() == list(range(ROWS))
    assert (output / "_SUCCESS").exists()


def test_what_the_caller_can_mend_ends_a_job_with_2(jobs: Jobs, output: Path) -> None:
    done = jobs.submit("no-such-file", *score(Path("/nowhere/in.parquet"), output))

    # Ray's own command knows good and bad ends only; the code of ours is in what it says.
    assert done.code == 1
    status = jobs.status("no-such-file")
    assert "failed with exit code 2" in status
    assert "ovray: " in status
    assert "/nowhere/in.parquet" in status
    assert not output.exists()


def test_what_fails_under_way_ends_a_job_with_1(
    jobs: Jobs, data: Path, output: Path, with_preparation: tuple[str, ...]
) -> None:
    command = score(data, output, "--devices", "w*/SIM*2?ms=0.1", "--preprocess", "prepare:broken")

    done = jobs.submit("bad-row", *command, options=with_preparation)

    assert done.code == 1
    status = jobs.status("bad-row")
    assert "failed with exit code 1" in status
    assert "there is no sense in this row" in status


def test_a_job_that_is_stopped_completes_what_it_holds_and_can_be_carried_on(
    jobs: Jobs, data: Path, output: Path
) -> None:
    # given: a job in full swing
    command = score(data, output, "--devices", SLOW_DEVICES, "--commit-every", "4", "--batch-size", "32")
    assert jobs.submit("night", *command, options=("--no-wait",)).code == 0
    assert wait_until(lambda: rows_in(output) > 0), jobs.status("night")

    # when
    stopped = jobs.ray("stop", "night")

    # then
    assert stopped.code == 0, stopped.text
    assert "was stopped" in jobs.status("night")
    assert "ovray: interrupted; what was complete is kept, the rest was taken away" in jobs.logs("night")
    kept = rows_in(output)
    assert 0 < kept < ROWS
    assert {path.name for path in output.iterdir() if not path.name.startswith("part-")} <= {"_ovray.json"}

    # when: the same again, in less time
    done = jobs.submit("morning", *score(data, output, "--devices", "w*/SIM*2?ms=0.1"))

    # then
    assert done.code == 0, done.text
    assert f"an earlier run had done {kept:,} of {ROWS:,} rows" in jobs.logs("morning")
    assert pq.read_table(output, columns=["number"])["number"].to_pylist() == list(range(ROWS))


def test_what_probes_ask_needs_no_token(jobs: Jobs) -> None:
    """The kubelet has none: the manifests' probes ask for this on each node."""
    for host in jobs.cluster.hosts.values():
        with jobs.start(sys.executable, "-c", _ASK, f"http://{host.address}:52365/api/healthz") as process:
            text, _ = process.communicate(timeout=END_TIMEOUT_S)
        assert (process.returncode, text.strip()) == (0, "200"), (host.name, text)


def test_who_brings_no_token_is_sent_away(jobs: Jobs) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "list", "--address", jobs.address]
    with jobs.start(*command, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN="") as process:
        text, _ = process.communicate(timeout=END_TIMEOUT_S)

    assert process.returncode != 0
    assert "token" in text.lower()
    assert "night" not in text
