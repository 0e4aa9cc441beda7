"""Whatever replicas start, work or are away: AUTO gives work to the best of those that work, and strands none."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovray.core.ids import ReplicaId
from ovray.core.serving_order import AsListed, BestThatWorks, Candidate, Standing

EVERY_RULE = [
    BestThatWorks(has_startup_fallback=s, has_runtime_fallback=r) for s in (True, False) for r in (True, False)
]

STARTING, READY, AWAY, REFUSED = Standing


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    pairs = draw(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(Standing)), max_size=8))
    return [
        Candidate(id=ReplicaId(f"h/D#{number}"), rank=rank, standing=standing)
        for number, (rank, standing) in enumerate(pairs)
    ]


def _ranks(found: list[Candidate], standing: Standing) -> set[int]:
    return {candidate.rank for candidate in found if candidate.standing is standing}


@pytest.mark.parametrize("rule", EVERY_RULE)
@given(found=candidates())
def test_all_that_are_ready_of_one_rank_serve_and_nobody_else(rule: BestThatWorks, found: list[Candidate]) -> None:
    order = rule.choose(found).order

    serving = [candidate for candidate in found if candidate.id in order]
    assert {candidate.standing for candidate in serving} <= {READY}
    assert len({candidate.rank for candidate in serving}) <= 1
    alike = [c.id for c in found if serving and c.rank == serving[0].rank and c.standing is READY]
    assert list(order) == alike


@pytest.mark.parametrize("rule", EVERY_RULE)
@given(found=candidates())
def test_no_better_rank_is_ready_than_the_one_that_serves(rule: BestThatWorks, found: list[Candidate]) -> None:
    order = rule.choose(found).order

    for candidate in found:
        if candidate.id in order:
            assert candidate.rank == min(_ranks(found, READY))


@pytest.mark.parametrize("rule", EVERY_RULE)
@given(found=candidates())
def test_nobody_serves_only_where_nobody_is_ready_or_a_better_one_is_about_to_be(
    rule: BestThatWorks, found: list[Candidate]
) -> None:
    ready, starting = _ranks(found, READY), _ranks(found, STARTING)
    if rule.choose(found).order or not ready:
        return

    waits = not rule.has_startup_fallback and min(starting, default=9) < min(ready)
    gives_up = not rule.has_runtime_fallback and min(_ranks(found, AWAY), default=9) < min(ready)
    assert waits or gives_up


@given(found=candidates())
def test_without_startup_fallback_nobody_serves_for_a_better_one_that_starts(found: list[Candidate]) -> None:
    order = BestThatWorks(has_startup_fallback=False).choose(found).order

    for candidate in found:
        if candidate.id in order:
            assert all(rank >= candidate.rank for rank in _ranks(found, STARTING))


@pytest.mark.parametrize("rule", EVERY_RULE)
@given(found=candidates())
def test_only_lesser_ones_are_released_and_only_when_they_cannot_be_needed(
    rule: BestThatWorks, found: list[Candidate]
) -> None:
    released = [candidate for candidate in found if candidate.id in rule.choose(found).released]

    if rule.has_runtime_fallback:
        assert released == []
    for candidate in released:
        assert candidate.standing is not STARTING
        best = min(_ranks(found, READY) | _ranks(found, AWAY))
        assert candidate.rank > best
        assert all(rank >= best for rank in _ranks(found, STARTING))


@given(found=candidates())
def test_without_runtime_fallback_nobody_takes_over_from_one_that_has_worked(found: list[Candidate]) -> None:
    order = BestThatWorks(has_runtime_fallback=False).choose(found).order

    for candidate in found:
        if candidate.id in order:
            assert all(rank >= candidate.rank for rank in _ranks(found, AWAY))


@given(found=candidates())
def test_as_listed_keeps_everybody_in_the_order_of_ranks(found: list[Candidate]) -> None:
    order = AsListed().choose(found).order

    assert list(order) == [c.id for rank in range(4) for c in found if c.rank == rank]


def test_the_story_of_one_accelerator_and_one_cpu() -> None:
    gpu = Candidate(id=ReplicaId("h/GPU#0"), rank=0, standing=STARTING)
    cpu = Candidate(id=ReplicaId("h/CPU.0#0"), rank=1, standing=READY)
    rule = BestThatWorks()

    assert rule.choose([gpu, cpu]).order == (cpu.id,)
    assert rule.choose([replace(gpu, standing=REFUSED), cpu]).order == (cpu.id,)
    gpu = replace(gpu, standing=READY)
    assert rule.choose([gpu, cpu]).order == (gpu.id,)
    gpu = replace(gpu, standing=AWAY)
    assert rule.choose([gpu, cpu]).order == (cpu.id,)
    gpu = replace(gpu, standing=READY)
    assert rule.choose([gpu, cpu]).order == (gpu.id,)
