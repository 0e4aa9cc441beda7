"""Random fault schedules: small clusters on which everything goes wrong at once, played by the simulation.

``python -m tests.property.fault_schedules COUNT [FIRST_SEED]`` runs COUNT of them and prints, for the first that
breaks a promise, its seed and the list of events that replays it.
"""

import random
import sys
from dataclasses import dataclass, field

from ovray.core.commands import Command
from ovray.core.events import Event
from ovray.core.faults import Death, Drain, Fault, Mishaps, SlowDown
from ovray.core.ids import ReplicaId
from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler
from ovray.core.settings import SchedulerSettings
from ovray.core.simulated_replica import ReplicaModel
from ovray.core.simulation import Simulation, Surroundings


@dataclass
class BrokenPromiseError(Exception):
    """Carries the seed and the events that lead to the fault."""

    seed: int
    what: str
    events: list[tuple[float, Event]] = field(repr=False)

    def __str__(self) -> str:
        events = "\n".join(f"    ({now_s!r}, {event!r})," for now_s, event in self.events)
        how = f"replay with fault_schedules.replay({self.seed}), or with these events:"
        return f"seed {self.seed}: {self.what}\n{how}\n{events}"


def replay(seed: int) -> int:
    """Run one schedule, checking the promises after each event; return the number of events."""
    chance = random.Random(seed)
    scheduler = Scheduler(chance.choice(list(SchedulePolicy)), random.Random(seed), _settings(chance))
    models = _models(chance)
    around = Surroundings(
        round_trip_s=chance.choice([0.0, 0.002, 0.5]),
        give_up_after_s=chance.choice([5.0, 20.0]),
        restart_after_s=1.0,
        faults=_faults(models, chance),
        mishaps=_mishaps(chance),
    )
    events: list[tuple[float, Event]] = []

    def check(now_s: float, event: Event, commands: list[Command]) -> None:
        events.append((now_s, event))
        scheduler.check_invariants()
        if len(events) > 20_000:
            raise AssertionError("it does not end")

    simulation = Simulation(scheduler, models, around, seed=seed, observer=check)
    try:
        if chance.random() < 0.5:
            _check_job(simulation, chance)
        else:
            _check_requests(simulation, chance)
    except Exception as error:
        raise BrokenPromiseError(seed, f"{type(error).__name__}: {error}", events) from error
    return len(events)


def _check_job(simulation: Simulation, chance: random.Random) -> None:
    report = simulation.run_job(
        chance.randrange(1, 400),
        min_chunk_rows=chance.choice([1, 1, 7]),
        max_chunk_s=chance.choice([0.5, 10.0]),
        max_backups=chance.choice([0, 2, 16]),
        cheap_cuts=tuple(sorted(chance.sample(range(400), 5))),
    )
    assert report.duplicated == 0, f"{report.duplicated} rows were committed twice"
    assert report.failure is not None or report.lost == 0, f"{report.lost} rows were lost"


def _check_requests(simulation: Simulation, chance: random.Random) -> None:
    report = simulation.run_requests(chance.choice([1.0, 5.0, 20.0]), 4.0, priority=chance.choice([0, 1]))
    assert report.duplicated == 0, f"{report.duplicated} requests ended twice"
    assert report.lost == 0, f"{report.lost} requests never ended"


def _settings(chance: random.Random) -> SchedulerSettings:
    return SchedulerSettings(
        max_waiting_requests=chance.choice([1, 4, 1000]),
        evict_after_failures=chance.choice([1, 3]),
        max_tries=chance.choice([1, 3, 9]),
        max_replicas_killed=chance.choice([0, 2, 9]),
        readmit_after_s=0.2,
        readmit_after_max_s=2.0,
    )


def _models(chance: random.Random) -> list[ReplicaModel]:
    return [
        ReplicaModel(
            id=ReplicaId(f"r{number}"),
            row_s=chance.choice([0.002, 0.01, 0.05, 0.2]),
            nireq=chance.choice([1, 1, 2, 4]),
            compile_s=chance.choice([0.0, 1.0]),
            jitter=chance.choice([0.0, 0.2, 0.6]),
            device=chance.choice(["CPU", "GPU"]),
        )
        for number in range(chance.randrange(2, 6))
    ]


def _faults(models: list[ReplicaModel], chance: random.Random) -> list[Fault]:
    # The first one is spared, so that every schedule has an end.
    faults: list[Fault] = []
    for model in models[1:]:
        for _ in range(chance.randrange(3)):
            at_s = chance.uniform(0.0, 6.0)
            lot = chance.random()
            if lot < 0.5:
                faults.append(Death(replica=model.id, at_s=at_s, back_s=at_s + chance.choice([0.01, 1.0, 1e9])))
            elif lot < 0.9:
                faults.append(SlowDown(replica=model.id, at_s=at_s, factor=chance.choice([0.0, 0.1, 0.5, 3.0])))
            else:
                faults.append(Drain(replica=model.id, at_s=at_s))
    return faults


def _mishaps(chance: random.Random) -> Mishaps:
    return Mishaps(
        lost_reply=chance.choice([0.0, 0.0, 0.05]),
        duplicated_reply=chance.choice([0.0, 0.3]),
        late_reply=chance.choice([0.0, 0.3]),
        late_by_s=chance.choice([0.01, 8.0]),
        device_failure=chance.choice([0.0, 0.0, 0.1]),
        input_failure=chance.choice([0.0, 0.0, 0.02]),
    )


def main() -> None:
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    events = sum(replay(seed) for seed in range(first, first + count))
    print(f"{count} fault schedules from seed {first}, {events} events: every promise held")


if __name__ == "__main__":
    main()
