"""Watches a load for the moment at which a fault is to come, and puts down what it cost.

May not enter: faults.
"""

import os
import time

from tests.multihost import table
from tests.multihost.conftest import HOSTS
from tests.multihost.hosts import Host
from tests.multihost.loads import Count, DriverLoad, Effect, Load, Standing

SEED = int(os.environ.get("OVRAY_TEST_SEED", "7"))

#: Processes that want a core, for each core, while these tests run alone.
IDLE_LOAD = 2.0

_SLACK_MIN = 3.0

#: What the replacement of a replica takes beyond its compile time, which is nothing for simulated ones.
REPLACED_WITHIN_S = 5.0


def replica_on(host: Host) -> str:
    return f"{host.name}/SIM#0"


def wait_until_all_work(load: DriverLoad, hosts: int = len(HOSTS)) -> Standing:
    """Wait until every host has done something and holds more."""
    return load.wait_for(
        lambda standing: (
            len({id.partition("/")[0] for id, known in standing.replicas.items() if known["done"] > 0}) == hosts
            and all(standing.holds_work(replica) for replica in standing.replicas)
        )
    )


def holds_work_now(load: DriverLoad, replica: str) -> Standing:
    """Return a line of the ledger, not older than this call, by which a replica holds work."""
    now_s = time.monotonic()
    return load.wait_for(lambda standing: standing.at_s > now_s and standing.holds_work(replica))


def is_lost_and_replaced(standing: Standing) -> bool:
    """Say whether one replica is lost, and others have what it held: sent again, or as copies before that."""
    counters = standing.counters
    return counters["losses"] == 1 and counters["retries"] + counters["backups_won"] > 0


def put_down(fault: str, load: Load, count: Count, goes_on: str, asked: str) -> None:
    table.rows.append(
        table.Row(fault=fault, load=load.text, lost=count.lost, twice=count.twice, goes_on=goes_on, asked=asked)
    )


def wait_a_while(load: DriverLoad, seconds: float) -> None:
    """Wait until the load has said something that much later; fails where it ends before."""
    until_s = time.monotonic() + seconds
    load.wait_for(lambda standing: standing.at_s > until_s)


def is_shared() -> bool:
    """Say whether others use this machine's cores, too."""
    return _load() > 1.0


def slack() -> float:
    """Return how much longer than asked things may take before a test fails.

    Figures stand in the table of what faults cost; a test is to find what goes wrong, and not that others use this
    machine's cores, too.
    """
    return max(_SLACK_MIN, _load())


def _load() -> float:
    """Return how many times the processes want a core that these tests want alone."""
    return os.getloadavg()[0] / len(os.sched_getaffinity(0)) / IDLE_LOAD


def in_words(effect: Effect) -> str:
    words = f"others silent {effect.others_s:.1f} s"
    if effect.taken_over_s is not None:
        words += f"; work taken over after {effect.taken_over_s:.1f} s"
    if effect.back_s is not None:
        words += f"; back after {effect.back_s:.1f} s"
    return words
