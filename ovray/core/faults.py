"""What goes wrong in a simulation, and what a perfect scheduler that knew it could still reach.

May not enter: the scheduler.  Who acts these out: simulation.py.
"""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ovray.core.ids import ReplicaId
from ovray.core.simulated_replica import ReplicaModel


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDown:
    """From ``at_s`` on a replica runs at ``factor`` of its nominal speed; at 0 it hangs without a word."""

    replica: ReplicaId
    at_s: float
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """At ``at_s`` a replica dies with all it holds; at ``back_s`` it is ready again, where that is finite."""

    replica: ReplicaId
    at_s: float
    back_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """At ``at_s`` a replica is asked to leave."""

    replica: ReplicaId
    at_s: float


Fault = SlowDown | Death | Drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishaps:
    """Says how likely it is that one dispatch goes wrong, and in which way."""

    lost_reply: float = 0.0
    duplicated_reply: float = 0.0
    #: A reply that takes up to ``late_by_s`` longer than its round trip.
    late_reply: float = 0.0
    late_by_s: float = 1.0
    #: The replica reports that its device failed.
    device_failure: float = 0.0
    #: The replica reports that the input is to blame.
    input_failure: float = 0.0


def random_deaths(
    models: Sequence[ReplicaModel], *, dying: float, returning: float, until_s: float, chance: random.Random
) -> list[Fault]:
    """Let a part ``dying`` of the replicas die before ``until_s``, and a part ``returning`` of those come back."""
    doomed = chance.sample(list(models), round(dying * len(models)))
    backs = round(returning * len(doomed))
    deaths: list[Fault] = []
    for number, model in enumerate(doomed):
        at_s = chance.uniform(0.0, until_s)
        back_s = at_s + model.compile_s + chance.uniform(0.05, 0.2) * until_s if number < backs else math.inf
        deaths.append(Death(replica=model.id, at_s=at_s, back_s=back_s))
    return deaths


def bound_s(models: Iterable[ReplicaModel], faults: Iterable[Fault], rows: int) -> float:
    """Return how long ``rows`` take at least: rows over the sum of rates, as it changes with the faults.

    Start-up is not in it; work that dies with a replica counts as done.  ``inf`` where the rows are never done.
    """
    changes = sorted(_rate_changes(list(models), list(faults)))
    now_s, rate, left = 0.0, 0.0, float(rows)
    for at_s, change in changes:
        done = rate * (at_s - now_s)
        if done >= left:
            break
        now_s, rate, left = at_s, max(0.0, rate + change), left - done
    return now_s + left / rate if rate > 1e-9 else math.inf


def _rate_changes(models: list[ReplicaModel], faults: list[Fault]) -> Iterable[tuple[float, float]]:
    by_replica: dict[ReplicaId, list[Fault]] = {}
    for fault in faults:
        by_replica.setdefault(fault.replica, []).append(fault)
    for model in models:
        points = sorted(_points(by_replica.get(model.id, [])), key=lambda point: point[0])
        factor, alive, rate = 1.0, True, model.rows_per_s
        yield 0.0, rate
        for at_s, new_factor, new_alive in points:
            factor = factor if new_factor is None else new_factor
            alive = alive if new_alive is None else new_alive
            now = model.rows_per_s * factor * alive
            yield at_s, now - rate
            rate = now


def _points(faults: list[Fault]) -> Iterable[tuple[float, float | None, bool | None]]:
    """Yield when a replica's speed factor or its being alive changes, and to what."""
    for fault in faults:
        if isinstance(fault, SlowDown):
            yield fault.at_s, fault.factor, None
            continue
        yield fault.at_s, None, False
        if isinstance(fault, Death) and fault.back_s < math.inf:
            yield fault.back_s, None, True
