"""Which requests run next, and which together: no threads, no clock, no OpenVINO."""

from collections.abc import Hashable

import numpy as np
import pytest

from ovray.replica.benefit import BatchBenefit, BatchBenefits
from ovray.replica.envelope import Request
from ovray.replica.joining import MAX_JOINED_BYTES
from ovray.replica.waiting import Waiting, WaitingRequests

TIMEOUT_S = 1.0


def a_request(
    dispatch: int, client: str = "a", key: Hashable = "shape", rows: int = 1, now_s: float = 0.0
) -> Waiting:
    return Waiting(
        client=client,
        request=Request(dispatch=dispatch, tensors=(np.zeros(1),)),
        answer=lambda reply: None,
        arrived_s=now_s,
        key=key,
        rows=rows,
        input_bytes=8,
    )


def a_queue(max_rows: int = 4, benefits: BatchBenefits | None = None) -> WaitingRequests:
    return WaitingRequests(max_rows=max_rows, timeout_s=TIMEOUT_S, benefits=benefits)


def numbers(batch: list[Waiting]) -> list[tuple[str, int]]:
    return [(waiting.client, waiting.request.dispatch) for waiting in batch]


def flowing(queue: WaitingRequests, *, gap_s: float, until_s: float) -> None:
    """Lets requests come and go at a steady pace, each while another runs."""
    dispatch = 1000
    now_s = until_s - 20 * gap_s
    for _ in range(20):
        queue.put([a_request(dispatch, now_s=now_s)], now_s, found_busy=True)
        queue.drop("a", dispatch)
        dispatch += 1
        now_s += gap_s


def test_clients_get_turns_whatever_they_have_waiting() -> None:
    queue = a_queue(max_rows=1)
    queue.put([a_request(number) for number in range(3)], 0.0, found_busy=False)
    queue.put([a_request(7, client="b")], 0.0, found_busy=True)

    order = [numbers(queue.take(0.0).batch)[0] for _ in range(4)]

    assert order == [("a", 0), ("b", 7), ("a", 1), ("a", 2)]


def test_a_full_batch_takes_one_of_each_client_in_turn() -> None:
    queue = a_queue(max_rows=4)
    queue.put([a_request(number) for number in range(5)], 0.0, found_busy=False)
    queue.put([a_request(number, client="b") for number in range(2)], 0.0, found_busy=True)

    assert numbers(queue.take(0.0).batch) == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_requests_of_other_shapes_are_left_for_later_and_keep_their_order() -> None:
    queue = a_queue(max_rows=2)
    queue.put(
        [a_request(0), a_request(1, key="other"), a_request(2), a_request(3, key="other")], 0.0, found_busy=False
    )

    assert numbers(queue.take(0.0).batch) == [("a", 0), ("a", 2)]
    assert numbers(queue.take(0.0).batch) == [("a", 1), ("a", 3)]


def test_a_request_that_must_be_alone_is_not_held_back() -> None:
    queue = a_queue()
    flowing(queue, gap_s=0.01, until_s=0.0)
    queue.put([a_request(0, key=None), a_request(1, key=None)], 0.0, found_busy=True)

    assert numbers(queue.take(0.0).batch) == [("a", 0)]


def test_a_lone_request_runs_at_once() -> None:
    queue = a_queue()
    queue.put([a_request(0)], 5.0, found_busy=False)

    assert numbers(queue.take(5.0).batch) == [("a", 0)]


def test_a_partial_batch_is_held_back_while_others_are_likely_to_come() -> None:
    queue = a_queue()
    flowing(queue, gap_s=0.01, until_s=5.0)
    queue.put([a_request(0, now_s=5.0)], 5.0, found_busy=True)

    batch, ask_again_s = queue.take(5.0)

    assert batch == []
    assert ask_again_s == pytest.approx(5.03)
    queue.put([a_request(number, now_s=5.01) for number in (1, 2, 3)], 5.01, found_busy=True)
    assert len(queue.take(5.01).batch) == 4


def test_a_partial_batch_runs_when_the_next_arrival_is_overdue_long_before_the_timeout() -> None:
    queue = a_queue()
    flowing(queue, gap_s=0.01, until_s=5.0)
    queue.put([a_request(0, now_s=5.0)], 5.0, found_busy=True)

    assert queue.take(5.029).batch == []
    assert numbers(queue.take(5.031).batch) == [("a", 0)]


def test_a_partial_batch_never_waits_longer_than_the_timeout() -> None:
    queue = a_queue(max_rows=100)
    flowing(queue, gap_s=0.3, until_s=5.0)
    queue.put([a_request(0, now_s=5.0)], 5.0, found_busy=True)
    for number, now_s in enumerate((5.3, 5.6, 5.9), 1):
        assert queue.take(now_s).batch == []
        queue.put([a_request(number, now_s=now_s)], now_s, found_busy=True)

    assert queue.take(5.9).ask_again_s == pytest.approx(6.0)
    assert len(queue.take(6.0).batch) == 4


