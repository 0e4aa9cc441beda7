"""Runs the real command on data with bad rows, kills it and its replicas, and counts what is there in the end."""

import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.cluster_utils import Cluster

import ovray
from ovray import digits
from ovray.devices.leases import CoreLeases
from tests.integration.scored_here import errors_in
from tests.integration.scoring_job import ScoringJob, write_numbered_digits
from tests.waiting import DEADLINE_S

KILLS = int(os.environ.get("OVRAY_TEST_KILLS", "3"))
SEED = int(os.environ.get("OVRAY_TEST_SEED", random.randrange(10**6)))

#: A kill costs the seconds of a start, on a busy machine a minute.
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600 + 60 * KILLS)]

ROWS = 30_000
CPUS = sorted(os.sched_getaffinity(0))[:2]

#: One row in so many has no picture: each part has some.
EVERY = 97
BAD = [row for row in range(ROWS) if row % EVERY == 5]


@pytest.fixture(scope="module")
def lease_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gives the folder of leases, in which replicas find it: in the environment of their Ray."""
    with pytest.MonkeyPatch.context() as environment:
        folder = tmp_path_factory.mktemp("leases")
        environment.setenv("OVRAY_LEASE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def address(lease_folder: Path) -> Iterator[str]:
    """Gives a Ray that outlives the drivers, as a cluster does: what they leave behind goes on."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": len(CPUS), "include_dashboard": False})
    try:
        yield nodes.address
    finally:
        nodes.shutdown()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives a file in which some pictures are null."""
    path = tmp_path_factory.mktemp("data") / "in.parquet"
    write_numbered_digits(path, rows=ROWS)
    table = pq.read_table(path)
    at = table.schema.get_field_index(PICTURES)
    pictures = table[PICTURES].to_pylist()
    for row in BAD:
        pictures[row] = None
    kind = pa.list_(table.schema.field(at).type.value_type)
    pq.write_table(table.set_column(at, PICTURES, pa.array(pictures, kind)), path, row_group_size=4096)
    return path


@pytest.fixture
def job(address: str, data: Path, lease_folder: Path, tmp_path: Path) -> ScoringJob:
    return ScoringJob(
        input=data,
        output=tmp_path / "out",
        address=address,
        lease_folder=lease_folder,
        devices=",".join(f"CPU@{cpu}" for cpu in CPUS),
    )


def test_a_job_killed_again_and_again_has_each_bad_row_once_and_every_good_one(job: ScoringJob) -> None:
    chance = random.Random(SEED)
    print(f"OVRAY_TEST_SEED={SEED}")
    for _ in range(KILLS):
        with running(job) as driver:
            job.wait_for_parts(driver, len(job.parts()) + chance.randint(2, 12))
            driver.kill()
            driver.wait(DEADLINE_S)

    report = job.finish("--on-error", "record")

    assert report["resumed_rows"] > 0
    check_complete(job, report)


def test_killed_replicas_leave_no_bad_row_twice(job: ScoringJob) -> None:
    with running(job) as driver:
        job.wait_for_parts(driver, 1)
        replicas = {owner.pid for owner in CoreLeases(job.lease_folder).held().values()}
        assert replicas, "the job was over before a replica could be killed"
        os.kill(min(replicas), signal.SIGKILL)
        job.wait_for_end(driver)

    check_complete(job, job.finish("--on-error", "record"))


def test_too_many_bad_rows_end_a_job_that_a_larger_number_carries_on(job: ScoringJob) -> None:
    process = job.start("--on-error", "record", "--max-errors", "20")
    _, complained = job.wait_for_end(process)

    assert process.returncode == 1
    assert "rows could not be scored, more than --max-errors 20; the first is " in complained
    assert f"{job.input}, row " in complained
    assert len(complained.splitlines()) == 1
    # what is on record is too much for the same command
    on_record = set(pq.read_table(job.output / "_errors")["row"].to_pylist())
    assert 20 < len(on_record) < len(BAD)
    again = job.start("--on-error", "record", "--max-errors", "20")
    _, complained = job.wait_for_end(again)
    assert again.returncode == 1
    assert "more than --max-errors 20" in complained
    report = job.finish("--on-error", "record", "--max-errors", str(len(BAD)))
    assert report["resumed_rows"] > 0
    check_complete(job, report)


def test_a_bad_row_ends_a_job_by_default_and_is_named(job: ScoringJob) -> None:
    process = job.start()
    _, complained = job.wait_for_end(process)

    assert process.returncode == 1
    (line,) = complained.splitlines()
    where, problem = line.removeprefix("ovray: ").split(" (the first is 0): ")
    assert where.startswith(f"{job.input}, row ")
    assert int(where.rpartition(" ")[2]) in BAD
    assert problem.startswith(f"column '{PICTURES}' is null")
    assert not (job.output / "_errors").exists()


def test_python_records_bad_rows_too_and_leaves_those_on_record(address: str, data: Path, tmp_path: Path) -> None:
    where: dict[str, Any] = {"output": tmp_path / "out", "address": address, "devices": f"CPU@{CPUS[0]}"}

    report = ovray.score(digits.model_file(), data, on_error="record", limit=200, **where)
    again = ovray.score(digits.model_file(), data, limit=200, **where)

    assert (report.rows, report.errors, report.resumed_rows) == (197, 3, 0)
    assert (again.rows, again.errors, again.resumed_rows) == (197, 3, 197)
    assert errors_in(tmp_path / "out")["number"].to_pylist() == [5, 102, 199]


#: The model's input, in the packaged data.
PICTURES = "pixels"


@contextmanager
def running(job: ScoringJob) -> "Iterator[Popen[str]]":
    """Start a command that puts bad rows aside; it is killed at the latest when the block ends."""
    process = job.start("--on-error", "record")
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def check_complete(job: ScoringJob, report: dict[str, Any]) -> None:
    """Check that a finished folder has each row once, in its place."""
    errors = errors_in(job.output)
    assert errors["row"].to_pylist() == BAD
    assert errors["number"].to_pylist() == BAD
    assert set(errors["stage"].to_pylist()) == {"prepare"}
    assert job.rows()["number"].to_pylist() == [row for row in range(ROWS) if row % EVERY != 5]
    assert (report["rows"], report["errors"]) == (ROWS - len(BAD), len(BAD))
    assert (job.output / "_SUCCESS").exists()
    assert json.loads((job.output / "_ovray.json").read_text())["job"]["options"] == {}
