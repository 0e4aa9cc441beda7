"""Kills real jobs at random moments, fills their disk, starts them again, and holds what they leave against an
undisturbed one."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from ray.cluster_utils import Cluster

from ovray.devices.leases import CoreLeases
from tests.integration.scoring_job import ScoringJob, write_numbered_digits
from tests.waiting import DEADLINE_S

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

#: A kill costs the seconds of a start; `OVRAY_TEST_KILLS=20` is for the night.
KILLS = int(os.environ.get("OVRAY_TEST_KILLS", "5"))

#: The moments follow from it: `OVRAY_TEST_SEED` plays a failure again.
SEED = int(os.environ.get("OVRAY_TEST_SEED", random.randrange(10**6)))

#: Enough that every kill finds the job under way, on a machine several times as fast too.
ROWS = 6_000 * max(KILLS, 5)
CPUS = sorted(os.sched_getaffinity(0))[:2]


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
def undisturbed(address: str, lease_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoringJob:
    """Gives a job that was left in peace."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_numbered_digits(folder / "in.parquet", rows=ROWS)
    job = ScoringJob(
        input=folder / "in.parquet",
        output=folder / "out",
        address=address,
        lease_folder=lease_folder,
        devices=",".join(f"CPU@{cpu}" for cpu in CPUS),
    )
    assert job.finish()["resumed_rows"] == 0
    assert len(job.parts()) > 10, "the job is too short to be killed in the middle"
    return job


@pytest.fixture
def job(undisturbed: ScoringJob, tmp_path: Path) -> ScoringJob:
    return replace(undisturbed, output=tmp_path / "out")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Gives a disk that takes a part of the results."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True)
    if mounting.returncode:
        pytest.skip("mounting a disk takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_driver_killed_again_and_again_loses_no_row_and_writes_none_twice(
    job: ScoringJob, undisturbed: ScoringJob
) -> None:
    chance = random.Random(SEED)
    print(f"OVRAY_TEST_SEED={SEED}")
    killed_at = []
    for _ in range(KILLS):
        with running(job) as driver:
            wait_for_a_random_moment(job, driver, chance)
            killed_at.append(len(job.parts()))
            driver.kill()
            if driver.wait(DEADLINE_S) != -signal.SIGKILL:
                break  # it was done already

    report = job.finish()

    print(f"parts at each kill: {killed_at}, rows of the last run: {ROWS - report['resumed_rows']}")
    assert report["resumed_rows"] > 0
    assert report["rows"] == ROWS
    assert_same_rows(job, undisturbed)


@pytest.mark.parametrize("at_once", range(1, len(CPUS) + 1))
def test_a_driver_whose_replicas_are_killed_goes_on_or_is_carried_on(
    job: ScoringJob, undisturbed: ScoringJob, at_once: int
) -> None:
    chance = random.Random(SEED)
    print(f"OVRAY_TEST_SEED={SEED}")
    with running(job) as driver:
        job.wait_for_parts(driver, chance.randint(1, 4))
        replicas = {owner.pid for owner in CoreLeases(job.lease_folder).held().values()}
        assert len(replicas) >= at_once, "the job was over before its replicas could be killed"
        for pid in sorted(replicas)[:at_once]:
            os.kill(pid, signal.SIGKILL)
        job.wait_for_end(driver)
        assert driver.returncode in (0, 1)

    job.finish()

    assert_same_rows(job, undisturbed)


@pytest.mark.parametrize("result_format", ["csv", "arrow"])
def test_a_killed_job_in_another_format_is_carried_on(
    job: ScoringJob, undisturbed: ScoringJob, result_format: str
) -> None:
    options = ("--format", result_format, "--rows-per-file", "97")
    with running(job, *options) as driver:
        job.wait_for_parts(driver, random.Random(SEED).randint(3, 30))
        driver.kill()

    report = job.finish(*options)

    files = [job.output / name for name in job.parts()]
    rows = pa.dataset.dataset(files, format=result_format).to_table()
    assert 0 < report["resumed_rows"] < ROWS
    assert rows["number"].to_pylist() == list(range(ROWS))
    assert rows["digit"].equals(undisturbed.rows()["digit"])
    assert all(
        stop <= start // 97 * 97 + 97 for start, stop in (map(int, file.stem[5:].split("-")) for file in files)
    )
    assert {path.name for path in job.output.iterdir()} == {"_SUCCESS", "_ovray.json", *job.parts()}


