"""The small parts of the core: the heap, the rates, the cutting, and what the core may import."""

import ast
import random
import subprocess
import sys
from pathlib import Path

import pytest

import ovray.core
from ovray.core import chunking
from ovray.core.heap import LazyHeap
from ovray.core.rates import RateEstimate
from tests.unit.scheduling import a_job
from tests.waiting import DEADLINE_S


def test_a_heap_gives_items_in_the_order_of_their_last_keys() -> None:
    heap: LazyHeap[str, int] = LazyHeap()
    for item, key in [("a", 3), ("b", 1), ("c", 2), ("b", 9), ("a", 0), ("a", 3)]:
        heap.set(item, key)
    heap.discard("c")

    order = []
    while (first := heap.first()) is not None:
        order.append(first)
        heap.discard(first)

    assert order == ["a", "b"]
    assert heap.first_key() is None


def test_a_heap_that_is_changed_often_stays_small() -> None:
    heap: LazyHeap[int, float] = LazyHeap()
    chance = random.Random(1)

    for _ in range(5000):
        heap.set(chance.randrange(10), chance.random())

    assert len(heap) == 10
    assert len(heap._entries) < 100


@pytest.mark.parametrize(("completions", "at_most"), [(1, 0.77), (3, 0.61), (5, 0.55)])
def test_half_the_speed_is_noticed_within_a_few_completions(completions: int, at_most: float) -> None:
    rate = RateEstimate()
    for _ in range(50):
        rate.observe(100, 1.0)

    for _ in range(completions):
        rate.observe(100, 2.0)

    assert rate.rows_per_s is not None
    assert 50.0 < rate.rows_per_s <= at_most * 100.0


def test_a_batch_whose_answers_come_together_counts_as_one_observation() -> None:
    rate = RateEstimate()

    for _ in range(20):
        rate.observe(1, 0.16)
        for _ in range(15):
            rate.observe(1, 0.0)

    assert rate.rows_per_s == pytest.approx(100.0)


def test_one_long_pause_does_not_ruin_a_rate() -> None:
    rate = RateEstimate()
    for _ in range(20):
        rate.observe(10, 1.0)

    rate.observe(10, 600.0)

    assert rate.rows_per_s is not None
    assert rate.rows_per_s > 5.0


def test_a_warm_up_counts_like_one_completion() -> None:
    rate = RateEstimate(100.0)

    rate.observe(50, 1.0)

    assert rate.rows_per_s == pytest.approx((0.7 * 100.0 + 50.0) / 1.7)


@pytest.mark.parametrize(
    ("start", "rows", "stop"),
    [
        (0, 100, 100),  # no cut is near
        (0, 190, 200),  # up to a cut
        (0, 210, 200),  # down to one
        (150, 30, 180),  # the cut at 200 is too far for a chunk of 30
        (900, 95, 1000),  # the 5 rows left would be too few
    ],
)
def test_cuts_go_to_where_they_are_cheap(start: int, rows: int, stop: int) -> None:
    job = a_job(1000, cheap_cuts=(200, 500), min_chunk_rows=10)

    assert chunking.cut_at(job, start, 1000, rows, longest=1000) == stop


@pytest.mark.parametrize(
    ("start", "rows", "longest", "stop"),
    [
        (0, 7, 100, 100),  # a smaller chunk was wanted: the next multiple is near enough
        (0, 400, 1000, 100),  # a longer one was wanted
        (250, 7, 100, 300),  # what an earlier run had left of a file
        (0, 7, 99, 7),  # to the next multiple would take too long
        (95, 7, 7, 100),  # never beyond it
        (1000, 7, 100, 1050),  # the end comes first
    ],
)
def test_a_job_that_is_cut_at_multiples_goes_to_the_next_one_and_never_beyond(
    start: int, rows: int, longest: int, stop: int
) -> None:
    job = a_job(1050, cut_multiple=100, cheap_cuts=(120, 1020))

    assert chunking.cut_at(job, start, 1050, rows, longest) == stop


FORBIDDEN = {"ray", "openvino", "numpy", "threading", "asyncio", "time", "datetime", "os", "socket", "subprocess"}


def test_no_module_of_the_core_imports_what_waits_or_reads_a_clock() -> None:
    for path in Path(ovray.core.__file__).parent.glob("*.py"):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])

        assert not imported & FORBIDDEN, path


@pytest.mark.slow
def test_the_core_runs_where_ray_and_openvino_cannot_be_imported() -> None:
    script = """
import sys
sys.modules.update(dict.fromkeys(["ray", "openvino", "numpy", "pandas", "pyarrow"]))
from ovray.core.scheduler import Scheduler
from ovray.core.simulated_replica import ReplicaModel
from ovray.core.simulation import Simulation
print(Simulation(Scheduler(), [ReplicaModel(id="a", row_s=0.01)]).run_job(100).lost)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )

    assert (run.stdout, run.stderr) == ("0\n", "")
