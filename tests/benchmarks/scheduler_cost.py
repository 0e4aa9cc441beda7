"""Wall time of one scheduled request (submitted, sent, completed) on 1,000 replicas against 10, of the core alone.

``python -m tests.benchmarks.scheduler_cost`` prints the medians of interleaved rounds and their ratio.
"""

import statistics
import time

from ovray.core.policies import SchedulePolicy
from tests.unit.scheduled_request import SteadyLoad

ROUNDS = 31
STEPS = 1000


def main() -> None:
    for policy in SchedulePolicy:
        loads = {replicas: SteadyLoad(replicas, policy) for replicas in (10, 1000)}
        times_us: dict[int, list[float]] = {replicas: [] for replicas in loads}
        for _ in range(ROUNDS):
            for replicas, load in loads.items():
                times_us[replicas].append(_time_us(load))
        few, many = (statistics.median(times_us[replicas]) for replicas in (10, 1000))
        print(
            f"{policy.value:20} 10 replicas {few:6.1f} us   1,000 replicas {many:6.1f} us   ratio {many / few:.2f}"
        )


def _time_us(load: SteadyLoad) -> float:
    started_s = time.perf_counter()
    for _ in range(STEPS):
        load.step()
    return (time.perf_counter() - started_s) / STEPS * 1e6


if __name__ == "__main__":
    main()
