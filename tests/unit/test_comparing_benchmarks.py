"""The frame of the benchmarks: sides in turn, the best of the others, ratios of rounds."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.benchmarks.comparison import (
    By,
    Contest,
    Figure,
    InOneProcess,
    Measured,
    Race,
    SideError,
    Verdict,
    Wanted,
    in_a_new_process,
    run,
    run_contest,
    write_json,
)
from tests.benchmarks.tables import read_outcomes


def a_race(order: list[str], wanted: Wanted, **rounds: list[float | None]) -> Race:
    """Makes a race whose sides give these numbers, round by round."""

    def side(name: str) -> float:
        order.append(name)
        value = rounds[name][order.count(name) - 1]
        if value is None:
            raise SideError("not done")
        return value

    sides = {name: (lambda name=name: side(name)) for name in rounds}
    verdict = Verdict(name="ours / best", ours="ours", others=tuple(rounds)[1:], wanted=wanted)
    return Race(name="race", unit="rows/s", sides=sides, verdicts=(verdict,))


def test_sides_are_measured_in_turn_and_ratios_taken_round_by_round() -> None:
    order: list[str] = []
    race = a_race(order, Wanted(at_least=1.05), ours=[10.0, 40.0, 12.0], theirs=[10.0, 20.0, 10.0])

    (ratio,) = run(race, rounds=3, say=lambda text: None).ratios

    assert order == ["ours", "theirs"] * 3
    assert (ratio.ratio, ratio.lowest, ratio.highest) == (1.2, 1.0, 2.0)
    assert (ratio.ours, ratio.theirs, ratio.is_reached) == (12.0, 10.0, True)


@pytest.mark.parametrize(
    ("wanted", "against", "is_reached"),
    [
        (Wanted(at_least=2.0), "fast", False),
        (Wanted(at_most=1.05), "slow", False),
        (Wanted(at_most=3.0), "slow", True),
    ],
)
def test_the_best_of_the_others_counts(wanted: Wanted, against: str, is_reached: bool) -> None:
    race = a_race([], wanted, ours=[20.0] * 2, slow=[10.0] * 2, fast=[15.0] * 2, hangs=[None, None])

    (ratio,) = run(race, rounds=2, say=lambda text: None).ratios

    assert (ratio.against, ratio.is_reached) == (against, is_reached)


def test_a_round_that_one_side_missed_does_not_count(tmp_path: Path) -> None:
    race = a_race([], Wanted(at_least=1.0), ours=[9.0, 10.0], theirs=[None, 5.0])

    outcome = run(race, rounds=2, say=lambda text: None)
    write_json([outcome], tmp_path / "new" / "bench.json")

    assert outcome.ratios[0].ratio == 2.0
    document = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert document["races"][0]["rounds"] == {"ours": [9.0, 10.0], "theirs": [None, 5.0]}
    assert document["machine"]["cpus"] >= 1


def half(number: float) -> float:
    return number / 2


def fail() -> float:
    raise ValueError("no such file")


def hang(seconds: float) -> float:
    time.sleep(seconds)
    return 0.0


def die() -> float:
    os._exit(3)


@pytest.mark.slow
def test_each_measurement_has_a_process_of_its_own_that_may_fail_or_hang() -> None:
    assert in_a_new_process(half, 5.0) == 2.5
    for measure, arguments, says in (
        (fail, (), "no such file"),
        (die, (), "without a word"),
        (hang, (600.0,), "0.5 s"),
    ):
        with pytest.raises(SideError, match=says):
            in_a_new_process(measure, *arguments, timeout_s=30.0 if measure is not hang else 0.5)


def test_rounds_of_one_process_are_measured_at_the_first_and_given_one_by_one() -> None:
    asked: list[int] = []

    def measure(rounds: int) -> list[Measured]:
        asked.append(rounds)
        return [{("rate", "ours"): float(number), ("rate", "theirs"): 1.0} for number in range(rounds)]

    verdict = Verdict(name="rate", ours="ours", others=("theirs",), wanted=Wanted(at_least=2.0))
    contest = Contest(
        name="contest",
        processes={"in turn": InOneProcess(measure, 5)},
        figures=(Figure(name="rate", unit="1/s", verdicts=(verdict,)),),
    )

    (rates,) = run_contest(contest, rounds=5, say=lambda text: None)

    assert asked == [5]
    assert rates.rounds["ours"] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert rates.ratios[0].ratio == 2.0


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    outcome = run(a_race([], Wanted(at_least=1.05), ours=[10.0], theirs=[10.0]), rounds=1, say=lambda text: None)

    write_json([outcome], tmp_path / "bench.json")

    assert read_outcomes(tmp_path / "bench.json") == [outcome]


def test_a_process_gives_several_figures_and_each_is_judged_by_rounds() -> None:
    rounds = iter([(10.0, 3.0), (30.0, 5.0)])

    def ours() -> Measured:
        rate, wait = next(rounds)
        return {("rate", "ours"): rate, ("wait", "ours"): wait}

    def theirs() -> Measured:
        return {("rate", "theirs"): 10.0, ("wait", "theirs"): 2.0}

    def broken() -> Measured:
        raise SideError("not done")

    others = ("theirs", "broken")
    rate = Verdict(name="rate", ours="ours", others=others, wanted=Wanted(at_least=2.0))
    wait = Verdict(name="wait", ours="ours", others=others, wanted=Wanted(at_most=1.5), by=By.DIFFERENCE)
    contest = Contest(
        name="contest",
        processes={"ours": ours, "theirs": theirs, "broken": broken},
        figures=(
            Figure(name="rate", unit="1/s", verdicts=(rate,)),
            Figure(name="wait", unit="ms", verdicts=(wait,)),
        ),
        most_rounds=2,
    )

    rates, waits = run_contest(contest, rounds=5, say=lambda text: None)

    assert (rates.race, waits.race) == ("contest, rate", "contest, wait")
    assert rates.rounds == {"ours": [10.0, 30.0], "theirs": [10.0, 10.0], "broken": [None, None]}
    assert [(ratio.ratio, ratio.is_reached) for ratio in rates.ratios] == [(2.0, True)]
    assert [(ratio.ratio, ratio.lowest, ratio.is_reached) for ratio in waits.ratios] == [(2.0, 1.0, False)]
