"""Takes hosts, links, processes and memory away from a running scoring job, and counts its rows afterwards.

Each fault is injected while its victim holds work, as the driver's own ledger says; what is measured goes into the
table that closes the run.
"""

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.multihost import memory_limit, table, user_functions
from tests.multihost.cluster import Cluster
from tests.multihost.conftest import HOSTS, ROWS
from tests.multihost.loads import JobOnHosts, ScoringLoad, effect_on, rate, replica_process
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

#: One device on each of the three, equally fast: 20,000 rows take them some 13 s.
EQUAL_DEVICES = "w*/SIM*3?ms=2"
#: As long as needed and no longer, for those whose fault is over soon, or takes long.
FAST_DEVICES = "w*/SIM*3?ms=1"
SLOW_DEVICES = "w*/SIM*3?ms=3"


@pytest.fixture
def job(cluster: Cluster, data: Path, output: Path) -> JobOnHosts:
    return JobOnHosts(
        address=cluster.address, input=str(data), output=str(output), rows=ROWS, devices=EQUAL_DEVICES
    )


def test_replicas_killed_at_random_are_replaced(cluster: Cluster, job: JobOnHosts) -> None:
    chance = random.Random(SEED)
    killed = []
    with ScoringLoad(cluster, job=job) as load:
        wait_until_all_work(load)
        for number in range(10):
            wait_a_while(load, chance.uniform(0.2, 0.8))
            host = cluster.hosts[chance.choice(HOSTS)]
            before = holds_work_now(load, replica_on(host))

            at_s = time.monotonic()
            os.kill(replica_process(host), signal.SIGKILL)

            after = load.wait_for(lambda standing, number=number: standing.counters["losses"] == number + 1)
            assert after.counters["retries"] > before.counters["retries"], "it held nothing"
            killed.append((replica_on(host), at_s))
        count = load.finish()
        effects = [effect_on(load, replica, at_s, at_s + 4.0) for replica, at_s in killed]

    assert (count.lost, count.twice) == (0, 0)
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


def test_a_host_whose_processes_are_all_killed_is_done_without(cluster: Cluster, job: JobOnHosts) -> None:
    with ScoringLoad(cluster, job=job) as load:
        begun = wait_until_all_work(load)
        load.wait_for(lambda standing: standing.at_s >= begun.at_s + 4)
        victim = cluster.hosts["w1"]
        holds_work_now(load, replica_on(victim))

        at_s = time.monotonic()
        victim.kill_all_processes()

        load.wait_for(is_lost_and_replaced)
        count = load.finish()

    assert (count.lost, count.twice) == (0, 0)
    effect = effect_on(load, replica_on(victim), at_s)
    put_down("raylet and all processes of one of three hosts killed", load, count, in_words(effect), "15 s")
    assert effect.taken_over_s is not None
    assert effect.taken_over_s < 15 * slack()
    assert effect.back_s is None
    # The last rows are copied from one to the other: there the rate says nothing of what two can do.
    ended_s = load.standings()[-1].at_s - 1.0
    share = rate(load, at_s + 1.0, ended_s) / rate(load, begun.at_s, at_s)
    put_down("the same", load, count, f"rate {share / (2 / 3):.2f} of two thirds", "0.95")
    assert share > 0.95 * 2 / 3 or is_shared()


def test_a_link_that_is_down_for_five_seconds_holds_up_nobody_else(cluster: Cluster, job: JobOnHosts) -> None:
    victim = cluster.hosts["w1"]
    with ScoringLoad(cluster, job=replace(job, devices=SLOW_DEVICES)) as load:
        wait_until_all_work(load)
        holds_work_now(load, replica_on(victim))

        at_s = time.monotonic()
        victim.link_down()
        load.wait_for(lambda standing: standing.at_s >= at_s + 5)
        victim.link_up()

        count = load.finish()

    assert (count.lost, count.twice) == (0, 0)
    effect = effect_on(load, replica_on(victim), at_s)
    put_down("a host's link down for 5 s, then up", load, count, in_words(effect), "at the others at once")
    assert effect.back_s is not None


