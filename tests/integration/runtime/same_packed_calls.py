"""The calls that openvino and ovray are both asked, with elements of less than a byte: tensors of packed bytes.

Every call makes tensors of its own.  Models with open shapes are given nothing but tensors: what openvino copies,
it writes into the memory of earlier ones, which may be somebody else's by then.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino

from ovray.replica.element_types import PACKED_TYPES as GROUPS
from tests.integration.runtime.served_models import F8_TYPES, PACKED_TYPES, Served

TYPES = (*PACKED_TYPES, *F8_TYPES)

NUMBERS = np.array([[0, 1, 0.5, 1], [1, 0, 1, 0.25]], np.float32)
ROWS_OF_BITS = np.array([[1, 0, 0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0, 1, 0]], np.float32)


def packed(name: str = "u4", shape: tuple[int, ...] = (2, 4), step: int = 37) -> openvino.Tensor:
    """Makes a tensor of a type from its name, of bytes that all differ."""
    tensor = openvino.Tensor(getattr(openvino.Type, name), openvino.Shape(shape))
    tensor.data.flat = np.arange(1, 1 + tensor.data.size) * step % 120
    return tensor


def meant(data: Any, name: str, count: int) -> Any:
    """Copies packed bytes, with zeros for what follows the last element: openvino leaves it unset."""
    per_byte, used = GROUPS.get(name, (1, 1))[0], data.copy()
    if left := count % per_byte:
        used[-1] &= (1 << left * (8 // per_byte)) - 1
    return used


def all_inputs(shape: tuple[int, ...]) -> dict[str, Any]:
    numbers = np.resize(NUMBERS, shape)
    return {name: packed(name, shape) for name in TYPES} | {"numbers": openvino.Tensor(numbers)}


def results_of(name: str, results: Any, count: int) -> Any:
    port = next(port for port in results if f"{name}_again" in port.get_names())
    return (
        results[f"{name}_values"],
        meant(results[port], name, count),
        meant(results[name], name, count),
        results[name].shape,
    )


def _called(c: Served, model: str, name: str, shape: tuple[int, ...]) -> Any:
    return results_of(name, getattr(c, model)(all_inputs(shape)), shape[0] * shape[1])


def _started(c: Served, model: str, name: str, shape: tuple[int, ...]) -> Any:
    request = c.request(model)
    request.start_async(all_inputs(shape))
    request.wait()
    tensor = request.get_tensor(f"{name}_again")
    count = shape[0] * shape[1]
    return results_of(name, request.results, count), list(tensor.shape), meant(tensor.data, name, count)


def _queued(c: Served, model: str, name: str) -> Any:
    seen: dict[int, Any] = {}
    queue = c.queue(model)

    def callback(request: Any, rows: int) -> None:
        tensor = request.get_tensor(f"{name}_again")
        seen[rows] = tensor.get_element_type().get_type_name(), list(tensor.shape), tensor.data.copy()

    queue.set_callback(callback)
    for rows in (2, 2, 4, 2) if model == "open_packed" else (2, 2):
        queue.start_async(all_inputs((rows, 4)), rows)
    queue.wait_all()
    return [seen[rows] for rows in sorted(seen)]


EACH_TYPE: dict[str, Callable[[Served], Any]] = {
    name_of_case: call
    for name in TYPES
    for name_of_case, call in {
        f"{name}": lambda c, name=name: _called(c, "packed", name, (2, 4)),
        f"{name}, open shape": lambda c, name=name: _called(c, "open_packed", name, (4, 4)),
        f"{name}, open shape, last byte in part": lambda c, name=name: _called(c, "open_packed", name, (3, 3)),
        f"{name}, open shape, no rows": lambda c, name=name: _called(c, "open_packed", name, (0, 3)),
        f"{name}, started": lambda c, name=name: _started(c, "packed", name, (2, 4)),
        f"{name}, started, open shape": lambda c, name=name: _started(c, "open_packed", name, (3, 3)),
        f"{name}, queued": lambda c, name=name: _queued(c, "packed", name),
        f"{name}, queued, open shape": lambda c, name=name: _queued(c, "open_packed", name),
    }.items()
}


def _shared_then_read(c: Served, model: str) -> Any:
    memory, request = np.full(4, 0x21, np.uint8), c.request(model)
    request.set_input_tensor(openvino.Tensor(memory, openvino.Shape([2, 4]), openvino.Type.u4))
    first = request.infer()["values"].copy()
    memory.fill(0x43)
    return first, request.infer()["values"], request.get_input_tensor()


def _written_in_place(c: Served) -> Any:
    request = c.request("nibbles")
    request.get_input_tensor().data[:] = [0x21, 0x43, 0x65, 0x87]
    return request.infer()["values"], request.get_tensor("again")


def _output_into(c: Served, model: str, shape: tuple[int, ...], byte_count: int) -> Any:
    memory, request = np.zeros(byte_count, np.uint8), c.request(model)
    request.set_output_tensor(1, openvino.Tensor(memory, openvino.Shape(shape), openvino.Type.u4))
    request.infer(packed())
    return memory, request.get_output_tensor(1), request.results["again"]


def _held_output(c: Served, model: str) -> Any:
    request = c.request(model)
    held = request.get_output_tensor(1)
    request.infer(packed())
    return held


def _after_an_error(c: Served, model: str) -> Any:
    request = c.request(model)
    try:
        request.infer(packed(shape=(2, 5)))
    except RuntimeError:
        return request.infer(packed())["values"]
    return None


def _fed_to_another(c: Served, model: str) -> Any:
    request = c.request(model)
    request.infer(packed())
    return c.request(model).infer(request.get_output_tensor(1))["values"]


def _batch(c: Served, *tensors: openvino.Tensor) -> Any:
    request = c.request("nibbles")
    request.set_input_tensors(list(tensors))
    return request.infer()["values"]


def _infer(c: Served, model: str, inputs: Any) -> Any:
    return c.request(model).infer(inputs)["values"]


#: By what is done to a model of u4.
WITH_NIBBLES: dict[str, Callable[[Served, str], Any]] = {
    "a Tensor": lambda c, m: getattr(c, m)(packed()).to_tuple(),
    "a Tensor in a list": lambda c, m: _infer(c, m, [packed()]),
    "a Tensor by index": lambda c, m: _infer(c, m, {0: packed()}),
    "a Tensor by name": lambda c, m: _infer(c, m, {"x": packed()}),
    "a Tensor by port": lambda c, m: _infer(c, m, {getattr(c, m).input(0): packed()}),
    "results shared": lambda c, m: c.request(m).infer(packed(), share_outputs=True)["again"],
    "results as the next input": lambda c, m: _infer(c, m, getattr(c, m)(packed())["again"]),
    "an output tensor as the next input": _fed_to_another,
    "shared memory, read anew": _shared_then_read,
    "set by name": lambda c, m: (lambda r: (r.set_tensor("x", packed()), r.infer()["values"]))(c.request(m))[1],
    "an output held from before": _held_output,
    "an output into the caller's memory": lambda c, m: _output_into(c, m, (2, 4), 4),
    "an output into too much memory": lambda c, m: _output_into(c, m, (3, 4), 6),
    "an output into too little memory": lambda c, m: _output_into(c, m, (1, 4), 2),
    "an output of whole bytes": lambda c, m: c.request(m).set_output_tensor(
        1, openvino.Tensor(np.zeros((2, 4), np.uint8))
    ),
    "an output of another type": lambda c, m: c.request(m).set_output_tensor(1, packed("nf4")),
    "tensors before": lambda c, m: [
        (list(tensor.shape), tensor.data.shape, tensor.data.dtype.str)
        for tensor in (c.request(m).get_input_tensor(), c.request(m).get_output_tensor(1))
    ],
    "results before": lambda c, m: (lambda a: (a.shape, a.dtype.str))(c.request(m).results["again"]),
    "an array in the shape of its elements": lambda c, m: getattr(c, m)(np.ones((2, 4), np.uint8)),
    "an array in the shape of its elements, copied": lambda c, m: _infer(c, m, np.ones((2, 4), np.uint8)),
    "an array of packed bytes": lambda c, m: getattr(c, m)(np.ones(4, np.uint8)),
    "an array of packed bytes, copied": lambda c, m: _infer(c, m, np.ones(4, np.uint8)),
    "an array of floats": lambda c, m: getattr(c, m)(np.ones((2, 4), np.float32)),
    "an array of floats, copied": lambda c, m: _infer(c, m, np.ones((2, 4), np.float32)),
    "an array by name, copied": lambda c, m: _infer(c, m, {"x": np.ones((2, 4), np.uint8)}),
    "an array of one": lambda c, m: _infer(c, m, np.ones((1, 1), np.uint8)),
    "an array, queued": lambda c, m: (lambda q: (q.start_async(np.ones((2, 4), np.uint8)), q.wait_all()))(
        c.queue(m)
    ),
    "a number": lambda c, m: _infer(c, m, 3),
    "a list of numbers": lambda c, m: _infer(c, m, [[1, 2, 3, 4], [1, 2, 3, 4]]),
    "a Tensor of bytes": lambda c, m: _infer(c, m, openvino.Tensor(np.ones((2, 4), np.uint8))),
    "a Tensor of packed bytes": lambda c, m: _infer(c, m, openvino.Tensor(np.ones(4, np.uint8))),
    "a Tensor of another packed type": lambda c, m: _infer(c, m, packed("nf4")),
    "a Tensor of another packed type, started": lambda c, m: c.request(m).start_async(packed("i4")),
    "a Tensor of too many columns": lambda c, m: _infer(c, m, packed(shape=(2, 5))),
    "a Tensor of another rank": lambda c, m: _infer(c, m, packed(shape=(8,))),
    "a Tensor of another rank, set": lambda c, m: c.request(m).set_input_tensor(packed(shape=(8,))),
    "an array, set": lambda c, m: c.request(m).set_input_tensor(np.ones(4, np.uint8)),
    "after an error": _after_an_error,
    "a port": lambda c, m: (getattr(c, m).input(0), getattr(c, m).output("again")),
}

BITS: dict[str, Callable[[Served], Any]] = {
    # openvino hands out a byte for each element; what follows the packed ones is unset.
    "u1 out, open shape": lambda c: c.open_bits(openvino.Tensor(ROWS_OF_BITS.copy()))["bits"][:2],
    "u1 out, started, open shape": lambda c: (
        lambda r: (r.start_async(openvino.Tensor(ROWS_OF_BITS.copy())), r.wait(), r.results["bits"][:2])
    )(c.request("open_bits")),
    "u1 out, fixed shape": lambda c: c.bits(ROWS_OF_BITS),
    **{
        f"{name} in": lambda c, name=name: c.core.compile_model(
            openvino.Model([port := openvino.opset13.parameter([8], getattr(openvino.Type, name))], [port]), "CPU"
        )
        for name in ("u1", "u3", "u6")
    },
}

PACKED_CALLS: dict[str, Callable[[Served], Any]] = {
    **EACH_TYPE,
    **{
        f"u4, {'open' if model == 'open_nibbles' else 'fixed'}: {name}": lambda c, call=call, model=model: call(
            c, model
        )
        for model in ("nibbles", "open_nibbles")
        for name, call in WITH_NIBBLES.items()
    },
    **{
        f"{name} by an array of its bits": lambda c, name=name: c.request("packed").infer(
            all_inputs((2, 4)) | {name: np.arange(8, dtype=np.uint8).reshape(2, 4)}
        )[f"{name}_values"]
        for name in F8_TYPES
    },
    **{
        f"{name} by an array of its bits, shared": lambda c, name=name: c.packed(
            {name: np.arange(8, dtype=np.uint8).reshape(2, 4)}
        )
        for name in TYPES
    },
    "u4, fixed: written in place": _written_in_place,
    "u4, fixed: a batch of tensors": lambda c: _batch(c, packed(shape=(1, 4)), packed(shape=(1, 4), step=11)),
    "u4, fixed: too few tensors for a batch": lambda c: _batch(c, packed(shape=(1, 4))),
    **BITS,
}
