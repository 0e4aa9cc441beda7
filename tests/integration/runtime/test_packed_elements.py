"""Elements of less than a byte, where OpenVINO has nothing to hold ovray against: see same_packed_calls.py."""

import asyncio
from typing import Any

import numpy as np
import openvino as ov
import pytest

import ovray
from ovray.errors import ConfigError, DataError
from tests.integration.runtime.served_models import Served, bits, nibbles

pytestmark = pytest.mark.ray


def some_nibbles(*packed: int, rows: int = 2) -> ov.Tensor:
    return ov.Tensor(np.array(packed, np.uint8), ov.Shape([rows, 4]), ov.Type.u4)


def test_elements_of_half_a_byte_go_pythons_own_ways(ours: Served) -> None:
    tensors = [some_nibbles(0x10, 0x32, 0x54, 0x70 + row) for row in range(8)]
    wanted = [[[0, 1, 2, 3], [4, 5, row, 7]] for row in range(8)]

    submitted = [ours.open_nibbles.submit(tensor) for tensor in tensors]
    mapped = list(ours.open_nibbles.map(tensors))

    async def infer_all() -> list[Any]:
        return await asyncio.gather(*map(ours.open_nibbles.infer_async, tensors))

    for results in ([future.result() for future in submitted], mapped, asyncio.run(infer_all())):
        assert [each["values"].tolist() for each in results] == wanted
        assert [each["again"].tolist() for each in results] == [tensor.data.tolist() for tensor in tensors]


def test_a_tensor_of_half_bytes_can_be_given_another_shape_and_written_in_place(ours: Served) -> None:
    request = ours.request("open_nibbles")
    held = request.get_output_tensor(1)
    for rows in (3, 1, 0, 2):
        tensor = request.get_input_tensor()
        tensor.shape = [rows, 4]
        tensor.data[:] = np.arange(0x10, 0x10 + 2 * rows)

        request.infer()

        assert list(held.shape) == [rows, 4]
        np.testing.assert_array_equal(held.data, tensor.data)


def test_tensors_of_half_bytes_make_up_a_batch_where_none_shares_a_byte(ours: Served) -> None:
    request = ours.request("open_nibbles")
    request.set_input_tensors([some_nibbles(0x10, 0x32, rows=1), some_nibbles(0x54, 0x76, rows=1)])

    assert request.infer()["values"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]

    three = ov.Tensor(ov.Type.u4, ov.Shape([1, 3]))
    request.set_input_tensors([three, three])
    with pytest.raises(DataError, match=r"fills whole bytes; these are \[1, 3\], \[1, 3\]"):
        request.infer()
    bits = ov.Tensor(ov.Type.nf4, ov.Shape([1, 4]))
    request.set_input_tensors([bits, bits])
    with pytest.raises(DataError, match="not all of u4"):
        request.infer()


def test_requests_of_half_bytes_are_never_joined(ours: Served) -> None:
    options = {"rows_are_independent": True, "batch_size": 8, "batch_timeout_ms": 200, "share_cores": True}
    with ours.core.compile_model(
        nibbles([-1, 4]), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"}, **options
    ) as compiled:
        tensors = [some_nibbles(0x10 + row, 0x32, rows=1) for row in range(16)]

        results = [future.result() for future in [compiled.submit(tensor) for tensor in tensors]]

        assert [each["values"].tolist() for each in results] == [[[row, 1, 2, 3]] for row in range(16)]
        (report,) = compiled.serving.snapshot().reports.values()
        assert report.engine.max_joined_rows == 1
        assert "elements of u4 take less than one" in report.engine.batch.reason


@pytest.mark.parametrize("transport", ["local", "ray"])
def test_large_tensors_of_half_bytes_travel_every_way(
    ours: Served, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport == "ray":
        monkeypatch.setenv("OVRAY_TRANSPORT", "ray")
    large = ov.Tensor(ov.Type.u4, ov.Shape([50_001, 4]))
    large.data[:] = np.arange(large.data.size) % 251

    name = f"nibbles-{transport}"
    # The second as another process would do it, which has nothing but what the pool knows of the model.
    with (
        ours.core.compile_model(nibbles([-1, 4]), "CPU", share_cores=True, name=name),
        ovray.attach(name) as attached,
    ):
        request = attached.create_infer_request()
        results = request.infer(large)
        again = request.get_output_tensor(1)

    assert results["values"].shape == (50_001, 4)
    low_and_high = results["values"].astype(np.uint8).reshape(-1, 2)
    np.testing.assert_array_equal(low_and_high[:, 0] | low_and_high[:, 1] << 4, large.data)
    np.testing.assert_array_equal(results["again"], large.data)
    assert (list(again.shape), again.get_element_type()) == ([50_001, 4], ov.Type.u4)


def test_an_array_is_refused_with_what_to_give(ours: Served) -> None:
    what_to_give = (
        r"x' u4\[2,4\]; give elements of less than a byte as openvino\.Tensor\(packed_bytes, shape, type\)"
    )
    with pytest.raises(ValueError, match=what_to_give):
        ours.request("nibbles").infer(np.ones((2, 4), np.uint8))
    with pytest.raises(DataError, match=r"input 0 'x' u4\[2,4\] was given a tensor of u8; give openvino"):
        ours.nibbles(np.ones((2, 4), np.uint8))


def test_what_the_device_cannot_do_with_bits_is_said_when_it_is_compiled(ours: Served) -> None:
    with pytest.raises(ConfigError, match=r"output 0 is of u1 .*convert it to u8"):
        ours.core.compile_model(bits([2, 8]), "CPU", share_cores=True)
    with pytest.raises(ConfigError, match="Input image format u1 is not supported"):
        ours.core.compile_model(an_echo_of_bits(), "CPU", share_cores=True)


def an_echo_of_bits() -> ov.Model:
    x = ov.opset13.parameter([8], ov.Type.u1)
    return ov.Model([x], [x])