def test_a_link_that_stays_down_is_done_without(cluster: Cluster, job: JobOnHosts) -> None:
    victim = cluster.hosts["w2"]
    with ScoringLoad(cluster, job=replace(job, devices=FAST_DEVICES)) as load:
        wait_until_all_work(load)
        holds_work_now(load, replica_on(victim))

        at_s = time.monotonic()
        victim.link_down()

        count = load.finish()

    assert (count.lost, count.twice) == (0, 0)
    effect = effect_on(load, replica_on(victim), at_s)
    put_down("a host's link down for good", load, count, in_words(effect), "35 s")
    assert effect.taken_over_s is not None
    assert effect.taken_over_s < 35 * slack()


def test_a_replica_that_is_stopped_for_a_while_holds_up_nobody_else(cluster: Cluster, job: JobOnHosts) -> None:
    victim = cluster.hosts["w0"]
    with ScoringLoad(cluster, job=replace(job, devices=SLOW_DEVICES)) as load:
        wait_until_all_work(load)
        stopped = replica_process(victim)

        at_s = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        holds_work_now(load, replica_on(victim))
        load.wait_for(lambda standing: standing.at_s >= at_s + 20)
        os.kill(stopped, signal.SIGCONT)

        count = load.finish()

    assert (count.lost, count.twice) == (0, 0)
    effect = effect_on(load, replica_on(victim), at_s)
    put_down("a replica stopped for 20 s, then continued", load, count, in_words(effect), "3 s at the others")
    assert effect.others_s < 3 * slack()


def test_a_replica_that_takes_too_much_memory_is_replaced(cluster: Cluster, job: JobOnHosts) -> None:
    reason = memory_limit.why_not()
    if reason is not None:
        pytest.skip(reason)
    victim = cluster.hosts["w1"]
    hungry = replace(job, preprocess="tests.multihost.user_functions:with_hunger")
    with ScoringLoad(cluster, job=hungry) as load:
        wait_until_all_work(load)
        limit = memory_limit.MemoryLimit(200 << 20)
        limit.add(replica_process(victim))

        at_s = time.monotonic()
        victim.run("touch", f"{cluster.local}/tmp/eat")
        assert wait_until(lambda: limit.kills > 0)
        victim.run("rm", f"{cluster.local}/tmp/eat")

        load.wait_for(is_lost_and_replaced)
        count = load.finish()
        limit.close()

    assert (count.lost, count.twice) == (0, 0)
    effect = effect_on(load, replica_on(victim), at_s)
    put_down(
        "a replica's memory limit exceeded, killed by the kernel", load, count, in_words(effect), "as SIGKILL"
    )
    assert effect.back_s is not None


def test_a_host_that_is_drained_finishes_what_it_holds_and_leaves(cluster: Cluster, job: JobOnHosts) -> None:
    victim = cluster.hosts["w0"]
    with ScoringLoad(cluster, job=job) as load:
        wait_until_all_work(load)
        holds_work_now(load, replica_on(victim))

        at_s = time.monotonic()
        cluster.drain(victim)
        left = load.wait_for(lambda standing: replica_on(victim) not in standing.replicas, since_s=at_s)

        count = load.finish()
    victim.is_whole = False

    assert (count.lost, count.twice) == (0, 0)
    last = load.standings()[-1]
    assert (last.counters["losses"], last.counters["retries"]) == (0, 0)
    left_s = left.at_s - at_s
    put_down("a host is drained half-way", load, count, f"left after {left_s:.1f} s", "no error, no retry")


