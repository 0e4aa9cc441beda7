"""Pools that several processes share: real drivers, some of them killed, and what becomes of the others."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import ovray
from ovray.core.ledger import ReplicaState
from ovray.devices.leases import DIRECTORY_VARIABLE, CoreLeases
from ovray.driver.calls import Ended
from ovray.driver.named_pools import attach_pool, list_pools, stop_pool
from ovray.driver.opening import OpenPool, open_pool
from ovray.driver.pool import RequestPool
from ovray.driver.session import held_session
from ovray.errors import ConfigError, ReplicaError
from ovray.replica.model import describe, unpack
from tests.integration.a_cluster import a_cluster
from tests.integration.commands import ran
from tests.integration.models import a_perceptron
from tests.integration.pool_drivers import ASKER, OPENER, options_for
from tests.integration.processes import Script, running
from tests.waiting import DEADLINE_S, until

#: Requests for which drivers share a replica, four seconds of its time.
SHARED = 800

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def leases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for leases of our own, so that other work on this machine does not matter."""
    return tmp_path_factory.mktemp("leases")


@pytest.fixture(scope="module", autouse=True)
def address(leases: Path) -> Iterator[str]:
    with a_cluster(4, **{DIRECTORY_VARIABLE: str(leases)}) as found:
        held_session.take(found)
        yield found
        held_session.let_go()


@contextmanager
def _opened(name: str, devices: str, lifetime: str = "owner", share_cores: bool = True) -> Iterator[OpenPool]:
    """Opens a pool in this process, and leaves none behind."""
    opened = open_pool(a_perceptron(), options_for(name, devices, lifetime, None, share_cores))
    try:
        yield opened
    finally:
        opened.pool.close()
        if name in _names():
            stop_pool(name)


@contextmanager
def _asking(address: str, name: str) -> Iterator[Script]:
    with running(ASKER, address, name) as asker:
        assert asker.read_line() == "attached"
        yield asker


def _told(asker: Script) -> tuple[int, int, str]:
    """Returns how many answers were right, how many were wrong, and the first error."""
    words = asker.read_line().split()
    assert words[::2] == ["right", "wrong"]
    return int(words[1]), int(words[3]), asker.read_line().removeprefix("error ")


def _names() -> list[str]:
    return [listing.record.name for listing in list_pools()]


def _ask(pool: RequestPool) -> Ended:
    answer: Future[Ended] = Future()
    pool.submit([np.ones((1, 32), np.float32)], ended=answer.set_result)
    return answer.result(DEADLINE_S)


def _processes(name: str) -> list[int]:
    (listing,) = [listing for listing in list_pools() if listing.record.name == name]
    return [kept.report.pid for kept in listing.view.replicas if kept.report is not None]


def _is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


# --- detached -----------------------------------------------------------------------------------------------


def test_a_detached_pool_outlives_its_opener_and_the_death_of_one_driver_harms_no_other(
    address: str, tmp_path: Path
) -> None:
    with running(OPENER, address, "outlives", "CPU", "detached") as opener:
        assert opener.read_line() == "open"
        opener.tell("close")
        assert opener.read_line() == "closed"
        assert opener.process.wait(DEADLINE_S) == 0
    with _asking(address, "outlives") as first, _asking(address, "outlives") as second:
        for asker in (first, second):
            asker.tell("ask")
        for asker in (first, second):
            assert asker.read_line() == "asking"

        second.kill()
        served = list_pools()[0].requests_served or 0
        until(lambda: (list_pools()[0].requests_served or 0) > served + 100)
        first.tell("enough")
        right, wrong, error = _told(first)
    replicas = _processes("outlives")
    stopped = ran(tmp_path, "stop", "outlives", "--address", address)

    assert right > 100
    assert (wrong, error) == (0, "None")
    assert (stopped.process.returncode, stopped.stderr) == (0, "")
    assert stopped.stdout == "stopped outlives: its replicas have ended, their cores are free\n"
    until(lambda: not any(map(_is_alive, replicas)))


