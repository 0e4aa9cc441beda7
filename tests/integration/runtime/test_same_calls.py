"""The same calls on openvino and on ovray: results, their types, and the types of exceptions are the same."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openvino
import pytest

from tests.integration.runtime.same_calls import SAME_CALLS
from tests.integration.runtime.served_models import Served


def outcome(call: Callable[[Served], Any], served: Served) -> tuple[str, Any]:
    try:
        return "returns", plain(call(served))
    except Exception as error:  # noqa: BLE001 (which one it is, is what is compared)
        return "raises", error


def plain(value: Any) -> Any:
    """Makes values of both sides comparable, without losing types, shapes and order."""
    if isinstance(value, openvino.Output | openvino.ConstOutput):
        names, shape = sorted(value.get_names()), str(value.get_partial_shape())
        return ("port", names, shape, value.get_element_type().get_type_name(), value.get_index())
    if isinstance(value, openvino.Tensor):
        return ("tensor", value.get_element_type().get_type_name(), list(value.shape), plain(value.data))
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.flags.writeable, value)
    if isinstance(value, Mapping):
        return ("mapping", [(plain(key), plain(inner)) for key, inner in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [plain(inner) for inner in value])
    return (type(value).__name__, value)


def assert_equal(ours: Any, original: Any) -> None:
    if isinstance(original, np.ndarray) and original.dtype.kind == "f":
        np.testing.assert_allclose(ours, original, rtol=1e-5, atol=1e-6)
    elif isinstance(original, np.ndarray):
        np.testing.assert_array_equal(ours, original)
    elif isinstance(original, list | tuple):
        assert len(ours) == len(original)
        for our_item, original_item in zip(ours, original, strict=True):
            assert_equal(our_item, original_item)
    else:
        assert ours == original


def test_the_table_is_as_long_as_promised() -> None:
    assert len(SAME_CALLS) >= 80


@pytest.mark.ray
@pytest.mark.parametrize("name", SAME_CALLS)
def test_a_call_does_the_same(name: str, ours: Served, original: Served) -> None:
    how_original, what_original = outcome(SAME_CALLS[name], original)

    how_ours, what_ours = outcome(SAME_CALLS[name], ours)

    assert how_ours == how_original, (what_ours, what_original)
    if how_original == "raises":
        assert isinstance(what_ours, type(what_original)), (what_ours, what_original)
    else:
        assert_equal(what_ours, what_original)
