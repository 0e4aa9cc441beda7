"""What is measured of requests, in turn: OpenVINO alone in this process, and all others on a Ray that it starts.

All sides of one work are measured in one process, one after the other, turn by turn: two processes half a minute
apart differ by more than what is asked.  It is the Ray that ovray starts for itself: whose workers are not nicer
than the script, for everybody.  It idles while OpenVINO has its turn, at 1 to 2% of a core.
"""

import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import openvino as ov

import ovray
from ovray.driver.session import ray_session
from tests.benchmarks import face_script
from tests.benchmarks.by_hand import figures_of_ray, figures_of_serve
from tests.benchmarks.comparison import Measured
from tests.benchmarks.request_works import RequestWork
from tests.benchmarks.settling import let_it_settle

IN_PROCESS = "in process"
OVRAY = "ovray"
FUTURES = "ovray, map"
OVER_RAY = "ovray, OVRAY_TRANSPORT=ray"

SATURATION = "saturation"
MEDIAN = "saturated median"
ONE = "one at a time"

#: One rate of a second may be off by a fifth on a shared machine.
_RATED_TIMES = 4

#: A percentile needs more requests than a rate.
_ARRIVALS_FACTOR = 4

#: Load of arrivals at random, in percent of what one process can do.
LOADS = (50, 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Says what is measured of one work."""

    work: RequestWork
    #: How long each figure is measured at a time; arrivals at random for four times as long.
    seconds: float
    #: Only the rate at saturation: no latencies, and nobody but OpenVINO and ovray.
    is_short: bool = False


def load_name(percent: int) -> str:
    """Names the figure of arrivals at random."""
    return f"p99 at {percent}%"


def figures_of_requests(questions: Sequence[Question], turns: int) -> Sequence[Measured]:
    """Measures OpenVINO and ovray side by side, and what one writes with Ray alone; a set of figures a turn."""
    found: list[dict[tuple[str, str], float]] = [{} for _ in range(turns)]
    with ray_session("local"):
        for question in questions:
            for turn, one in zip(found, _figures_of(question, turns), strict=True):
                turn.update(_named(question, questions, one))
    return found


def figures_of_two(question: Question, turns: int) -> Sequence[Measured]:
    """Measures two replicas that share the cores, each alone and both together."""
    inputs, seconds = question.work.inputs(), question.seconds
    with ray_session("local"), face_script.throughput(ovray, str(question.work.model), "CPU*2") as compiled:
        while any(replica.state == "starting" for replica in compiled.replicas):
            face_script.one_at_a_time_median_ms(compiled, inputs, 0.1)
        let_it_settle()
        rate = partial(face_script.saturated_rate, ovray, compiled, inputs, seconds)
        names = [replica.id for replica in compiled.replicas]
        return _in_turn(
            turns,
            {
                (SATURATION, "plain sum"): lambda: sum(rate(device=name) for name in names),
                (SATURATION, "together"): rate,
            },
            _RATED_TIMES,
        )


#: A side's name, its module, and the model that it compiled.
_Side = tuple[str, Any, Any]

#: What is to be measured, by the name of the figure and of the side.
_Measures = Mapping[tuple[str, str], Callable[[], float]]


def _in_turn(turns: int, measures: _Measures, times: int = 1) -> list[Measured]:
    """Measures all of these in each turn; so often, there and back, where one number says little by itself."""
    return [_mean([_once(measures, number) for number in range(times)]) for _ in range(turns)]


def _once(measures: _Measures, number: int) -> Measured:
    order = list(measures.items())
    return {name: measure() for name, measure in (order if number % 2 == 0 else reversed(order))}


def _mean(several: Sequence[Measured]) -> Measured:
    return {name: statistics.fmean(one[name] for one in several) for name in several[0]}


def _together(*parts: Sequence[Measured]) -> list[Measured]:
    """Makes one set of figures of each turn."""
    return [{name: value for part in turn for name, value in part.items()} for turn in zip(*parts, strict=True)]


def _figures_of(question: Question, turns: int) -> Sequence[Measured]:
    if question.is_short:
        return _for_many_requests(question, turns)
    return _together(
        _for_many_requests(question, turns),
        _one_by_one(question, turns),
        _over_ray(question, turns),
        _or_nothing("Ray", figures_of_ray, question, turns),
        _or_nothing("Ray Serve", figures_of_serve, question, turns),
    )


def _for_many_requests(question: Question, turns: int) -> Sequence[Measured]:
    model, inputs, seconds = str(question.work.model), question.work.inputs(), question.seconds
    plain = face_script.throughput(ov, model, "CPU")
    with face_script.throughput(ovray, model, "CPU") as ours:
        let_it_settle()
        sides: list[_Side] = [(IN_PROCESS, ov, plain), (OVRAY, ovray, ours)]
        rates = _in_turn(
            turns,
            {
                (SATURATION, side): partial(face_script.saturated_rate, face, compiled, inputs, seconds)
                for side, face, compiled in sides
            },
            _RATED_TIMES,
        )
        if question.is_short:
            return rates
        in_full_per_s = statistics.median(turn[SATURATION, IN_PROCESS] for turn in rates)
        futures = partial(face_script.saturated_rate_of_futures, ours, inputs, seconds)
        return _together(
            rates,
            _in_turn(turns, {(SATURATION, FUTURES): futures}),
            _in_turn(turns, _latencies_of_many(question, sides, in_full_per_s)),
        )


def _latencies_of_many(question: Question, sides: Sequence[_Side], in_full_per_s: float) -> _Measures:
    work, seconds, inputs = question.work, question.seconds, question.work.inputs()
    measures: dict[tuple[str, str], Callable[[], float]] = {}
    for side, face, compiled in sides:
        measures[MEDIAN, side] = partial(
            face_script.saturated_median_ms, face, compiled, inputs, work.outstanding, seconds
        )
    for load in LOADS:
        for side, face, compiled in sides:
            measures[load_name(load), side] = partial(
                face_script.poisson_p99_ms,
                face,
                compiled,
                inputs,
                work.most_in_flight,
                in_full_per_s * load / 100,
                _ARRIVALS_FACTOR * seconds,
            )
    return measures


def _one_by_one(question: Question, turns: int) -> Sequence[Measured]:
    model, inputs, seconds = str(question.work.model), question.work.inputs(), question.seconds
    plain = face_script.latency(ov, model, "CPU")
    with face_script.latency(ovray, model, "CPU") as ours:
        let_it_settle()
        return _in_turn(
            turns,
            {
                (ONE, side): partial(face_script.one_at_a_time_median_ms, compiled, inputs, seconds)
                for side, compiled in ((IN_PROCESS, plain), (OVRAY, ours))
            },
            _RATED_TIMES,
        )


def _over_ray(question: Question, turns: int) -> Sequence[Measured]:
    work = question.work
    with _environment(OVRAY_TRANSPORT="ray"), face_script.throughput(ovray, str(work.model), "CPU") as ours:
        let_it_settle()
        rate = partial(face_script.saturated_rate, ovray, ours, work.inputs(), question.seconds)
        return _in_turn(turns, {(SATURATION, OVER_RAY): rate})


def _named(question: Question, questions: Sequence[Question], found: Measured) -> Measured:
    """Puts the name of the work before the figures' where several are measured."""
    if len(questions) == 1:
        return found
    return {(f"{question.work.name}, {figure}", side): value for (figure, side), value in found.items()}


def _or_nothing(
    name: str, measure: Callable[[RequestWork, float, int], Sequence[Measured]], question: Question, turns: int
) -> Sequence[Measured]:
    """Measures another contender; where that fails, it is only left out."""
    try:
        return measure(question.work, question.seconds, turns)
    except Exception as error:  # noqa: BLE001 (it is told to whoever reads the figures)
        print(f"{question.work.name}: {name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
        return list(repeat({}, turns))


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
