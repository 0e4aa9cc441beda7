"""Hosts for the tests here, shared by all of them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.scoring_job import write_numbered_digits
from tests.multihost import hosts
from tests.multihost.cluster import Cluster

ROWS = 20_000

#: Three equal ones, beside the head, on which nothing runs but Ray and the driver.
HOSTS = ("w0", "w1", "w2")


@pytest.fixture(scope="package")
def bench() -> Iterator[Cluster]:
    """Is a cluster that may be in any state."""
    with a_bench() as cluster:
        yield cluster


@contextmanager
def a_bench() -> Iterator[Cluster]:
    """Has a cluster, or skips the test where none can be had."""
    reason = hosts.why_not()
    if reason is not None:
        pytest.skip(f"no test over several hosts: {reason}")
    cluster = Cluster()
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(bench: Cluster) -> Cluster:
    """Is a cluster of three healthy hosts."""
    bench.set_up(HOSTS)
    return bench


@pytest.fixture(scope="package")
def data(bench: Cluster) -> Path:
    """Is a file of ``ROWS`` images, each with a number of its own."""
    return numbered_images(bench)


def numbered_images(bench: Cluster) -> Path:
    """Writes a file of ``ROWS`` images, each with a number of its own."""
    path = bench.shared / "in.parquet"
    write_numbered_digits(path, rows=ROWS)
    return path


@pytest.fixture
def output(bench: Cluster, request: pytest.FixtureRequest) -> Iterator[Path]:
    path = bench.shared / request.node.name
    yield path
    shutil.rmtree(path, ignore_errors=True)
