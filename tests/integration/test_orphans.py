"""Kills real drivers and watches what becomes of the processes that were to end with them."""

import json
import subprocess
from dataclasses import asdict, replace

import pytest

from ovray.replica.orphans import ProcessIdentity, this_process
from tests.integration.processes import Script, running
from tests.waiting import DEADLINE_S

DRIVER = """
import json, sys
from dataclasses import asdict
from ovray.replica.orphans import this_process
print(json.dumps(asdict(this_process())))
sys.stdin.readline()
"""

ORPHAN = """
import json, sys
from ovray.replica.orphans import ProcessIdentity, end_with
end_with(ProcessIdentity(**json.loads(sys.argv[1])))
print("watching")
sys.stdin.readline()
print("still here")
sys.stdin.readline()
"""


def _identity(driver: Script) -> ProcessIdentity:
    return ProcessIdentity(**json.loads(driver.read_line()))


def _orphan_of(driver: ProcessIdentity) -> tuple[str, str]:
    return ORPHAN, json.dumps(asdict(driver))


def test_a_process_ends_when_its_driver_is_killed() -> None:
    with running(DRIVER) as driver, running(*_orphan_of(_identity(driver))) as replica:
        assert replica.read_line() == "watching"

        driver.kill()

        assert replica.process.wait(DEADLINE_S) == -9


def test_a_process_whose_driver_lives_stays() -> None:
    with running(DRIVER) as driver, running(*_orphan_of(_identity(driver))) as replica:
        assert replica.read_line() == "watching"
        replica.tell("go on")

        assert replica.read_line() == "still here"


def test_a_process_whose_driver_is_gone_already_ends_at_once() -> None:
    with running(DRIVER) as driver:
        identity = _identity(driver)
        driver.kill()

        with running(*_orphan_of(identity)) as replica:
            assert replica.process.wait(DEADLINE_S) == -9


def test_another_process_under_the_drivers_number_is_not_taken_for_it() -> None:
    with running(DRIVER) as driver:
        earlier = replace(_identity(driver), started_ticks=1)

        with running(*_orphan_of(earlier)) as replica:
            assert replica.process.wait(DEADLINE_S) == -9


@pytest.mark.parametrize("elsewhere", [{"namespace": "pid:[1]"}, {"machine": "another"}])
def test_a_driver_that_cannot_be_seen_from_here_is_left_to_ray(elsewhere: dict[str, str]) -> None:
    gone = replace(this_process(), pid=2**22 + 1, **elsewhere)

    with running(*_orphan_of(gone)) as replica:
        assert replica.read_line() == "watching"
        with pytest.raises(subprocess.TimeoutExpired):
            replica.process.wait(0.2)
