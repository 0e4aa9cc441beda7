"""What each process of the benchmarks of requests measures: OpenVINO alone in one, all others in another.

Contenders of one work share a Ray, one after the other: a start of Ray takes longer than most figures.  It is the
Ray that ovray starts for itself: whose workers are not nicer than the script, for everybody.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openvino as ov

import ovray
from ovray.driver.session import ray_session
from tests.benchmarks import face_script
from tests.benchmarks.by_hand import figures_of_ray, figures_of_serve
from tests.benchmarks.comparison import Measured
from tests.benchmarks.request_works import RequestWork

IN_PROCESS = "in process"
OVRAY = "ovray"
FUTURES = "ovray, map"
OVER_RAY = "ovray, OVRAY_TRANSPORT=ray"

SATURATION = "saturation"
MEDIAN = "saturated median"
ONE = "one at a time"

#: Load of arrivals at random, in percent of what one process can do.
LOADS = (50, 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Says what is measured of one work."""

    work: RequestWork
    #: How long each figure is measured; arrivals at random for twice as long.
    seconds: float
    #: Only the rate at saturation: no latencies, and nobody but OpenVINO and ovray.
    is_short: bool = False


def load_name(percent: int) -> str:
    """Names the figure of arrivals at random."""
    return f"p99 at {percent}%"


def rate_in_process(question: Question) -> float:
    """Returns what OpenVINO does in one process, in requests per second."""
    compiled = face_script.throughput(ov, str(question.work.model), "CPU")
    return face_script.saturated_rate(ov, compiled, question.work.inputs(), question.seconds)


def figures_in_process(questions: Sequence[Question], rates: Sequence[float]) -> Measured:
    """Measures OpenVINO; ``rates`` are requests per second in full."""
    found: dict[tuple[str, str], float] = {}
    for question, rate_per_s in zip(questions, rates, strict=True):
        found |= _named(question, questions, _figures_of_script(ov, IN_PROCESS, question, rate_per_s))
    return found


def figures_under_ray(questions: Sequence[Question], rates: Sequence[float]) -> Measured:
    """Measures ovray, and what one writes with Ray alone."""
    found: dict[tuple[str, str], float] = {}
    with ray_session("local"):
        for question, rate_per_s in zip(questions, rates, strict=True):
            one = dict(_figures_of_script(ovray, OVRAY, question, rate_per_s))
            if not question.is_short:
                with _environment(OVRAY_TRANSPORT="ray"):
                    one |= _rate_of_ovray(OVER_RAY, question)
                one |= _or_nothing("Ray", figures_of_ray, question)
                one |= _or_nothing("Ray Serve", figures_of_serve, question)
            found |= _named(question, questions, one)
    return found


def figures_of_two(question: Question) -> Measured:
    """Measures two replicas that share the cores, each alone and both together."""
    inputs, seconds = question.work.inputs(), question.seconds
    with ray_session("local"), face_script.throughput(ovray, str(question.work.model), "CPU*2") as compiled:
        while any(replica.state == "starting" for replica in compiled.replicas):
            face_script.one_at_a_time_median_ms(compiled, inputs, 0.1)
        names = [replica.id for replica in compiled.replicas]
        alone = [face_script.saturated_rate(ovray, compiled, inputs, seconds, device=name) for name in names]
        together = face_script.saturated_rate(ovray, compiled, inputs, seconds)
    return {(SATURATION, "together"): together, (SATURATION, "plain sum"): sum(alone)}


def _figures_of_script(face: Any, side: str, question: Question, rate_per_s: float) -> Measured:
    """Runs the script on ``openvino`` or ``ovray``."""
    work, seconds, inputs = question.work, question.seconds, question.work.inputs()
    found: dict[tuple[str, str], float] = {}
    with _closing(face_script.throughput(face, str(work.model), "CPU")) as compiled:
        found[SATURATION, side] = face_script.saturated_rate(face, compiled, inputs, seconds)
        if question.is_short:
            return found
        found[MEDIAN, side] = face_script.saturated_median_ms(face, compiled, inputs, work.outstanding, seconds)
        for load in LOADS:
            found[load_name(load), side] = face_script.poisson_p99_ms(
                face, compiled, inputs, work.most_in_flight, rate_per_s * load / 100, 2 * seconds
            )
        if face is ovray:
            found[SATURATION, FUTURES] = face_script.saturated_rate_of_futures(compiled, inputs, seconds)
    with _closing(face_script.latency(face, str(work.model), "CPU")) as compiled:
        found[ONE, side] = face_script.one_at_a_time_median_ms(compiled, inputs, seconds)
    return found


def _rate_of_ovray(side: str, question: Question) -> Measured:
    with face_script.throughput(ovray, str(question.work.model), "CPU") as compiled:
        return {
            (SATURATION, side): face_script.saturated_rate(
                ovray, compiled, question.work.inputs(), question.seconds
            )
        }


def _named(question: Question, questions: Sequence[Question], found: Measured) -> Measured:
    """Puts the name of the work before the figures' where several are measured."""
    if len(questions) == 1:
        return found
    return {(f"{question.work.name}, {figure}", side): value for (figure, side), value in found.items()}


def _or_nothing(name: str, measure: Callable[[RequestWork, float], Measured], question: Question) -> Measured:
    """Measures another contender; where that fails, it is only left out."""
    try:
        return measure(question.work, question.seconds)
    except Exception as error:  # noqa: BLE001 (it is told to whoever reads the figures)
        print(f"{question.work.name}: {name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
        return {}


@contextmanager
def _closing(compiled: Any) -> Iterator[Any]:
    """Closes a model of ovray's at the end; OpenVINO's go with their last reference."""
    try:
        yield compiled
    finally:
        if isinstance(compiled, ovray.CompiledModel):
            compiled.close()


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
