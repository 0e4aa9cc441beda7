"""Inputs that are copied once, to where the pool keeps them, are the request's tensors all the same.  No Ray."""

import gc

import numpy as np
import openvino as ov
import pytest

from ovray.driver.arena import Arena, ArenaStorage
from ovray.errors import DataError
from ovray.runtime.ports import Ports
from ovray.runtime.tensors import InputTensors, Sharing
from tests.integration.models import a_pair_model, a_wide_double

WIDTH = 10_000


@pytest.fixture
def arena() -> Arena:
    return Arena(1 << 20)


def an_input(arena: Arena) -> InputTensors:
    return InputTensors(Ports(a_wide_double(WIDTH)), ArenaStorage(arena))


def a_row(value: float) -> np.ndarray:
    return np.full((1, WIDTH), value, np.float32)


def _take(tensors: InputTensors, row: np.ndarray) -> np.ndarray:
    tensors.take(row, Sharing.COPY)
    return tensors.arrays()[0]


def test_a_large_array_is_copied_to_where_it_is_kept(arena: Arena) -> None:
    tensors, row = an_input(arena), a_row(1)

    tensors.take(row, Sharing.COPY)
    row.fill(2)
    (taken,) = tensors.arrays()
    kept = ArenaStorage(arena).keep(taken)

    assert kept is taken
    assert arena.offset_of(taken) is not None
    assert (taken == 1).all()
    assert (tensors.arrays()[0] == 1).all()


@pytest.mark.parametrize("form", [lambda row: [row], lambda row: {0: row}, lambda row: (row,)])
def test_forms_that_name_no_port_are_copied_there_too(form: object, arena: Arena) -> None:
    tensors = an_input(arena)

    tensors.take(form(a_row(1)), Sharing.COPY)  # type: ignore[operator]

    assert arena.offset_of(tensors.arrays()[0]) is not None


def test_a_wrong_shape_is_refused_as_ever(arena: Arena) -> None:
    tensors = an_input(arena)

    with pytest.raises((DataError, RuntimeError)):
        _take(tensors, np.zeros((1, WIDTH + 1), np.float32))


def test_who_looks_gets_a_tensor_that_later_inputs_are_written_into(arena: Arena) -> None:
    tensors = an_input(arena)
    tensors.take(a_row(1), Sharing.COPY)

    seen = tensors.give_out(0)
    assert (seen.data == 1).all()
    tensors.take(a_row(2), Sharing.COPY)

    assert (seen.data == 2).all()
    assert (tensors.arrays()[0] == 2).all()
    assert arena.offset_of(tensors.arrays()[0]) is None


def test_other_types_are_cast_as_openvino_does(arena: Arena) -> None:
    tensors = an_input(arena)

    tensors.take(a_row(1).astype(np.float64), Sharing.COPY)

    assert tensors.arrays()[0].dtype == np.float32


def test_what_was_placed_is_free_again_when_the_pool_and_the_request_are_done(arena: Arena) -> None:
    storage, fits = ArenaStorage(arena), (1 << 20) // a_row(0).nbytes
    for number in range(20 * fits):
        tensors = an_input(arena)
        tensors.take(a_row(number), Sharing.COPY)
        kept = storage.keep(tensors.arrays()[0])
        if number % 2:
            del tensors
            gc.collect()
        assert arena.offset_of(kept) is not None, "a block was lost"
        assert (kept == number).all()
        storage.forget([kept])


def test_a_full_arena_only_costs_a_copy(arena: Arena) -> None:
    rows = [an_input(arena) for _ in range(40)]
    for number, tensors in enumerate(rows):
        tensors.take(a_row(number), Sharing.COPY)

    assert arena.offset_of(rows[-1].arrays()[0]) is None
    assert all((tensors.arrays()[0] == number).all() for number, tensors in enumerate(rows))


def test_several_inputs_of_which_one_is_small_are_the_requests_own(arena: Arena) -> None:
    tensors = InputTensors(Ports(a_pair_model()), ArenaStorage(arena))
    grid, factor = np.ones((2000, 2, 3), np.float32), np.ones(2000, np.float32)

    tensors.take([grid, factor], Sharing.COPY)

    assert all(arena.offset_of(array) is None for array in tensors.arrays())
    assert isinstance(tensors.get(1), ov.Tensor)