def test_two_drivers_get_alike_from_a_replica_that_both_want_more_of(address: str) -> None:
    with (
        _opened("fair", "SIM?ms=5", "detached"),
        _asking(address, "fair") as first,
        _asking(address, "fair") as second,
    ):
        for asker in (first, second):
            asker.tell("ask")
        for asker in (first, second):
            assert asker.read_line() == "asking"
        served = list_pools()[0].requests_served or 0
        until(lambda: (list_pools()[0].requests_served or 0) > served + SHARED)
        for asker in (first, second):
            asker.tell("enough")
        counts = [_told(asker)[0] for asker in (first, second)]

    print(f"requests of each: {counts}")
    assert max(counts) < 2 * min(counts)


def test_closing_a_detached_pool_or_an_attached_one_ends_no_replica() -> None:
    with _opened("stays", "SIM", "detached") as opened:
        replicas = _processes("stays")
        opened.pool.close()
        attach_pool("stays").pool.close()

        attached = attach_pool("stays")
        assert _ask(attached.pool).error is None
        assert _processes("stays") == replicas
        attached.pool.close()


def test_stopping_a_pool_tells_its_drivers(address: str) -> None:
    with _opened("stopped", "SIM", "detached"), _asking(address, "stopped") as asker:
        asker.tell("ask")
        assert asker.read_line() == "asking"

        stop_pool("stopped")
        _, _, error = _told(asker)

    assert error.startswith("the pool 'stopped' has ended: somebody stopped it (`ovray stop stopped`)")


def test_a_pool_that_is_stopped_gives_its_cores_back_at_once(leases: Path) -> None:
    core = min(os.sched_getaffinity(0))
    with _opened("cores", f"CPU@{core}", "detached", share_cores=False) as opened:
        (spec,) = opened.plan.replicas
        held = CoreLeases(leases).held()
        assert set(spec.cpus) <= set(held)

        stop_pool("cores")

        CoreLeases(leases).acquire(spec.cpus, "the test", timeout_s=0.0).release()
        again = open_pool(a_perceptron(), options_for("cores", f"CPU@{core}", "owner", None, share_cores=False))
        assert _ask(again.pool).error is None
        again.pool.close()


# --- owned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["killed", "closed"])
def test_drivers_of_a_pool_whose_owner_ends_hear_one_clear_error(address: str, end: str) -> None:
    with running(OPENER, address, end, "CPU", "owner") as opener:
        assert opener.read_line() == "open"
        replicas = _processes(end)
        with _asking(address, end) as asker:
            asker.tell("ask")
            assert asker.read_line() == "asking"
            if end == "killed":
                opener.kill()
            else:
                opener.tell("close")
                assert opener.read_line() == "closed"

            right, wrong, error = _told(asker)

    assert right > 0
    assert wrong == 0
    owner = f"{os.uname().nodename}:{opener.pid}"
    assert error.startswith(f"the pool '{end}' has ended: its owner, {owner}, closed it or has ended")
    until(lambda: end not in _names())
    until(lambda: not any(map(_is_alive, replicas)))


# --- names, models, late replicas ---------------------------------------------------------------------------


def test_a_name_is_given_once() -> None:
    told = r"there is a pool 'once' already.*ovray\.attach\('once'\)"
    with _opened("once", "SIM"), pytest.raises(ConfigError, match=told):
        open_pool(a_perceptron(), options_for("once", "SIM", "owner", None))

    with _opened("once", "SIM") as opened:
        assert _ask(opened.pool).error is None


def test_an_unknown_name_is_told_with_those_that_there_are() -> None:
    with _opened("known", "SIM"):
        with pytest.raises(ConfigError, match=r"there is no pool 'unknown' in this cluster; there are: 'known'"):
            attach_pool("unknown")
        with pytest.raises(ConfigError, match=r"there is no pool 'unknown'"):
            stop_pool("unknown")


def test_the_model_of_a_pool_can_be_had_back() -> None:
    with _opened("model", "CPU") as opened:
        attached = attach_pool("model")
        model = unpack(attached.model)

        assert describe(model) == describe(a_perceptron())
        assert attached.plan == opened.plan
        (here,), (there,) = _ask(opened.pool).outputs[:1], _ask(attached.pool).outputs[:1]  # type: ignore[index]
        np.testing.assert_array_equal(here, there)
        attached.pool.close()


def test_a_replica_that_is_ready_late_serves_those_who_attached_before() -> None:
    with _opened("late", "AUTO:SIM?compile_s=5,SIM"):
        attached = attach_pool("late")
        assert str(_ask(attached.pool).replica).endswith("SIM#1")

        until(lambda: str(_ask(attached.pool).replica).endswith("SIM#0"))
        attached.pool.close()


