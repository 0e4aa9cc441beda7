"""What goes over a local socket arrives as it was, in whatever pieces the kernel brings it."""

import os
import random

import numpy as np
import pytest
from numpy.typing import NDArray

from ovray.driver.arena import Arena, ArenaStorage
from ovray.errors import DataError, ReplicaError
from ovray.replica.envelope import Envelope, Reply, Request
from ovray.replica.frames import Frame, FrameReader, write_frame
from ovray.replica.local_socket import DriversMemory, unsent
from ovray.replica.wire import (
    Cancel,
    NoSharedMemory,
    read_message,
    read_replies,
    write_cancel,
    write_envelope,
    write_replies,
)

CHANCE = np.random.default_rng(11)


def _text(*values: str) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


TENSORS = {
    "numbers": (np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(3)),
    "scalar": (np.array(7.5),),
    "nothing": (np.empty((0, 4), dtype=np.uint8),),
    "half": (np.array([1.5, -2.0], dtype=np.float16), np.array([True, False])),
    "text": (_text("a", "", "naïve"),),
    "large": (CHANCE.standard_normal((100, 100)),),
    "no inputs": (),
}


def _whole(parts: list[bytes | memoryview]) -> bytes:
    return b"".join(parts)


def _one_frame(parts: list[bytes | memoryview]) -> Frame:
    (frame,) = FrameReader().feed(_whole(parts))
    return frame


def _same(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other))


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("kind", TENSORS)
def test_requests_arrive_as_they_were(kind: str, count: int) -> None:
    requests = tuple(Request(dispatch=number, tensors=TENSORS[kind]) for number in range(count))

    read = read_message(
        _one_frame(write_envelope(Envelope(client="me", requests=requests), NoSharedMemory())), NoSharedMemory()
    )

    assert isinstance(read, Envelope)
    assert read.client == "me"
    assert [request.dispatch for request in read.requests] == list(range(count))
    for request in read.requests:
        assert len(request.tensors) == len(TENSORS[kind])
        assert all(map(_same, request.tensors, TENSORS[kind]))


def test_requests_of_many_kinds_keep_their_order() -> None:
    requests = tuple(
        Request(dispatch=number, tensors=tensors, shapes=((number,),) if number % 5 == 0 else None)
        for number, tensors in enumerate(random.Random(3).choices(list(TENSORS.values()), k=60))
    )

    read = read_message(
        _one_frame(write_envelope(Envelope(client="me", requests=requests), NoSharedMemory())), NoSharedMemory()
    )

    assert isinstance(read, Envelope)
    for sent, came in zip(requests, read.requests, strict=True):
        assert (sent.dispatch, sent.shapes) == (came.dispatch, came.shapes)
        assert all(map(_same, sent.tensors, came.tensors))


def test_replies_arrive_as_they_were_and_are_their_readers_own() -> None:
    replies = [
        Reply(dispatch=number, outputs=tensors, error=None, queued_s=0.1, infer_s=0.2, batch_rows=3)
        for number, tensors in enumerate([*TENSORS.values(), *[TENSORS["numbers"]] * 20])
    ]
    replies.append(
        Reply(dispatch=99, outputs=None, error=DataError("no such word"), queued_s=0.0, infer_s=0.0, batch_rows=0)
    )

    read = read_replies(_one_frame(write_replies(replies)))

    for sent, came in zip(replies, read, strict=True):
        assert (sent.dispatch, sent.queued_s, sent.infer_s, sent.batch_rows) == (
            came.dispatch,
            came.queued_s,
            came.infer_s,
            came.batch_rows,
        )
        if sent.outputs is not None:
            assert came.outputs is not None
            assert all(map(_same, sent.outputs, came.outputs))
            assert all(output.flags.writeable for output in came.outputs)
    assert isinstance(read[-1].error, DataError)
    assert str(read[-1].error) == "no such word"


@pytest.mark.parametrize("kind", TENSORS)
def test_a_lone_reply_arrives_as_it_was_and_is_its_readers_own(kind: str) -> None:
    sent = Reply(
        dispatch=7,
        outputs=TENSORS[kind],
        error=None,
        queued_s=0.1,
        infer_s=0.2,
        batch_rows=3,
        shapes=((5,), (6,)) if kind == "numbers" else None,
    )

    for _ in range(2):  # types and shapes that are new, and that are known
        (came,) = read_replies(_one_frame(write_replies([sent])))

        assert (came.dispatch, came.error, came.queued_s, came.infer_s, came.batch_rows, came.shapes) == (
            sent.dispatch,
            sent.error,
            sent.queued_s,
            sent.infer_s,
            sent.batch_rows,
            sent.shapes,
        )
        assert came.outputs is not None
        assert len(came.outputs) == len(TENSORS[kind])
        assert all(map(_same, came.outputs, TENSORS[kind]))
        assert all(output.flags.writeable for output in came.outputs)


