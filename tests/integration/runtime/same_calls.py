"""The calls that openvino and ovray are both asked, by name.  Each takes the models of one side and returns what a
caller would see, or raises."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from openvino.properties import hint

from tests.integration.runtime.same_packed_calls import PACKED_CALLS
from tests.integration.runtime.served_models import TYPES, Served, values

SIX = np.arange(6, dtype=np.float32)
ROWS = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
GRID = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
FACTOR = np.array([1, 2], np.float32)


class _ArrayLike:
    """Is what torch's tensors are to NumPy."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return SIX.copy()


def _read_only() -> Any:
    array = SIX.copy()
    array.setflags(write=False)
    return array


def tensor(array: Any, **options: Any) -> openvino.Tensor:
    return openvino.Tensor(np.asarray(array), **options)


def then(*steps: Any) -> Any:
    """Returns the last of several values that were computed one after the other."""
    return steps[-1]


INPUT_FORMS: dict[str, Callable[[Served], Any]] = {
    "an array": lambda c: c.bare(SIX),
    "an array of float64": lambda c: c.bare(SIX.astype("f8")),
    "an array of whole numbers": lambda c: c.bare(SIX.astype("i4")),
    "an array of booleans": lambda c: c.bare(np.ones(6, bool)),
    "an array of objects": lambda c: c.bare(SIX.astype(object)),
    "an array of another shape": lambda c: c.bare(SIX.reshape(2, 3)),
    "an array of another length": lambda c: c.bare(np.zeros(7, "f4")),
    "an array of text for numbers": lambda c: c.bare(np.array(list("abcdef"))),
    "a read-only array": lambda c: c.bare(_read_only()),
    "every second value of an array": lambda c: c.bare(np.arange(12, dtype="f4")[::2]),
    "an array in Fortran's order": lambda c: c.pair([np.asfortranarray(GRID), FACTOR]),
    "something with __array__": lambda c: c.bare(_ArrayLike()),
    "a list of one array": lambda c: c.bare([SIX]),
    "a tuple of one array": lambda c: c.bare((SIX,)),
    "a list of floats for float32": lambda c: c.bare([1.0, 2, 3, 4, 5, 6]),
    "a list of NumPy's scalars": lambda c: c.bare(list(SIX)),
    "a tuple of floats": lambda c: c.bare((1.0, 2, 3, 4, 5, 6)),
    "too many arrays": lambda c: c.bare([SIX, SIX]),
    "a dictionary by index": lambda c: c.bare({0: SIX}),
    "a dictionary by name": lambda c: c.bare({"x": SIX}),
    "a dictionary by port": lambda c: c.bare({c.bare.input(0): SIX}),
    "a dictionary by port of another name": lambda c: c.bare({c.pair.input(1): SIX}),
    "a dictionary by an index too high": lambda c: c.bare({1: SIX}),
    "a dictionary by an index below zero": lambda c: c.bare({-1: SIX}),
    "a dictionary by a name that is not there": lambda c: c.bare({"nope": SIX}),
    "a dictionary by a float": lambda c: c.bare({1.5: SIX}),
    "a dictionary of results": lambda c: c.bare({"x": c.bare(SIX)["double"]}),
    "results of another inference": lambda c: c.doubler(c.doubler(2.0)),
    "a Tensor": lambda c: c.bare(tensor(SIX)),
    "a Tensor of another type": lambda c: c.bare(tensor(SIX.astype("f8"))),
    "a Tensor of another shape": lambda c: c.bare(tensor(np.zeros(7, "f4"))),
    "a Tensor in a dictionary": lambda c: c.bare({"x": tensor(SIX)}),
    "nothing that is a tensor": lambda c: c.bare(object()),
    "a set": lambda c: c.bare({1, 2}),
    "a range": lambda c: c.bare(range(6)),
    "a memoryview": lambda c: c.bare(memoryview(SIX)),
    "text for numbers": lambda c: c.bare("abc"),
    "bytes for numbers": lambda c: c.bare(b"abc"),
    "None in a list": lambda c: c.bare([None]),
    "None in a dictionary": lambda c: c.bare({0: None}),
    "a scalar for a vector": lambda c: c.bare(2.0),
    "a float for a scalar": lambda c: c.doubler(2.5),
    "a whole number for a scalar": lambda c: c.doubler(3),
    "NumPy's float64 for a scalar": lambda c: c.doubler(np.float64(3)),
    "an array without dimensions for a scalar": lambda c: c.doubler(np.array(3)),
    "a list of one for a scalar": lambda c: c.doubler([3.0]),
    "an array of one for a scalar": lambda c: c.doubler(np.array([3], "f4")),
    "two inputs in a list": lambda c: c.pair([GRID, FACTOR]),
    "two inputs by index": lambda c: c.pair({1: FACTOR, 0: GRID}),
    "two inputs by index and name": lambda c: c.pair({"factor": FACTOR, 0: GRID}),
    "three inputs for two": lambda c: c.pair([GRID, FACTOR, FACTOR]),
    "an array for two inputs": lambda c: c.pair(GRID),
    "a Tensor for two inputs": lambda c: c.pair(tensor(GRID)),
    "inputs that do not go together": lambda c: c.refusing([GRID, np.ones(3, "f4")]),
    "one of two inputs": lambda c: c.request("refusing").infer({0: GRID}),
    "one row of an open batch": lambda c: c.perceptron(ROWS[:1]),
    "many rows of an open batch": lambda c: c.perceptron(np.tile(ROWS, (20, 1))),
    "no rows of an open batch": lambda c: c.perceptron(ROWS[:0]),
    "a batch without its first dimension": lambda c: c.perceptron(ROWS[0]),
    "a batch with too few columns": lambda c: c.perceptron(ROWS[:, :31]),
}