def test_a_replica_that_is_killed_is_replaced_and_no_driver_loses_a_request() -> None:
    with _opened("lossy", "SIM*2?ms=30", "detached") as opened:
        attached = attach_pool("lossy")
        pools = (opened.pool, attached.pool)
        until(lambda: all(_working(pool) == 2 for pool in pools))
        ends: list[Ended] = []
        for _ in range(20):
            for pool in pools:
                pool.submit([np.ones((1, 32), np.float32)], ended=ends.append)

        before = _processes("lossy")
        os.kill(before[0], 9)
        drained = all(pool.drain(DEADLINE_S) for pool in pools)

        assert drained
        assert [end.error for end in ends] == [None] * 40
        until(lambda: len(set(_processes("lossy")) - {before[0]}) == 2)
        until(lambda: all(_working(pool) == 2 for pool in pools))
        attached.pool.close()


def _working(pool: RequestPool) -> int:
    return sum(replica.state is ReplicaState.READY for replica in pool.snapshot().scheduler.replicas)


def test_a_pool_that_cannot_start_leaves_no_name_behind() -> None:
    with pytest.raises((ConfigError, ReplicaError)):
        open_pool(a_perceptron(), options_for("never", "CPU?NUM_STREAMS=many", "detached", None))

    assert "never" not in _names()


# --- commands -----------------------------------------------------------------------------------------------


def test_the_command_lists_pools_as_a_table_and_as_json(address: str, tmp_path: Path) -> None:
    with _opened("listed", "SIM?ms=1,CPU") as opened:
        until(lambda: len(opened.pool.snapshot().reports) == 2)
        for _ in range(5):
            assert _ask(opened.pool).error is None
        as_json = ran(tmp_path, "pools", "--json", "--address", address)
        as_table = ran(tmp_path, "pools", "--address", address)

    host = os.uname().nodename
    (row,) = as_json.json()["pools"]
    assert row == {
        "name": "listed",
        "model": "perceptron",
        "lifetime": "owner",
        "opened_by": f"{host}:{os.getpid()}",
        "device_string": "SIM?ms=1,CPU",
        "replicas": 2,
        "replicas_ready": 2,
        "hosts": [host],
        "devices": {"SIM": 1, "CPU.0": 1},
        "replicas_leaving": 0,
        "state": "ready",
        "requests_served": 5,
        "failures": {},
    }
    assert as_table.process.returncode == 0
    assert as_table.stdout.splitlines()[1].split()[:2] == ["listed", "perceptron"]


def test_stopping_what_is_not_there_ends_with_two_and_lists_what_is(address: str, tmp_path: Path) -> None:
    with _opened("other", "SIM"):
        stopped = ran(tmp_path, "stop", "nothing", "--address", address)

    assert stopped.process.returncode == 2
    assert "there is no pool 'nothing' in this cluster; there are: 'other'" in stopped.stderr


def test_without_a_cluster_there_are_no_pools(tmp_path: Path) -> None:
    listed = ran(tmp_path, "pools")

    assert listed.process.returncode == 2
    assert "no Ray runs on this machine" in listed.stderr


# --- OpenVINO's face ----------------------------------------------------------------------------------------

ATTACHED_SCRIPT = """
import sys
import numpy as np
import ovray as ov

compiled = ov.attach("faced", address=sys.argv[1])
print(compiled(np.ones((2, 32), np.float32))["logits"].tolist())
compiled.close()
"""


def test_a_script_of_another_process_attaches_to_a_model_by_name(address: str) -> None:
    with ovray.compile_model(
        a_perceptron(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}, name="faced", share_cores=True
    ) as compiled:
        expected = compiled(np.ones((2, 32), np.float32))["logits"]
        with running(ATTACHED_SCRIPT, address) as script:
            printed = script.read_line()

        assert json.loads(printed) == expected.tolist()
        assert (compiled(np.ones((2, 32), np.float32))["logits"] == expected).all()
    assert "faced" not in _names()


def test_attaching_takes_no_options_that_were_settled_at_the_opening() -> None:
    with pytest.raises(ConfigError, match="NUM_STREAMS was settled"):
        ovray.attach("any", {"NUM_STREAMS": 2})
    with pytest.raises(ConfigError, match="there is no pool 'nobody'"):
        ovray.attach("nobody")
