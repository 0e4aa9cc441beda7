"""The faults of a soak: each is done to whom chance picks, and is over, but for its consequences, when it returns.

May not enter: judging.  The script under test runs on the first host, which keeps its link and its processes.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable

import psutil

from tests.multihost import memory_limit
from tests.multihost.cluster import Cluster
from tests.multihost.conftest import HOSTS
from tests.multihost.hosts import Host
from tests.multihost.request_load import RequestLoad
from tests.waiting import wait_until

#: What the replica that is fed may take beyond what it has.
MEMORY_BYTES = 16 << 20


class Victims:
    """Picks whom a fault hits."""

    def __init__(self, cluster: Cluster, script: RequestLoad, chance: random.Random, trouble: str) -> None:
        self.cluster = cluster
        self.script = script
        self.chance = chance
        self._trouble = trouble
        #: Requests that no process survives.
        self.poisoned = 0

    def any_host(self) -> Host:
        return self.cluster.hosts[self.chance.choice(HOSTS)]

    def other_host(self) -> Host:
        """Pick one on which the script does not run."""
        return self.cluster.hosts[self.chance.choice(HOSTS[1:])]

    def replica(self, host: Host) -> psutil.Process:
        """Pick a replica of a host, whether it serves requests or scores."""
        assert wait_until(lambda: host.processes("ray::Replica")), f"no replica on {host.name}"
        return self.chance.choice(sorted(host.processes("ray::Replica"), key=lambda process: process.pid))

    def signal(self, process: psutil.Process, number: signal.Signals) -> None:
        """Send a signal; who has ended meanwhile, of an earlier fault, needs none."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)

    def trouble(self, host: Host, what: str, seconds: float) -> None:
        host.run("sh", "-c", f"echo {what} > {self._trouble}")
        time.sleep(seconds)
        host.run("rm", "-f", self._trouble)

    def order(self, what: str) -> None:
        """Have the script send a certain request, and wait until it has."""
        (self.cluster.shared / what).touch()
        assert wait_until(lambda: not (self.cluster.shared / what).exists())

    def losses(self) -> int:
        return self.script.standings()[-1].counters["losses"]


def kill_a_replica(victims: Victims) -> None:
    victims.signal(victims.replica(victims.any_host()), signal.SIGKILL)


def stop_a_replica(victims: Victims) -> None:
    stopped = victims.replica(victims.any_host())
    victims.signal(stopped, signal.SIGSTOP)
    time.sleep(victims.chance.uniform(1.0, 10.0))
    victims.signal(stopped, signal.SIGCONT)


def take_a_link_down(victims: Victims) -> None:
    host = victims.other_host()
    host.link_down()
    time.sleep(5)
    host.link_up()
    host.is_whole = True


def kill_a_host(victims: Victims) -> None:
    victims.other_host().kill_all_processes()
    victims.cluster.set_up(HOSTS)


def drain_a_host(victims: Victims) -> None:
    host = victims.other_host()
    victims.cluster.drain(host)
    time.sleep(victims.chance.uniform(2.0, 6.0))
    host.is_whole = False
    victims.cluster.set_up(HOSTS)


def have_a_device_fail(victims: Victims) -> None:
    victims.trouble(victims.any_host(), "fails", victims.chance.uniform(1.0, 5.0))


def slow_a_device(victims: Victims) -> None:
    victims.trouble(victims.any_host(), "0.1", victims.chance.uniform(1.0, 5.0))


def have_a_device_hang(victims: Victims) -> None:
    victims.trouble(victims.any_host(), "hangs", victims.chance.uniform(1.0, 5.0))


def send_poison(victims: Victims) -> None:
    victims.poisoned += 1
    victims.order("poison")


def exhaust_memory(victims: Victims) -> None:
    """Limit the memory of what runs on the first host's cores, and feed it; without control groups, kill it."""
    known = victims.cluster.hosts["w0"].processes("ray::Replica")
    if memory_limit.why_not() is not None or not known:
        return
    losses = victims.losses()
    limit = memory_limit.MemoryLimit(MEMORY_BYTES)
    for process in known:
        with contextlib.suppress(OSError):
            limit.add(process.pid)
    victims.order("meal")
    wait_until(lambda: victims.losses() > losses)
    for process in known:
        victims.signal(process, signal.SIGKILL)
    assert wait_until(lambda: not any(os.path.exists(f"/proc/{process.pid}") for process in known))
    limit.close()


FAULTS: dict[str, Callable[[Victims], None]] = {
    "kill a replica": kill_a_replica,
    "stop a replica": stop_a_replica,
    "link down for 5 s": take_a_link_down,
    "kill a host": kill_a_host,
    "drain a host": drain_a_host,
    "device fails": have_a_device_fail,
    "device slows": slow_a_device,
    "device hangs": have_a_device_hang,
    "poison": send_poison,
    "memory": exhaust_memory,
}