def test_a_driver_that_is_killed_again_and_again_loses_nothing(cluster: Cluster, job: JobOnHosts) -> None:
    chance = random.Random(SEED)
    for _ in range(5):
        with ScoringLoad(cluster, job=job) as load:
            load.wait_for(lambda standing: standing.done > 0)
            wait_a_while(load, chance.uniform(0.0, 1.0))
            assert any(holds["outstanding"] for holds in load.standings()[-1].replicas.values())

            load.kill()
            killed_s = time.monotonic()

            are_gone = wait_until(lambda: not any(cluster.hosts[name].processes("ray::Replica") for name in HOSTS))
            assert are_gone, "replicas outlive their driver"
            gone_s = time.monotonic() - killed_s
    with ScoringLoad(cluster, job=job) as load:
        count = load.finish()

    assert count.report["resumed_rows"] > 0
    assert (count.lost, count.twice) == (0, 0)
    put_down(
        "the driver is killed and started again, five times",
        load,
        count,
        f"replicas gone after {gone_s:.1f} s",
        "",
    )


def test_a_row_that_kills_its_process_is_found_and_named(cluster: Cluster, job: JobOnHosts) -> None:
    poisoned = replace(job, devices=FAST_DEVICES, preprocess="tests.multihost.user_functions:with_poison")
    with ScoringLoad(cluster, job=poisoned) as load:
        said = load.fail()
        losses = load.standings()[-1].counters["losses"]  # the last one may be yet to come

    row = user_functions.POISON_ROW
    assert said["kind"] == "DataError"
    assert f"in.parquet, row {row} (the first is 0): 3 replicas died while they held these rows" in said["error"]
    assert losses <= 3
    rows = table.Row(
        fault="a poison row among 20,000",
        load=load.text,
        lost=0,
        twice=0,
        goes_on="3 replicas died; the error names file and row",
        asked="one error, for that row",
    )
    table.rows.append(rows)


def test_a_row_that_kills_its_process_is_put_on_record_and_all_others_are_scored(
    cluster: Cluster, job: JobOnHosts
) -> None:
    poisoned = replace(
        job,
        devices=FAST_DEVICES,
        preprocess="tests.multihost.user_functions:with_poison",
        on_error="record",
    )
    with ScoringLoad(cluster, job=poisoned) as load:
        count = load.finish()
        losses = load.standings()[-1].counters["losses"]

    missing = {*range(ROWS)} - {*pq.read_table(job.output, columns=["number"]).column("number").to_pylist()}
    assert missing == {user_functions.POISON_ROW}
    assert (count.report["errors"], count.twice) == (1, 0)
    good = replace(count, lost=count.lost - 1)
    goes_on = f"{losses} replicas died; the row is in _errors/"
    put_down("a poison row, --on-error record", load, good, goes_on, "0 of the good, one error")


def test_a_host_that_joins_gets_replicas(cluster: Cluster, job: JobOnHosts) -> None:
    cluster.set_up(HOSTS[:2])
    # Short parts, since the first ones are cut by the rate of a warm-up that knew of no leisure.
    leisurely = "tests.multihost.user_functions:with_leisure"
    on_cpus = replace(job, devices="w*/CPU", preprocess=leisurely, commit_every_s=0.02)
    with ScoringLoad(cluster, job=on_cpus) as load:
        wait_until_all_work(load, hosts=2)

        at_s = time.monotonic()
        joined = cluster.add_host("w2")
        cluster.wait_for(HOSTS)
        known_s = time.monotonic()

        works = load.wait_for(lambda standing: standing.holds_work(f"{joined.name}/CPU.0#0"), since_s=at_s)
        (cluster.shared / "hurry").touch()
        count = load.finish()
    (cluster.shared / "hurry").unlink()

    assert (count.lost, count.twice) == (0, 0)
    works_s = works.at_s - known_s
    put_down("a host joins half-way", load, count, f"works {works_s:.1f} s after Ray knew it", "compile + 10 s")


