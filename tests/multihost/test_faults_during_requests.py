"""Takes hosts, links, processes and memory away from a script that asks, and counts its answers afterwards.

Each request bears a number by which its answer is known.  The script runs on the first host: requests to the
replica there go over a socket, all others through Ray.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.multihost import memory_limit, table
from tests.multihost.cluster import Cluster
from tests.multihost.conftest import HOSTS
from tests.multihost.hosts import Host
from tests.multihost.loads import Count, Standing, effect_on, rate, replica_process
from tests.multihost.request_load import RequestLoad, RequestsOnHosts
from tests.multihost.watching import (
    REPLACED_WITHIN_S,
    SEED,
    holds_work_now,
    in_words,
    is_lost_and_replaced,
    is_shared,
    put_down,
    replica_on,
    slack,
    wait_a_while,
    wait_until_all_work,
)
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

#: One device on each of the three, equally fast: 20,000 requests of 22,000 rows take them some 15 s.
EQUAL_DEVICES = "w*/SIM*3?ms=2&answer=sum"
#: For those whose fault takes long.
SLOW_DEVICES = "w*/SIM*3?ms=4&answer=sum"


@pytest.fixture
def asked(cluster: Cluster, output: Path) -> RequestsOnHosts:
    return RequestsOnHosts(address=cluster.address, devices=EQUAL_DEVICES, replicas=len(HOSTS), log=str(output))


@pytest.fixture
def start(cluster: Cluster) -> Callable[[RequestsOnHosts], RequestLoad]:
    """Makes a load whose script runs on the first host."""
    return lambda asked: RequestLoad(cluster, asked=asked, host=cluster.hosts["w0"])


Start = Callable[[RequestsOnHosts], RequestLoad]


@pytest.fixture(autouse=True)
def _until_hurried(bench: Cluster) -> Iterator[None]:
    yield
    (bench.shared / "hurry").unlink(missing_ok=True)


def hurry(cluster: Cluster) -> None:
    """Have the requests end that go on until then."""
    (cluster.shared / "hurry").touch()


def check_all_answered(count: Count) -> None:
    assert (count.lost, count.twice) == (0, 0)
    assert count.report["failed"] == 0, count.report["errors"]


def test_replicas_killed_at_random_are_replaced(cluster: Cluster, asked: RequestsOnHosts, start: Start) -> None:
    chance = random.Random(SEED)
    victims = [*HOSTS * 3, chance.choice(HOSTS)]
    chance.shuffle(victims)
    killed = []
    with start(replace(asked, until_hurried=True)) as load:
        wait_until_all_work(load)
        for number, name in enumerate(victims):
            wait_a_while(load, chance.uniform(0.2, 0.8))
            before = holds_work_now(load, replica_on(cluster.hosts[name]))
            victim = replica_process(cluster.hosts[name])
            os.kill(victim, signal.SIGSTOP)
            holds_work_now(load, replica_on(cluster.hosts[name]))

            at_s = time.monotonic()
            os.kill(victim, signal.SIGKILL)

            after = load.wait_for(lambda standing, number=number: standing.counters["losses"] == number + 1)
            # Sent again, or as copies before that where the stopped replica was silent for long.
            moved = [each.counters["retries"] + each.counters["backups_sent"] for each in (before, after)]
            assert moved[1] > moved[0], "it held nothing"
            killed.append((replica_on(cluster.hosts[name]), at_s))
        hurry(cluster)
        count = load.finish()
        effects = [effect_on(load, replica, at_s, at_s + 4.0) for replica, at_s in killed]

    check_all_answered(count)
    others_s = max(effect.others_s for effect in effects)
    back_s = max(effect.back_s for effect in effects if effect.back_s is not None)
    put_down(
        "SIGKILL of a replica, ten times at random",
        load,
        count,
        f"others silent {others_s:.1f} s; replaced after {back_s:.1f} s at most",
        "1 s at the others; replaced within 5 s",
    )
    assert others_s < 1.0 * slack()
    assert back_s < REPLACED_WITHIN_S * slack()


def test_a_host_whose_processes_are_all_killed_is_done_without(
    cluster: Cluster, asked: RequestsOnHosts, start: Start
) -> None:
    with start(asked) as load:
        begun = wait_until_all_work(load)
        load.wait_for(lambda standing: standing.at_s >= begun.at_s + 4)
        victim = cluster.hosts["w1"]
        holds_work_now(load, replica_on(victim))

        at_s = time.monotonic()
        victim.kill_all_processes()

        load.wait_for(is_lost_and_replaced)
        count = load.finish()

    check_all_answered(count)
    effect = effect_on(load, replica_on(victim), at_s)
    put_down("raylet and all processes of one of three hosts killed", load, count, in_words(effect), "15 s")
    assert effect.taken_over_s is not None
    assert effect.taken_over_s < 15 * slack()
    assert effect.back_s is None
    ended_s = load.standings()[-1].at_s - 1.0
    share = rate(load, at_s + 1.0, ended_s) / rate(load, begun.at_s, at_s)
    put_down("the same", load, count, f"rate {share / (2 / 3):.2f} of two thirds", "0.95")
    assert share > 0.95 * 2 / 3 or is_shared()


def test_a_link_that_is_down_for_five_seconds_holds_up_nobody_else(
    cluster: Cluster, asked: RequestsOnHosts, start: Start
) -> None:
    victim = cluster.hosts["w1"]
    with start(replace(asked, devices=SLOW_DEVICES)) as load:
        wait_until_all_work(load)
        holds_work_now(load, replica_on(victim))

        at_s = time.monotonic()
        victim.link_down()
        load.wait_for(lambda standing: standing.at_s >= at_s + 5)
        assert load.standings()[-1].holds_work(replica_on(victim)) or load.standings()[-1].counters["backups_won"]
        victim.link_up()

        count = load.finish()

    check_all_answered(count)
    effect = effect_on(load, replica_on(victim), at_s)
    put_down("a host's link down for 5 s, then up", load, count, in_words(effect), "at the others at once")
    assert effect.back_s is not None


def test_a_link_that_stays_down_is_done_without(cluster: Cluster, asked: RequestsOnHosts, start: Start) -> None:
    victim = cluster.hosts["w2"]
    with start(asked) as load:
        wait_until_all_work(load)
        holds_work_now(load, replica_on(victim))

        at_s = time.monotonic()
        victim.link_down()

        count = load.finish()

    check_all_answered(count)
    effect = effect_on(load, replica_on(victim), at_s)
    # Ray (2.60) never sends a task of the others, where the next script runs, to the victim's successor, which has
    # its address; so they are replaced, too.
    for host in HOSTS:
        cluster.hosts[host].is_whole = False
    put_down("a host's link down for good", load, count, in_words(effect), "35 s")
    assert effect.taken_over_s is not None
    assert effect.taken_over_s < 35 * slack()


def test_replicas_that_are_stopped_for_a_while_hold_up_nobody_else(
    cluster: Cluster, asked: RequestsOnHosts, start: Start
) -> None:
    """Two of the three: one that is reached over a socket, one that is reached through Ray."""
    victims = [cluster.hosts["w0"], cluster.hosts["w1"]]
    with start(replace(asked, devices=SLOW_DEVICES, until_hurried=True)) as load:
        wait_until_all_work(load)
        stopped = [replica_process(victim) for victim in victims]

        at_s = time.monotonic()
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        for victim in victims:
            holds_work_now(load, replica_on(victim))
        held = load.wait_for(lambda standing: standing.at_s >= at_s + 20)
        for process in stopped:
            os.kill(process, signal.SIGCONT)
        back = [
            load.wait_for(lambda standing, name=victim: standing.trusts(replica_on(name)), since_s=held.at_s)
            for victim in victims
        ]
        hurry(cluster)

        count = load.finish()

    check_all_answered(count)
    effects = [effect_on(load, replica_on(victim), at_s) for victim in victims]
    others_s = max(longest_silence_of(load.standings(), replica_on(cluster.hosts["w2"]), at_s, held.at_s), 0.0)
    taken_over_s = max(effect.taken_over_s for effect in effects if effect.taken_over_s is not None)
    put_down(
        "two of three replicas stopped for 20 s, then continued",
        load,
        count,
        f"the third silent {others_s:.1f} s; work taken over after {taken_over_s:.1f} s; back "
        f"{max(standing.at_s for standing in back) - held.at_s:.1f} s after they were continued",
        "3 s at the others",
    )
    assert held.counters["backups_won"] > 0, "what they held was to be answered by the third"
    assert held.counters["losses"] == 0
    assert others_s < 3 * slack()
    assert taken_over_s < 3 * slack()


def longest_silence_of(standings: list[Standing], replica: str, since_s: float, until_s: float) -> float:
    """Return the longest time without a row done by one replica, within a span of time."""
    done_at_s, done = [since_s], None
    for standing in standings:
        if since_s <= standing.at_s <= until_s:
            now = standing.replicas[replica]["done"]
            if done is not None and now > done:
                done_at_s.append(standing.at_s)
            done = now
    return max(after - before for before, after in zip(done_at_s, [*done_at_s[1:], until_s], strict=True))


def test_a_replica_that_takes_too_much_memory_is_replaced(
    cluster: Cluster, asked: RequestsOnHosts, start: Start
) -> None:
    reason = memory_limit.why_not()
    if reason is not None:
        pytest.skip(reason)
    fed = replace(asked, devices="w*/CPU", fed="w0/CPU.0#0", until_hurried=True)
    with start(fed) as load:
        wait_until_all_work(load)
        limit = memory_limit.MemoryLimit(16 << 20)
        limit.add(replica_process(cluster.hosts["w0"]))

        at_s = time.monotonic()
        (cluster.shared / "meal").touch()
        assert wait_until(lambda: limit.kills > 0)

        load.wait_for(is_lost_and_replaced)
        load.wait_for(lambda standing: standing.trusts("w0/CPU.0#0"), since_s=time.monotonic())
        hurry(cluster)
        count = load.finish()
        limit.close()

    check_all_answered(count)
    effect = effect_on(load, "w0/CPU.0#0", at_s)
    put_down(
        "a replica's memory limit exceeded, killed by the kernel", load, count, in_words(effect), "as SIGKILL"
    )
    assert effect.back_s is not None


def test_a_host_that_is_drained_finishes_what_it_holds_and_leaves(
    cluster: Cluster, asked: RequestsOnHosts, start: Start
) -> None:
    victim = cluster.hosts["w2"]
    with start(asked) as load:
        wait_until_all_work(load)
        holds_work_now(load, replica_on(victim))

        at_s = time.monotonic()
        cluster.drain(victim)
        left = load.wait_for(lambda standing: replica_on(victim) not in standing.replicas, since_s=at_s)

        count = load.finish()
    victim.is_whole = False

    check_all_answered(count)
    last = load.standings()[-1]
    assert (last.counters["losses"], last.counters["retries"]) == (0, 0)
    left_s = left.at_s - at_s
    put_down("a host is drained half-way", load, count, f"left after {left_s:.1f} s", "no error, no retry")


def test_an_input_that_kills_its_process_gets_one_error_and_all_others_their_answers(
    cluster: Cluster, asked: RequestsOnHosts, start: Start
) -> None:
    poison = 1_001
    with start(replace(asked, devices="w*/CPU", requests=10_001, poison=poison)) as load:
        count = load.finish()
        losses = load.standings()[-1].counters["losses"]

    assert (count.lost, count.twice, count.report["failed"]) == (0, 0, 1)
    said = count.report["errors"][str(poison)]
    assert said.startswith("ReplicaError: 3 replicas died while they held this request")
    put_down(
        "a poison input among 10,000 good ones",
        load,
        count,
        f"{losses} replicas died, and were replaced",
        "one error, for that input",
    )


def test_when_the_script_is_killed_nothing_of_it_is_left(
    cluster: Cluster, asked: RequestsOnHosts, start: Start
) -> None:
    hosts = [cluster.hosts[name] for name in HOSTS]
    before = {host.name: left_on(cluster, host) for host in hosts}
    with start(replace(asked, devices="w*/CPU", until_hurried=True)) as load:
        wait_until_all_work(load)
        assert any(known["outstanding"] for known in load.standings()[-1].replicas.values())
        assert all(host.processes("ray::Replica") for host in hosts)

        at_s = time.monotonic()
        load.kill()

        assert wait_until(lambda: not any(host.processes("ray::Replica") for host in hosts))
        gone_s = time.monotonic() - at_s
        assert wait_until(lambda: not any(cluster.leased(host) for host in hosts)), "cores are leased still"

    assert {host.name: left_on(cluster, host) for host in hosts} == before
    row = table.Row(
        fault="the script is killed with requests in flight",
        load=load.text,
        lost=0,
        twice=0,
        goes_on=f"replicas and leases gone after {gone_s:.1f} s",
        asked="nothing left",
    )
    table.rows.append(row)


def left_on(cluster: Cluster, host: Host) -> set[str]:
    """Return what lies in shared memory and the temporary folder of a host; locks stay there on purpose."""
    names = host.run("ls", "-A", "/dev/shm", f"{cluster.local}/tmp").split()
    return {name for name in names if not name.endswith(".lock")}


def test_a_host_that_joins_gets_requests(cluster: Cluster, asked: RequestsOnHosts, start: Start) -> None:
    cluster.set_up(HOSTS[:2])
    with start(replace(asked, devices="w*/CPU", replicas=2, until_hurried=True)) as load:
        load.wait_for(lambda standing: standing.done > 0)

        at_s = time.monotonic()
        joined = cluster.add_host("w2")
        cluster.wait_for(HOSTS)
        known_s = time.monotonic()

        replica = f"{joined.name}/CPU.0#0"
        works = load.wait_for(
            lambda standing: replica in standing.replicas and standing.replicas[replica]["done"] > 0, since_s=at_s
        )
        hurry(cluster)
        count = load.finish()

    check_all_answered(count)
    works_s = works.at_s - known_s
    put_down("a host joins half-way", load, count, f"works {works_s:.1f} s after Ray knew it", "compile + 10 s")


def test_a_device_that_fails_is_left_out_until_a_probe_passes_and_one_that_slows_gets_less(
    cluster: Cluster, asked: RequestsOnHosts, start: Start
) -> None:
    trouble = f"{cluster.local}/tmp/trouble"
    failing, slow, sound = (cluster.hosts[name] for name in HOSTS)
    with start(replace(asked, devices=f"{SLOW_DEVICES}&trouble={trouble}", until_hurried=True)) as load:
        wait_until_all_work(load)

        at_s = time.monotonic()
        failing.run("sh", "-c", f"echo fails > {trouble}")
        slow.run("sh", "-c", f"echo 0.1 > {trouble}")
        evicted = load.wait_for(
            lambda standing: standing.replicas[replica_on(failing)]["state"] in ("evicted", "probing"),
            since_s=at_s,
        )
        meanwhile = load.wait_for(lambda standing: standing.at_s >= evicted.at_s + 3)
        mended_s = time.monotonic()
        failing.run("rm", trouble)
        back = load.wait_for(lambda standing: standing.trusts(replica_on(failing)), since_s=mended_s)
        slow.run("rm", trouble)
        hurry(cluster)
        count = load.finish()

    check_all_answered(count)
    done = {
        host.name: meanwhile.replicas[replica_on(host)]["done"] - evicted.replicas[replica_on(host)]["done"]
        for host in (failing, slow, sound)
    }
    put_down(
        "a device fails every request, and another slows to a tenth",
        load,
        count,
        f"put aside after {evicted.at_s - at_s:.1f} s, back {back.at_s - mended_s:.1f} s after it was mended; the"
        f" slow one did {done[slow.name] / max(1, done[sound.name]):.2f} of the sound one's share",
        "readmitted after a probe passes",
    )
    assert evicted.counters["retries"] > 0
    assert load.standings()[-1].counters["evictions"] > 0
    assert done[failing.name] == 0
    assert 0 < done[slow.name] < done[sound.name]
