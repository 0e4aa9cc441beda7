"""Compiles the same models with openvino and with ovray, for tests that hold one against the other."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from tests.integration import models

#: Both sides compute in the same precision, so that they give the same numbers.
CONFIG = {"INFERENCE_PRECISION_HINT": "f32"}

#: Every element type that has NumPy's arithmetic, and bf16, which travels as its bits.
TYPES = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "boolean")

#: Types of less than a byte that OpenVINO's CPU plugin takes and gives.
PACKED_TYPES = ("u2", "u4", "i4", "nf4", "f4e2m1")

#: Types of a byte, of which NumPy holds the bits.
F8_TYPES = ("f8e4m3", "f8e5m2", "f8e8m0")


def a_doubler() -> ov.Model:
    """``x`` f32[] in; its double out."""
    x = models._input("x", ov.Type.f32, [])
    return ov.Model([models._output("double", ops.multiply(x, np.float32(2)))], [x], "doubler")


def a_model_of_all_types() -> ov.Model:
    """For each of ``TYPES`` an input of two values; each output is one of them, twice."""
    inputs = [
        models._input(name, ov.Type(_numpy_type(name)) if name != "bf16" else ov.Type.bf16, [2]) for name in TYPES
    ]
    outputs = [
        models._output(f"{name}_twice", ops.concat([port, port], 0))
        for name, port in zip(TYPES, inputs, strict=True)
    ]
    return ov.Model(outputs, inputs, "types")


def a_model_with_layout() -> ov.Model:
    """The perceptron for batches of two, which says so."""
    model = models.a_perceptron(2)
    model.inputs[0].get_node().set_layout(ov.Layout("NC"))
    return model


def a_model_of_packed_types(shape: list[int]) -> ov.Model:
    """For each of ``PACKED_TYPES`` and ``F8_TYPES`` an input, with its values as f32 and the input itself as
    outputs; and ``numbers``, f32, which comes out as each of the types."""
    names = (*PACKED_TYPES, *F8_TYPES)
    inputs = [models._input(name, getattr(ov.Type, name), shape) for name in names]
    numbers = models._input("numbers", ov.Type.f32, shape)
    outputs = []
    for name, port in zip(names, inputs, strict=True):
        outputs += [
            models._output(f"{name}_values", ops.convert(port, "f32")),
            models._output(f"{name}_again", ops.convert(numbers, name)),
            ops.result(port),
        ]
    return ov.Model(outputs, [*inputs, numbers], "packed types")


def nibbles(shape: list[int]) -> ov.Model:
    """``x`` u4 in; ``values``, f32, and ``again``, u4, out.  Its layout says that rows come first."""
    x = models._input("x", ov.Type.u4, shape)
    x.set_layout(ov.Layout("NC"))
    values = ops.convert(x, "f32")
    again = ops.convert(values, "u4")
    return ov.Model([models._output("values", values), models._output("again", again)], [x], "nibbles")


def bits(shape: list[int]) -> ov.Model:
    """``x`` f32 in; ``bits`` u1 out."""
    x = models._input("x", ov.Type.f32, shape)
    return ov.Model([models._output("bits", ops.convert(x, "u1"))], [x], "bits")


def a_running_sum() -> ov.Model:
    """Adds each input to a variable."""
    x = models._input("x", ov.Type.f32, [1])
    memory = ops.read_value(ops.constant(np.zeros(1, np.float32)), "total", ov.Type.f32, ov.PartialShape([1]))
    total = ops.add(memory, x)
    kept = ops.assign(total, "total")
    return ov.Model([ops.result(total)], [kept], [x], "running sum")


def values(name: str) -> Any:
    """Returns two values of a type, as its port takes them."""
    return np.array([1, 0] if name == "boolean" else [1, 2]).astype(_numpy_type(name))


def _numpy_type(name: str) -> Any:
    return {"f64": "f8", "f32": "f4", "f16": "f2", "bf16": "f2", "boolean": "?"}.get(
        name, name[0] + str(int(name[1:]) // 8) if name[1:].isdigit() else "?"
    )


class Served:
    """Holds the models of one side, each compiled when it is first asked for."""

    MAKERS: ClassVar[Mapping[str, Callable[[], ov.Model]]] = {
        "perceptron": models.a_perceptron,
        "bare": models.a_model_without_batch,
        "pair": models.a_pair_model,
        # For inputs that the graph refuses, which OpenVINO does not forget at once.
        "refusing": models.a_pair_model,
        "echo": models.an_echo_model,
        "doubler": a_doubler,
        "types": a_model_of_all_types,
        "batched": a_model_with_layout,
        "packed": partial(a_model_of_packed_types, [2, 4]),
        "open_packed": partial(a_model_of_packed_types, [-1, -1]),
        "nibbles": partial(nibbles, [2, 4]),
        "open_nibbles": partial(nibbles, [-1, 4]),
        "bits": partial(bits, [2, 8]),
        "open_bits": partial(bits, [-1, 8]),
    }

    def __init__(self, ov: ModuleType, **options: Any) -> None:
        #: ``openvino`` or ``ovray``.
        self.ov = ov
        self.core = ov.Core()
        self._options = options
        self._compiled: dict[str, Any] = {}
        self._stack = ExitStack()

    def __getattr__(self, name: str) -> Any:
        if name not in self.MAKERS:
            raise AttributeError(name)
        if name not in self._compiled:
            compiled = self.core.compile_model(self.MAKERS[name](), "CPU", CONFIG, **self._options)
            if hasattr(compiled, "close"):
                self._stack.callback(compiled.close)
            self._compiled[name] = compiled
        return self._compiled[name]

    def request(self, name: str) -> Any:
        return getattr(self, name).create_infer_request()

    def queue(self, name: str, jobs: int = 2) -> Any:
        return self.ov.AsyncInferQueue(getattr(self, name), jobs)

    def close(self) -> None:
        self._compiled.clear()
        self._stack.close()
