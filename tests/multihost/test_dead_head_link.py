"""Takes the link of the head away from drivers that run on another host: what waits ends, and nothing hangs.

Other than the death of the head's processes, nobody is told: packets just do not arrive.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.multihost import table
from tests.multihost.cluster import Cluster
from tests.multihost.conftest import ROWS, a_bench, numbered_images
from tests.multihost.loads import JobOnHosts, ScoringLoad
from tests.multihost.scripts import AskingScript, RunningScript
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(400)]

#: So slow that neither job nor script is done before the link goes.
DEVICES = "w*/SIM*3?ms=4"

TIMEOUT_S = 8.0

#: Beyond the limit: for the look that finds it, and for the end of what cannot be reached any more.  That takes
#: some 25 s; where nothing bounded it, Ray took three minutes.
SLACK_S = 80.0


@pytest.fixture(scope="module")
def bench() -> Iterator[Cluster]:
    """Is a cluster that nobody uses after these tests.

    A raylet whose link was down never sends a task to hosts that joined later, says Ray 2.60: "The node doesn't
    exist any more or is infeasible".
    """
    with a_bench() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def data(bench: Cluster) -> Path:
    return numbered_images(bench)


@pytest.fixture(autouse=True)
def _the_link_comes_back(bench: Cluster) -> Iterator[None]:
    """Leaves a head that the next test here can use; hosts that it gave up are made anew."""
    yield
    bench.head.link_up()
    for host in bench.hosts.values():
        host.is_whole = host is bench.head


def a_job(cluster: Cluster, data: Path, output: Path, timeout_s: float) -> JobOnHosts:
    return JobOnHosts(
        address=cluster.address,
        input=str(data),
        output=str(output),
        rows=ROWS,
        devices=DEVICES,
        replica_timeout_s=timeout_s,
    )


def a_script(cluster: Cluster, timeout_s: float, for_s: float = 120.0) -> AskingScript:
    return AskingScript(address=cluster.address, devices=DEVICES, replica_timeout_s=timeout_s, for_s=for_s)


def test_a_heads_link_that_comes_back_in_time_costs_nothing(cluster: Cluster, data: Path, output: Path) -> None:
    with (
        ScoringLoad(cluster, job=a_job(cluster, data, output, 30.0), host=cluster.hosts["w0"]) as load,
        RunningScript(cluster, a_script(cluster, 30.0, for_s=25.0), cluster.hosts["w1"], output) as script,
    ):
        load.wait_for(lambda standing: standing.done > 0)
        script.wait_for_answers(20)

        cluster.head.link_down()
        assert not wait_until(lambda: load.process is None or load.process.poll() is not None, 5.0)
        cluster.head.link_up()
        up_s = time.monotonic()

        script.wait_for_answers(20, since_s=up_s)
        ended = script.ended()
        count = load.finish()
        last = load.standings()[-1]

    assert (count.lost, count.twice) == (0, 0)
    assert last.counters["losses"] == 0
    assert (ended["failed"], ended["hung"], ended["twice"]) == (0, 0, 0), ended
    assert ended["answered"] == ended["asked"]
    row = table.Row(
        fault="the head's link down for 5 s, then up",
        load=f"{load.text} and {ended['asked']:,} requests",
        lost=count.lost,
        twice=count.twice,
        goes_on="no loss, no error",
        asked="costs nothing",
    )
    table.rows.append(row)


def test_when_the_heads_link_is_down_for_good_job_and_script_end_with_an_error(
    cluster: Cluster, data: Path, output: Path
) -> None:
    with (
        ScoringLoad(cluster, job=a_job(cluster, data, output, TIMEOUT_S), host=cluster.hosts["w0"]) as load,
        RunningScript(cluster, a_script(cluster, TIMEOUT_S), cluster.hosts["w1"], output) as script,
    ):
        load.wait_for(lambda standing: standing.done > 0)
        script.wait_for_answers(20)

        at_s = time.monotonic()
        cluster.head.link_down()

        ended = script.ended()
        said = load.fail()
        ended_s = time.monotonic() - at_s

    assert said["kind"] == "ReplicaError"
    assert f"has not answered for {TIMEOUT_S:g} s" in said["error"]
    assert "start the same command again" in said["error"]
    assert 0 < load.rows_there() < ROWS
    assert said["at_s"] - at_s < TIMEOUT_S + SLACK_S, said
    assert (ended["hung"], ended["twice"]) == (0, 0), ended
    assert ended["failed"] > 0
    assert all(f"has not answered for {TIMEOUT_S:g} s" in error for error in ended["errors"]), ended
    assert ended["at_s"] - at_s < TIMEOUT_S + SLACK_S, ended
    assert ended_s < TIMEOUT_S + 2 * SLACK_S
    row = table.Row(
        fault=f"the head's link down for good (--replica-timeout {TIMEOUT_S:g})",
        load=f"{load.text} and requests",
        lost=0,
        twice=0,
        goes_on=f"errors after {said['at_s'] - at_s:.1f} s (job) and {ended['at_s'] - at_s:.1f} s (script)",
        asked="bounded",
    )
    table.rows.append(row)
