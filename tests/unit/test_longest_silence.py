"""What the tests of faults measure: for how long the others did nothing."""

from tests.multihost.loads import Standing, longest_silence_s


def ledger(*lines: tuple[float, dict[str, int], str]) -> list[Standing]:
    """Return lines of a ledger, from moments, rows done by replica, and the names of those that are trusted."""
    return [
        Standing(
            at_s=at_s,
            done=sum(done.values()),
            starting=(),
            counters={},
            replicas={
                name: {
                    "state": "ready" if name in trusted else "lost",
                    "stalled": False,
                    "outstanding": 1,
                    "done": rows,
                }
                for name, rows in done.items()
            },
        )
        for at_s, done, trusted in lines
    ]


def test_the_longest_time_without_a_row_of_the_others_counts_and_the_victims_rows_do_not() -> None:
    standings = ledger(
        (1.0, {"a": 1, "b": 1}, "ab"),
        (2.0, {"a": 2, "b": 1}, "ab"),
        (4.5, {"a": 3, "b": 2}, "ab"),
        (5.0, {"a": 3, "b": 3}, "ab"),
    )

    assert longest_silence_s(standings, 1.5, 9.0, without="a") == 3.0


def test_a_silence_that_does_not_end_within_the_span_counts() -> None:
    standings = ledger(*((0.5 * number, {"a": number, "b": 5}, "ab") for number in range(40)))

    assert longest_silence_s(standings, 2.0, 6.0, without="a") == 4.0


def test_nothing_is_expected_of_others_while_none_of_them_is_there() -> None:
    standings = ledger(
        (1.0, {"a": 1, "b": 1}, "ab"),
        (2.0, {"a": 1, "b": 2}, "b"),
        (2.5, {"a": 1, "b": 2}, ""),
        (7.0, {"a": 1, "b": 2}, ""),
        (8.0, {"a": 1, "b": 2}, "b"),
        (8.5, {"a": 1, "b": 3}, "b"),
    )

    assert longest_silence_s(standings, 1.5, 9.0, without="a") == 0.5


def test_nothing_is_expected_when_all_is_done() -> None:
    standings = ledger((1.0, {"a": 1, "b": 1}, "ab"), (2.0, {"a": 1, "b": 2}, "ab"), (9.0, {"a": 1, "b": 2}, "ab"))

    assert longest_silence_s(standings, 1.0, float("inf"), without="a") == 1.0