def test_kinds_that_are_no_longer_known_are_told_anew() -> None:
    for length in [*range(1, 3000), *range(1, 3000)]:
        request = Request(dispatch=length, tensors=(np.zeros((1, length), dtype=np.int8),))

        read = read_message(
            _one_frame(write_envelope(Envelope(client="me", requests=(request,)), NoSharedMemory())),
            NoSharedMemory(),
        )

        assert isinstance(read, Envelope)
        assert read.requests[0].tensors[0].shape == (1, length)


def test_a_cancellation_arrives() -> None:
    assert read_message(_one_frame(write_cancel(Cancel("me", 17))), NoSharedMemory()) == Cancel("me", 17)


def test_frames_are_found_in_pieces_of_any_size() -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    sent: list[tuple[int, list[bytes]]] = [
        (number, [CHANCE.bytes(chance.randint(0, 5000)) for _ in range(number % 4)]) for number in range(50)
    ]
    stream = b"".join(_whole(write_frame(head, buffers)) for head, buffers in sent)

    reader, came, at = FrameReader(), [], 0
    while at < len(stream):
        size = chance.choice([1, 3, 100, 4000, 20_000])
        came += [(frame.head, [bytes(b) for b in frame.buffers]) for frame in reader.feed(stream[at : at + size])]
        at += size

    assert came == sent


def test_what_is_no_frame_is_told_at_once() -> None:
    with pytest.raises(ReplicaError, match="no frame"):
        FrameReader().feed(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


@pytest.mark.parametrize("sent_bytes", range(7))
def test_what_the_kernel_did_not_take_is_sent_later(sent_bytes: int) -> None:
    parts = [memoryview(b"ab"), memoryview(b"c"), memoryview(b"def")]

    assert b"".join(unsent(parts, sent_bytes)) == b"abcdef"[sent_bytes:]


def test_tensors_in_the_arena_do_not_travel() -> None:
    arena = Arena(1 << 20)
    tensor = CHANCE.standard_normal((100, 100))
    kept = ArenaStorage(arena).keep(tensor)
    envelope = Envelope(client="me", requests=(Request(dispatch=1, tensors=(kept,)),))

    parts = write_envelope(envelope, arena)
    read = read_message(_one_frame(parts), DriversMemory(os.dup(arena.file), arena.size_bytes))

    assert len(_whole(parts)) < 500
    assert isinstance(read, Envelope)
    assert _same(read.requests[0].tensors[0], tensor)
    assert not read.requests[0].tensors[0].flags.writeable


def test_the_arena_hands_blocks_out_again_and_never_twice() -> None:
    arena = Arena(1 << 20)
    chance, held = random.Random(5), {}
    for number in range(3000):
        if held and (chance.random() < 0.5):
            freed = chance.choice(list(held))
            value, kept = held.pop(freed)
            assert (kept == value).all()
            arena.give_back(kept)
        placed = arena.place(np.full(chance.randint(1, 20_000), number % 256, dtype=np.uint8))
        if placed is not None:
            held[number] = (number % 256, placed)

    assert len(held) > 10
    assert all((kept == value).all() for value, kept in held.values())


def test_arrays_are_not_taken_for_those_that_lay_in_the_arena_before_them() -> None:
    arena = Arena(1 << 20)
    for _ in range(300):
        placed = arena.place(np.zeros(20_000, np.uint8))
        assert placed is not None
        assert arena.offset_of(placed) is not None
        arena.give_back(placed)
        del placed
        # The next array of the process may well have the identity of the one that is gone.
        other = arena.place(np.zeros(20_000, np.uint8))
        assert other is not None
        assert all(arena.offset_of(np.zeros(20_000, np.uint8)) is None for _ in range(3))
        arena.give_back(other)


def test_a_block_that_several_hold_is_free_when_all_of_them_gave_it_back() -> None:
    arena = Arena(1 << 20)
    first = arena.place(np.zeros(100_000, np.uint8))
    assert first is not None

    assert arena.hold(first)
    arena.give_back(first)
    second = arena.place(np.ones(100_000, np.uint8))
    arena.give_back(first)
    third = arena.place(np.ones(100_000, np.uint8))

    assert second is not None
    assert third is not None
    assert arena.offset_of(second) != arena.offset_of(first)
    assert arena.offset_of(third) == arena.offset_of(first)
    assert not arena.hold(np.zeros(10))


def test_when_the_arena_is_full_tensors_are_kept_elsewhere() -> None:
    arena = Arena(100_000)
    storage = ArenaStorage(arena)
    tensor = CHANCE.standard_normal((100, 100))

    first, second = storage.keep(tensor), storage.keep(tensor)

    assert arena.offset_of(first) is not None
    assert arena.offset_of(second) is None
    storage.forget([first, second])
    assert arena.offset_of(storage.keep(tensor)) is not None