#: The same once more where inputs are copied, which OpenVINO does by other code.
COPIED_FORMS = {
    f"{name}, copied": lambda c, call=call: call(_Copying(c))
    for name, call in INPUT_FORMS.items()
    if "of two" not in name
}


class _Copying:
    """Is the models of one side, called as ``InferRequest.infer`` copies: a new request for each call."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def __getattr__(self, name: str) -> Any:
        compiled = getattr(self._served, name)
        if name not in Served.MAKERS:
            return compiled
        return _CopyingModel(compiled)


class _CopyingModel:
    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def __call__(self, inputs: Any) -> Any:
        return self._compiled.create_infer_request().infer(inputs)


ELEMENT_TYPES: dict[str, Callable[[Served], Any]] = {
    **{
        f"{name} by its own type": lambda c, name=name: c.types({name: values(name)})[f"{name}_twice"]
        for name in TYPES
    },
    **{
        f"{name} cast from float64": lambda c, name=name: c.types({name: values(name).astype("f8")})[
            f"{name}_twice"
        ]
        for name in TYPES
        if name != "bf16"
    },
    "text as a list": lambda c: c.echo(["a", "bé", ""]),
    "text as an array": lambda c: c.echo(np.array(["a", "bcd"])),
    "text as bytes": lambda c: c.echo(np.array([b"a", b"bcd"])),
    "text, results not decoded": lambda c: c.echo(np.array(["a", "bé"]), decode_strings=False),
    "text, copied": lambda c: c.request("echo").infer(np.array(["a", "bcd"])),
    "a number for text": lambda c: c.echo(3),
    "numbers for text": lambda c: c.echo(np.ones(2, "f4")),
    "one text for many": lambda c: c.echo("abc"),
    "text as a Tensor": lambda c: c.echo(tensor(np.array(["x", "yz"]))),
}

RESULTS: dict[str, Callable[[Served], Any]] = {
    "a result by index": lambda c: c.bare(SIX)[1],
    "a result by an index from the end": lambda c: c.bare(SIX)[-1],
    "a result by an index too high": lambda c: c.bare(SIX)[2],
    "a result by name": lambda c: c.bare(SIX)["double"],
    "a result by a name that is not there": lambda c: c.bare(SIX)["nope"],
    "a result by port": lambda c: c.bare(SIX)[c.bare.output("double")],
    "a result by a float": lambda c: c.bare(SIX)[1.5],
    "a result that is not there, with get": lambda c: c.bare(SIX).get("nope", "nothing"),
    "results in a tuple": lambda c: c.bare(SIX).to_tuple(),
    "results in a dictionary": lambda c: list(c.bare(SIX).to_dict().items()),
    "names of results": lambda c: c.bare(SIX).names(),
    "keys of results": lambda c: list(c.bare(SIX).keys()),
    "results one by one": lambda c: [port.get_any_name() for port in c.bare(SIX)],
    "how many results": lambda c: len(c.bare(SIX)),
    "whether a name is among results": lambda c: ("sum" in c.bare(SIX), "nope" in c.bare(SIX)),
    "results cannot be replaced": lambda c: c.bare(SIX).__setitem__(0, 1),
    "values unpacked": lambda c: (lambda total, double: (total, double))(*c.bare(SIX).values()),
    "results outlive the next inference": lambda c: (lambda first, _: first)(c.bare(SIX), c.bare(SIX * 2)),
    "results are writable": lambda c: (lambda results: then(results["double"].fill(7), results["double"]))(
        c.bare(SIX)
    ),
    "results shared": lambda c: c.request("bare").infer(SIX, share_outputs=True)["double"],
    "a new request": lambda c: c.bare.infer_new_request({"x": SIX}),
}


def _shared_then_read(c: Served) -> Any:
    memory, request = SIX.copy(), c.request("bare")
    request.set_input_tensor(tensor(memory, shared_memory=True))
    first = request.infer()["sum"]
    memory.fill(2)
    return first, request.infer()["sum"]


def _overwritten_after_start(c: Served) -> Any:
    memory, request = SIX.copy(), c.request("bare")
    request.start_async(memory)
    memory.fill(-1)
    request.wait()
    return request.results["sum"]


def _output_into(c: Served) -> Any:
    memory, request = np.zeros(6, "f4"), c.request("bare")
    request.set_output_tensor(1, tensor(memory, shared_memory=True))
    request.infer(SIX)
    return memory


def _written_in_place(c: Served) -> Any:
    request = c.request("bare")
    request.get_input_tensor().data[:] = SIX
    request.infer()
    return request.get_tensor("double").data


def _held_output(c: Served) -> Any:
    request = c.request("bare")
    held = request.get_output_tensor(1)
    request.infer(SIX)
    return held.data.copy()


def _with_callback(c: Served) -> Any:
    seen: list[Any] = []
    request = c.request("bare")
    request.set_callback(seen.append, "mine")
    request.start_async(SIX)
    request.wait()
    request.start_async(SIX, "other")
    request.wait()
    request.infer(SIX)
    return seen, request.userdata


def _callback_that_raises(c: Served) -> Any:
    request = c.request("bare")

    def callback(_: Any) -> None:
        raise ValueError("boom")

    request.set_callback(callback, None)
    request.start_async(SIX)
    request.wait()


def _after_an_error(c: Served) -> Any:
    request = c.request("bare")
    try:
        request.infer(np.zeros(7, "f4"))
    except RuntimeError:
        return request.infer(SIX)
    return None


def _busy(c: Served) -> Any:
    request, big = c.request("perceptron"), np.ones((200_000, 32), "f4")
    request.start_async(big)
    try:
        request.infer(big)
    finally:
        request.wait()


REQUESTS: dict[str, Callable[[Served], Any]] = {
    "start and wait": lambda c: (lambda r: then(r.start_async(SIX), r.wait(), r.results))(c.request("bare")),
    "start twice": _busy,
    "an array overwritten after start": _overwritten_after_start,
    "a shared Tensor, read anew": _shared_then_read,
    "an input tensor written in place": _written_in_place,
    "an output into the caller's memory": _output_into,
    "an output tensor held from before": _held_output,
    "callbacks": _with_callback,
    "a callback that raises": _callback_that_raises,
    "a callback without userdata": lambda c: c.request("bare").set_callback(print),
    "no callback": lambda c: c.request("bare").set_callback(None, None),
    "after an error": _after_an_error,
    "wait before start": lambda c: c.request("bare").wait(),
    "wait_for before start": lambda c: c.request("bare").wait_for(1),
    "wait_for after the end": lambda c: (lambda r: then(r.start_async(SIX), r.wait(), r.wait_for(1)))(
        c.request("bare")
    ),
    "wait_for below zero": lambda c: (lambda r: then(r.start_async(SIX), r.wait(), r.wait_for(-1)))(
        c.request("bare")
    ),
    "wait_for half a millisecond": lambda c: c.request("bare").wait_for(0.5),
    "latency before start": lambda c: c.request("bare").latency,
    "latency after": lambda c: (lambda r: then(r.infer(SIX), r.latency > 0))(c.request("bare")),
    "userdata before start": lambda c: c.request("bare").userdata,
    "cancel when idle": lambda c: c.request("bare").cancel(),
    "states": lambda c: (c.request("bare").query_state(), c.request("bare").reset_state()),
    "inputs of the model": lambda c: (c.request("bare").model_inputs, c.request("bare").model_outputs),
    "input tensors": lambda c: [list(t.shape) for t in c.request("pair").input_tensors],
    "output tensors": lambda c: [list(t.shape) for t in c.request("bare").output_tensors],
    "an output tensor without index": lambda c: c.request("bare").get_output_tensor(),
    "an input tensor too far": lambda c: c.request("bare").get_input_tensor(3),
    "an input tensor by a port of the source model": lambda c: (
        c.request("bare").get_tensor(Served.MAKERS["bare"]().input(0)).shape
    ),
    "a tensor by a port of another model": lambda c: c.request("bare").get_tensor(c.pair.input(0)),
    "a tensor by a name that is not there": lambda c: c.request("bare").get_tensor("nope"),
    "set an array for a tensor": lambda c: c.request("bare").set_input_tensor(SIX),
    "set a tensor of another type": lambda c: c.request("bare").set_input_tensor(tensor(SIX.astype("f8"))),
    "set a tensor of another shape": lambda c: c.request("bare").set_tensor("x", tensor(np.zeros(7, "f4"))),
    "set a tensor too far": lambda c: c.request("bare").set_input_tensor(2, tensor(SIX)),
    "set an output of another type": lambda c: c.request("bare").set_output_tensor(1, tensor(SIX.astype("f8"))),
    "set an output of another shape": lambda c: c.request("bare").set_output_tensor(1, tensor(np.zeros(5, "f4"))),
    "set tensors by name": lambda c: (lambda r: then(r.set_tensors({"x": tensor(SIX)}), r.infer()))(
        c.request("bare")
    ),
    "set tensors by index": lambda c: (lambda r: then(r.set_input_tensors({0: tensor(SIX)}), r.infer()))(
        c.request("bare")
    ),
    "set tensors by a name that is not there": lambda c: c.request("bare").set_tensors({"nope": tensor(SIX)}),
    "set inputs by name where indices go": lambda c: c.request("bare").set_input_tensors({"x": tensor(SIX)}),
    "set a batch of tensors": lambda c: (
        lambda r: then(r.set_input_tensors([tensor(ROWS[:1]), tensor(ROWS[1:])]), r.infer())
    )(c.request("batched")),
    "set too many for a batch": lambda c: c.request("batched").set_input_tensors([tensor(ROWS[:1])] * 3),
    "set a batch where no layout says so": lambda c: c.request("perceptron").set_input_tensors([tensor(ROWS)] * 2),
    "the compiled model of a request": lambda c: c.request("bare").get_compiled_model().inputs,
}


def _queue_with_callback(c: Served) -> Any:
    seen: dict[int, Any] = {}
    queue = c.queue("bare")
    queue.set_callback(lambda request, row: seen.update({row: request.get_output_tensor(0).data.copy()}))
    for row in range(10):
        queue.start_async({"x": SIX * row}, row)
    queue.wait_all()
    return [seen[row] for row in range(10)]


def _queue_callback_raises(c: Served) -> Any:
    queue = c.queue("bare")

    def callback(*_: Any) -> None:
        raise ValueError("boom")

    queue.set_callback(callback)
    queue.start_async(SIX)
    queue.wait_all()


def _queue_results_by_slot(c: Served) -> Any:
    queue = c.queue("bare")
    for row in range(2):
        queue.start_async(SIX * row, row)
    queue.wait_all()
    return [(userdata, request.results["sum"]) for userdata, request in zip(queue.userdata, queue, strict=True)]


QUEUES: dict[str, Callable[[Served], Any]] = {
    "a queue with a callback": _queue_with_callback,
    "a queue's callback that raises": _queue_callback_raises,
    "results of each slot of a queue": _queue_results_by_slot,
    "length of a queue": lambda c: len(c.queue("bare", 3)),
    "how a queue prints": lambda c: repr(c.queue("bare", 3)),
    "userdata of a new queue": lambda c: c.queue("bare").userdata,
    "userdata of a queue": lambda c: (lambda q: then(q.start_async(SIX, 5), q.wait_all(), q.userdata))(
        c.queue("bare")
    ),
    "a new queue is ready": lambda c: c.queue("bare").is_ready(),
    "the idle request of a new queue": lambda c: c.queue("bare").get_idle_request_id(),
    "a queue of less than no jobs": lambda c: c.queue("bare", -1),
    "a queue of no model": lambda c: c.ov.AsyncInferQueue(3),
    "a queue by keywords": lambda c: len(c.ov.AsyncInferQueue(model=c.bare, jobs=2)),
    "a queue's slot below zero": lambda c: c.queue("bare")[-1],
    "a queue without callback": lambda c: c.queue("bare").set_callback(None),
    "wait_all before start": lambda c: c.queue("bare").wait_all(),
    "a queue and a name that is not there": lambda c: c.queue("bare").start_async({"nope": SIX}),
    "a queue and inputs that do not go together": lambda c: (
        lambda q: then(q.start_async([GRID, np.ones(3, "f4")]), q.wait_all())
    )(c.queue("refusing")),
}

PORTS_AND_PROPERTIES: dict[str, Callable[[Served], Any]] = {
    "inputs": lambda c: c.pair.inputs,
    "outputs": lambda c: c.pair.outputs,
    "an input by index": lambda c: c.pair.input(1),
    "an input by name": lambda c: c.pair.input("factor"),
    "the only input": lambda c: c.bare.input(),
    "the only one of two inputs": lambda c: c.pair.input(),
    "the only one of two outputs": lambda c: c.bare.output(),
    "an input too far": lambda c: c.bare.input(4),
    "an input below zero": lambda c: c.bare.input(-1),
    "an input that is not there": lambda c: c.bare.input("nope"),
    "a port's names": lambda c: (c.bare.input(0).any_name, c.bare.input(0).names, c.bare.input(0).get_any_name()),
    "a port's shape": lambda c: (list(c.bare.output(1).shape), c.perceptron.input(0).partial_shape),
    "an open port's shape": lambda c: c.perceptron.input(0).shape,
    "a port's type": lambda c: c.bare.input(0).element_type.get_type_name(),
    "a port's node": lambda c: c.bare.input(0).get_node().get_friendly_name(),
    "equal ports": lambda c: (c.bare.output(0) == c.bare.outputs[0], {c.bare.output(0): 1}[c.bare.outputs[0]]),
    "the network's name": lambda c: c.bare.get_property("NETWORK_NAME"),
    "the number of requests": lambda c: type(c.bare.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")),
    "a property by its constant": lambda c: c.bare.get_property(openvino.properties.model_name),
    "the hint": lambda c: str(c.bare.get_property(hint.performance_mode)).rpartition(".")[2],
    "the precision": lambda c: c.bare.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
    "a property that is not there": lambda c: c.bare.get_property("NOPE"),
    "setting a property of a compiled model": lambda c: c.bare.set_property({"NUM_STREAMS": 2}),
    "a file that is not there": lambda c: c.core.read_model("/nowhere/model.xml"),
    "compiling a file that is not there": lambda c: c.core.compile_model("/nowhere/model.xml", "CPU"),
    "compiling a number": lambda c: c.core.compile_model(3, "CPU"),
    "a device that is not there": lambda c: c.core.compile_model(Served.MAKERS["bare"](), "XPU"),
    "a property of a device that is not there": lambda c: c.core.get_property("XPU", "FULL_DEVICE_NAME"),
    "a device's name": lambda c: c.core.get_property("CPU", "FULL_DEVICE_NAME"),
    "what a device can": lambda c: sorted(c.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
    "a device's property that is not there": lambda c: c.core.get_property("CPU", "NOPE"),
    "setting nothing that is a property": lambda c: c.core.set_property(3),
    "a model read from bytes": lambda c: c.core.read_model(b"no model"),
}

SAME_CALLS: dict[str, Callable[[Served], Any]] = {
    **INPUT_FORMS,
    **COPIED_FORMS,
    **ELEMENT_TYPES,
    **RESULTS,
    **REQUESTS,
    **QUEUES,
    **PACKED_CALLS,
    **PORTS_AND_PROPERTIES,
}
