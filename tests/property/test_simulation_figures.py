"""The figures that the scheduler must reach, with fixed seeds; ``ovray simulate`` prints the same ones."""

import random
import subprocess
import sys

import pytest

from ovray.core.faults import Death, SlowDown, bound_s, random_deaths
from ovray.core.ids import ReplicaId
from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler
from ovray.core.simulated_replica import ReplicaModel
from ovray.core.simulation import JobReport, Simulation, Surroundings

SEEDS = [0, 1, 2]


def replicas(*groups: tuple[int, float], jitter: float = 0.2) -> list[ReplicaModel]:
    """Return ``count`` models at ``ms`` a row for each group."""
    times_ms = [ms for count, ms in groups for _ in range(count)]
    return [
        ReplicaModel(id=ReplicaId(f"sim/SIM#{number}"), row_s=ms / 1000, jitter=jitter)
        for number, ms in enumerate(times_ms)
    ]


UNEQUAL = replicas((100, 40.0), (5, 2.0))


def run_job(models: list[ReplicaModel], rows: int, around: Surroundings, seed: int) -> JobReport:
    report = Simulation(Scheduler(), models, around, seed=seed).run_job(rows)
    assert (report.lost, report.duplicated, report.failure) == (0, 0, None)
    return report


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_unequal_replicas_add_up_to_nearly_the_sum_of_their_speeds(seed: int) -> None:
    assert run_job(UNEQUAL, 1_000_000, Surroundings(), seed).efficiency >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("at_s", [100.0, 190.0])
def test_a_fast_replica_that_drops_to_a_quarter_of_its_speed_costs_little_more_than_that(
    at_s: float, seed: int
) -> None:
    around = Surroundings(faults=[SlowDown(replica=UNEQUAL[101].id, at_s=at_s, factor=0.25)])

    report = run_job(UNEQUAL, 1_000_000, around, seed)

    assert report.bound_s == pytest.approx(at_s + (1_000_000 - 5000 * at_s) / 4625)
    assert report.efficiency >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_tenth_of_the_replicas_may_die_and_half_of_those_come_back(seed: int) -> None:
    deaths = random_deaths(UNEQUAL, dying=0.1, returning=0.5, until_s=200.0, chance=random.Random(seed))

    assert run_job(UNEQUAL, 1_000_000, Surroundings(faults=deaths), seed).efficiency >= 0.95


@pytest.mark.slow
def test_a_replica_that_hangs_does_not_hang_the_job() -> None:
    around = Surroundings(faults=[SlowDown(replica=UNEQUAL[101].id, at_s=150.0, factor=0.0)], give_up_after_s=1e6)

    assert run_job(UNEQUAL, 1_000_000, around, 0).efficiency >= 0.95


BIG = """
import random
from pathlib import Path
from ovray.core.ids import ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.core.simulated_replica import ReplicaModel
from ovray.core.simulation import Simulation
times_ms = random.Random(0)
models = [
    ReplicaModel(id=ReplicaId(f"r{number}"), row_s=times_ms.uniform(2.0, 50.0) / 1000, jitter=0.2)
    for number in range(10_000)
]
report = Simulation(Scheduler(), models).run_job(10_000_000)
# Not getrusage's ru_maxrss: that begins with the peak of whoever started this process.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(report.efficiency, report.lost, report.duplicated, int(peak.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_replicas_of_mixed_speeds_share_ten_million_rows() -> None:
    run = subprocess.run([sys.executable, "-c", BIG], capture_output=True, text=True, timeout=500, check=True)

    efficiency, lost, duplicated, peak_bytes = map(float, run.stdout.split())
    assert efficiency >= 0.97
    assert (lost, duplicated) == (0, 0)
    assert peak_bytes < 2**30


@pytest.mark.slow
@pytest.mark.parametrize(("fast_ms", "slow_ms"), [(2.0, 40.0), (5.0, 20.0)])
def test_fastest_completion_has_the_lowest_p99_on_fast_and_slow_replicas(fast_ms: float, slow_ms: float) -> None:
    models = replicas((3, fast_ms), (12, slow_ms))
    rate = 0.8 * sum(model.rows_per_s for model in models)
    p99_s = {}
    for policy in (
        SchedulePolicy.FASTEST_COMPLETION,
        SchedulePolicy.ROUND_ROBIN,
        SchedulePolicy.LEAST_OUTSTANDING,
    ):
        report = Simulation(Scheduler(policy), models, seed=0).run_requests(rate, 20.0)
        assert (report.lost, report.duplicated, report.errors) == (0, 0, 0)
        p99_s[policy] = report.p99_s

    assert min(p99_s, key=lambda policy: p99_s[policy]) is SchedulePolicy.FASTEST_COMPLETION


def test_envelopes_hold_one_request_at_low_load_and_several_under_load() -> None:
    models = replicas((2, 1.0))
    around = Surroundings(round_trip_s=0.01)

    low = Simulation(Scheduler(), models, around, seed=0).run_requests(100.0, 1.0)
    high = Simulation(Scheduler(), models, around, seed=0).run_requests(3000.0, 0.5)

    assert low.requests_per_envelope == 1.0
    assert high.requests_per_envelope > 4.0


def test_the_same_seed_gives_the_same_run() -> None:
    models = replicas((4, 10.0), (2, 3.0))

    first, second = (Simulation(Scheduler(), models, seed=3).run_job(5000) for _ in range(2))

    assert first == second


def test_the_bound_knows_when_replicas_are_gone_or_slow() -> None:
    # given two replicas of 10 rows/s: one dies from 1 to 3 s and is half as fast from 2 s on
    models = replicas((2, 100.0))
    faults = [
        Death(replica=models[0].id, at_s=1.0, back_s=3.0),
        SlowDown(replica=models[0].id, at_s=2.0, factor=0.5),
    ]

    # then 20 rows are done at 1 s, 40 at 3 s, and 15 more each second
    assert bound_s(models, [], 20) == 1.0
    assert bound_s(models, faults, 20) == 1.0
    assert bound_s(models, faults, 40) == 3.0
    assert bound_s(models, faults, 55) == 4.0
    assert bound_s(models[:1], [Death(replica=models[0].id, at_s=1.0)], 11) == float("inf")