def test_the_same_command_again_does_nothing(job: ScoringJob, undisturbed: ScoringJob) -> None:
    shutil.copytree(undisturbed.output, job.output)
    before = {path.name: path.stat().st_mtime_ns for path in job.output.iterdir()}

    report = replace(job, address="no-such-host:1").finish()  # needs no Ray either

    assert (report["rows"], report["resumed_rows"], report["replicas"]) == (ROWS, ROWS, [])
    assert {path.name: path.stat().st_mtime_ns for path in job.output.iterdir()} == before


def test_a_finished_folder_that_lost_a_part_gets_it_back(job: ScoringJob, undisturbed: ScoringJob) -> None:
    shutil.copytree(undisturbed.output, job.output)
    (job.output / job.parts()[3]).unlink()
    (job.output / job.parts()[5]).write_bytes(b"PAR1 cut short")

    report = job.finish("--batch-size", "64", "--devices", f"CPU@{CPUS[0]}")

    assert 0 < report["resumed_rows"] < ROWS
    assert job.rows().column("number").to_pylist() == list(range(ROWS))


def test_the_second_of_two_drivers_is_told_who_has_the_folder(job: ScoringJob) -> None:
    with running(job) as first:
        job.wait_for_parts(first, 1)

        second = job.start()
        _, complained = job.wait_for_end(second)

    assert second.returncode == 2
    assert f"is being written by pid {first.pid} on host {socket.gethostname()} since" in complained


def test_another_job_is_refused_until_it_is_told_to_begin_anew(job: ScoringJob, undisturbed: ScoringJob) -> None:
    shutil.copytree(undisturbed.output, job.output)

    refused = job.start("--limit", "600")
    _, complained = job.wait_for_end(refused)

    assert refused.returncode == 2
    assert "has results of another job: option --limit was not given and is now 600; nothing was" in complained
    assert job.parts() == undisturbed.parts()
    assert job.finish("--limit", "600", "--restart")["resumed_rows"] == 0
    assert job.rows().column("number").to_pylist() == list(range(600))


def test_a_job_whose_disk_was_full_for_a_while_is_carried_on(
    job: ScoringJob, undisturbed: ScoringJob, small_disk: Path
) -> None:
    on_small_disk = replace(job, output=small_disk / "out")
    stopped = on_small_disk.start()
    _, complained = on_small_disk.wait_for_end(stopped)

    assert stopped.returncode == 1
    assert "No space left on device" in complained
    assert len(complained.splitlines()) == 1
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert on_small_disk.finish()["resumed_rows"] > 0
    assert_same_rows(on_small_disk, undisturbed)


def test_parts_follow_each_other_as_often_as_was_asked(job: ScoringJob) -> None:
    # given: a device that does 1,000 rows a second, whatever this machine does
    job.finish("--devices", "SIM?ms=1", "--commit-every", "1", "--limit", "5000")

    sizes = [pq.read_metadata(job.output / name).num_rows for name in job.parts()]
    print(sizes)
    assert max(sizes) <= 1000


class running:  # noqa: N801 (reads as a statement)
    """Holds a driver that ends with the block, whatever happens in it."""

    def __init__(self, job: ScoringJob, *options: str) -> None:
        self._driver = job.start(*options)

    def __enter__(self) -> "subprocess.Popen[str]":
        return self._driver

    def __exit__(self, *_: object) -> None:
        self._driver.kill()
        self._driver.communicate(timeout=DEADLINE_S)


def wait_for_a_random_moment(job: ScoringJob, driver: "subprocess.Popen[str]", chance: random.Random) -> None:
    """Wait for some more parts and a moment; or, one time in four, for a moment of the start."""
    if chance.random() < 0.25:
        job.wait_for_parts(driver, len(job.parts()) + 1, for_s=chance.uniform(0, 6))
        return
    job.wait_for_parts(driver, len(job.parts()) + chance.randint(1, 40))
    time.sleep(chance.uniform(0, 0.05))


def assert_same_rows(job: ScoringJob, undisturbed: ScoringJob) -> None:
    rows: pa.Table = job.rows()
    assert rows.column("number").to_pylist() == list(range(ROWS))
    assert rows.equals(undisturbed.rows())
    assert {path.name for path in job.output.iterdir()} == {"_SUCCESS", "_ovray.json", *job.parts()}