def test_a_device_that_fails_is_left_out_until_a_probe_passes_and_one_that_slows_gets_less(
    cluster: Cluster, job: JobOnHosts
) -> None:
    trouble = f"{cluster.local}/tmp/trouble"
    failing, slow, sound = (cluster.hosts[name] for name in HOSTS)
    with ScoringLoad(cluster, job=replace(job, devices=f"{SLOW_DEVICES}&trouble={trouble}")) as load:
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
        count = load.finish()

    assert (count.lost, count.twice) == (0, 0)
    done = {
        host.name: meanwhile.replicas[replica_on(host)]["done"] - evicted.replicas[replica_on(host)]["done"]
        for host in (failing, slow, sound)
    }
    put_down(
        "a device fails at every row, and another slows to a tenth",
        load,
        count,
        f"put aside after {evicted.at_s - at_s:.1f} s, back {back.at_s - mended_s:.1f} s after it was mended; the"
        f" slow one did {done[slow.name] / max(1, done[sound.name]):.2f} of the sound one's share",
        "readmitted after a probe passes",
    )
    assert load.standings()[-1].counters["evictions"] > 0
    assert done[failing.name] == 0
    assert done[slow.name] < done[sound.name]


def test_ctrl_c_lets_replicas_complete_what_they_hold(cluster: Cluster, job: JobOnHosts) -> None:
    with ScoringLoad(cluster, job=job) as load:
        wait_until_all_work(load)
        held = load.standings()[-1]

        load.send(signal.SIGINT)
        said = load.fail()
        last = load.standings()[-1]

    assert said["kind"] == "KeyboardInterrupt"
    assert last.done > held.done
    assert last.counters["retries"] == 0
    assert load.rows_there() >= last.done


def test_when_the_head_is_gone_a_job_ends_with_an_error_and_so_does_every_pending_request(
    data: Path, output: Path, bench: Cluster
) -> None:
    """The last test: its cluster is done for."""
    bench.set_up(HOSTS)
    job = JobOnHosts(
        address=bench.address,
        input=str(data),
        output=str(output),
        rows=ROWS,
        devices=SLOW_DEVICES,
        replica_timeout_s=5.0,
    )
    # So slow that requests are pending at any time.
    asked = RequestsOnHosts(
        address=bench.address, devices="w*/SIM*3?ms=50&answer=sum", replicas=len(HOSTS), log=f"{output}-requests"
    )
    script = RequestLoad(bench, asked=asked, host=bench.hosts["w1"])
    with script, ScoringLoad(bench, job=job, host=bench.hosts["w0"]) as load:
        wait_until_all_work(load)
        wait_until_all_work(script)

        at_s = time.monotonic()
        bench.head.kill_all_processes()

        said = load.fail()
        ended_s = time.monotonic() - at_s
        assert wait_until(lambda: script.lines_with("report")), script.last_words()
        [told] = script.lines_with("report")
    requests, requests_ended_s = told["report"], told["at_s"] - at_s

    assert said["kind"] == "ReplicaError"
    assert "has not answered for 5 s" in said["error"]
    assert 0 < load.rows_there() < ROWS
    assert (requests["lost"], requests["twice"], requests["wrong"]) == (0, 0, 0)
    assert requests["failed"] > 0
    assert all("has not answered for 30 s" in error for error in requests["errors"].values()), requests["errors"]
    fault = "the head's processes are killed"
    asked_for = "bounded"
    table.rows += [
        table.Row(
            fault=f"{fault} (--replica-timeout 5)",
            load=load.text,
            lost=0,
            twice=0,
            goes_on=f"ended with an error after {ended_s:.1f} s",
            asked=asked_for,
        ),
        table.Row(
            fault=fault,
            load=script.text,
            lost=requests["lost"],
            twice=requests["twice"],
            goes_on=f"{requests['failed']} that were pending ended with an error within {requests_ended_s:.1f} s",
            asked=asked_for,
        ),
    ]