def test_a_client_that_waits_for_each_answer_is_soon_served_at_once() -> None:
    queue = a_queue()
    flowing(queue, gap_s=0.01, until_s=0.0)
    held = []
    for number in range(6):
        now_s = 1.0 + number * 0.1
        queue.put([a_request(number, now_s=now_s)], now_s, found_busy=False)
        held.append(queue.take(now_s).batch == [])
        queue.drop("a", number)

    assert held[2:] == [False] * 4


def test_auto_holds_nothing_back_and_grows_by_doubling() -> None:
    benefits = BatchBenefits()
    for rows in (1, 2, 4) * 5:
        benefits.of("shape").ended(rows, 0.001)  # however many rows: as long as rows are there, more is better
    queue = a_queue(max_rows=64, benefits=benefits)
    flowing(queue, gap_s=0.01, until_s=5.0)
    queue.put([a_request(number, now_s=5.0) for number in range(7)], 5.0, found_busy=True)

    assert [len(queue.take(5.0).batch) for _ in range(3)] == [4, 2, 1]


def test_rows_of_requests_count_and_the_bound_is_kept() -> None:
    queue = a_queue(max_rows=4)
    queue.put([a_request(0, rows=3), a_request(1, rows=2), a_request(2, rows=9)], 0.0, found_busy=False)

    assert [numbers(queue.take(0.0).batch) for _ in range(3)] == [[("a", 0)], [("a", 1)], [("a", 2)]]


def test_a_batch_is_bounded_by_bytes() -> None:
    queue = a_queue(max_rows=100)
    big = [a_request(number) for number in range(8)]
    for waiting in big:
        waiting.input_bytes = MAX_JOINED_BYTES // 3
    queue.put(big, 0.0, found_busy=False)

    assert len(queue.take(0.0).batch) == 3


def test_what_was_dropped_is_not_taken() -> None:
    queue = a_queue(max_rows=1)
    queue.put([a_request(number) for number in range(3)], 0.0, found_busy=False)

    dropped = queue.drop("a", 1)

    assert dropped is not None
    assert dropped.request.dispatch == 1
    assert queue.drop("a", 1) is None
    assert queue.drop("nobody", 1) is None
    assert [numbers(queue.take(0.0).batch) for _ in range(2)] == [[("a", 0)], [("a", 2)]]
    assert queue.take(0.0) == ([], None)


def test_batches_grow_while_doubling_pays() -> None:
    benefit = BatchBenefit()
    for rows in (1, 2, 4, 8):
        for _ in range(5):
            # 1 ms a call and 0.1 ms a row, up to 4 rows; beyond, twice the rows take twice the time.
            benefit.ended(rows, (0.001 + 0.0001 * min(rows, 4)) * max(1, rows / 4))

    assert benefit.choose(1, 64) == 4
    assert benefit.choose(1, 3) == 2
    assert benefit.choose(1, 1) == 1


def test_requests_of_several_rows_are_doubled_too() -> None:
    benefit = BatchBenefit()
    for rows in (3, 6) * 5:
        benefit.ended(rows, 0.001)

    assert benefit.choose(3, 20) == 12
    assert benefit.choose(3, 11) == 6


def test_a_size_that_did_not_pay_is_tried_again_after_a_while() -> None:
    benefit = BatchBenefit()
    for _ in range(5):
        benefit.ended(1, 0.001)
        benefit.ended(2, 0.002)
    assert benefit.choose(1, 2) == 1

    for _ in range(1010):
        benefit.ended(1, 0.001)

    assert benefit.choose(1, 2) == 2


def test_a_size_is_tried_only_once_the_smaller_is_measured_without_its_first_time() -> None:
    benefit = BatchBenefit()
    chosen = []
    for _ in range(12):
        chosen.append(benefit.choose(1, 100))
        benefit.ended(chosen[-1], 0.001)

    assert chosen == [1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4]


def test_what_takes_long_is_shared_with_infer_requests_that_idle() -> None:
    long, short = BatchBenefit(), BatchBenefit()
    for rows in (1, 2, 4, 8) * 5:
        long.ended(rows, 0.01 + 0.001 * rows)
        short.ended(rows, 0.0001)

    assert long.choose(1, 4) == 4
    assert long.choose(1, 4, takers=2) == 2
    assert long.choose(1, 2, takers=2) == 1
    assert short.choose(1, 4, takers=2) == 4


def test_a_gain_that_may_be_noise_does_not_pay() -> None:
    benefit = BatchBenefit()
    for _ in range(5):
        benefit.ended(1, 0.010)
        benefit.ended(2, 0.018)

    assert benefit.choose(1, 2) == 1
