import re

import pytest

from ovray.core.jobs import Jobs
from tests.property import fault_schedules


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_random_fault_schedules_keep_every_promise() -> None:
    replay_first(10_000)


def replay_first(count: int) -> None:
    for seed in range(count):
        fault_schedules.replay(seed)


def test_a_broken_promise_prints_its_seed_and_the_events_that_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a scheduler that loses the rows of lost replicas
    monkeypatch.setattr(Jobs, "_give_back", lambda self, chunk, back_from: None)

    with pytest.raises(fault_schedules.BrokenPromiseError) as broken:
        replay_first(500)

    text = str(broken.value)
    assert re.match(r"seed \d+: InvariantError: ", text)
    assert f"replay with fault_schedules.replay({broken.value.seed})" in text
    assert "(0.0, JobSubmitted(job=0," in text
