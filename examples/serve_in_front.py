"""Ray Serve in front of a pool: HTTP, health and readiness from Serve, every device of the cluster from ovray.

    $ python examples/serve_in_front.py serve 8702 &
    $ python examples/serve_in_front.py ask 8702
    live 200, ready 200
    digits: inputs [('pixels', 'FP32', [-1, 64])]
    540 digits in 9 requests, accuracy 0.98
    a wrong shape: 400, input 0 'pixels' f32[?,64] was given the shape [1, 3]; give one of [?,64]
    an unknown model: 404
    $ kill -INT %1

Needs `pip install 'ray[serve]'`. The paths are those of KServe's V2 protocol, with tensors as JSON, so its
clients work. The deployment holds no model: it attaches to the pool `digits`, whose replicas live on when Serve
updates or scales the deployment. Where no such pool serves, the script opens one, which ends with it.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fastapi
import numpy as np
import pandas
import ray
from ray import serve

import ovray
from ovray import digits

NAME = "digits"

#: KServe's names of element types.
DATATYPES = {
    "float32": "FP32",
    "float16": "FP16",
    "float64": "FP64",
    "int64": "INT64",
    "int32": "INT32",
    "uint8": "UINT8",
    "bool": "BOOL",
}
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}

ROWS_PER_REQUEST = 60
START_TIMEOUT_S = 120


def described(port: ovray.Output) -> dict[str, Any]:
    """Describes an input or output; -1 is an open dimension."""
    shape = [-1 if size.is_dynamic else size.get_length() for size in port.partial_shape]
    datatype = DATATYPES[port.element_type.to_dtype().name]
    return {"name": port.any_name, "datatype": datatype, "shape": shape}


def array_of(tensor: dict[str, Any]) -> "np.typing.NDArray[Any]":
    return np.array(tensor["data"], DTYPES[tensor["datatype"]]).reshape(tensor["shape"])


def tensor_of(name: str, array: "np.typing.NDArray[Any]") -> dict[str, Any]:
    datatype = DATATYPES[array.dtype.name]
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


# What routes use stands above them: Serve takes a copy of all of it when the class is made.
app = fastapi.FastAPI()


# It waits for replicas and does no work itself, so it claims no core.
@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
@serve.ingress(app)
class KServeFront:
    """Answers for one pool."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.compiled = ovray.attach(name)

    def is_ready(self) -> bool:
        return any(replica.state == "ready" for replica in self.compiled.replicas)

    def check_health(self) -> None:
        """Is asked by Serve, which starts a new deployment replica, and so attaches anew, where this raises."""
        if not self.is_ready():
            raise RuntimeError(f"no replica of the pool {self.name!r} is ready")

    def check_name(self, name: str) -> None:
        if name != self.name:
            raise fastapi.HTTPException(404, f"there is no model {name!r}; this is {self.name!r}")

    @app.get("/v2/health/live")
    def live(self) -> None:
        """Answers 200: this process lives."""

    @app.get("/v2/health/ready")
    def ready(self) -> None:
        if not self.is_ready():
            raise fastapi.HTTPException(503, "no replica is ready")

    @app.get("/v2/models/{name}/ready")
    def model_ready(self, name: str) -> None:
        self.check_name(name)
        self.ready()

    @app.get("/v2/models/{name}")
    def metadata(self, name: str) -> dict[str, Any]:
        self.check_name(name)
        inputs = [described(port) for port in self.compiled.inputs]
        outputs = [described(port) for port in self.compiled.outputs]
        return {"name": name, "versions": ["1"], "platform": "openvino", "inputs": inputs, "outputs": outputs}

    @app.post("/v2/models/{name}/infer")
    async def infer(self, name: str, request: fastapi.Request) -> dict[str, Any]:
        self.check_name(name)
        question = await request.json()
        try:
            inputs = {tensor["name"]: array_of(tensor) for tensor in question["inputs"]}
            results = await self.compiled.infer_async(inputs)
        except KeyError as error:
            raise fastapi.HTTPException(400, f"the request has no {error}") from error
        except (ValueError, ovray.DataError) as error:
            raise fastapi.HTTPException(400, str(error)) from error
        outputs = [tensor_of(port.any_name, results[port]) for port in self.compiled.outputs]
        return {"model_name": name, "id": question.get("id", ""), "outputs": outputs}


@contextmanager
def the_pool() -> Iterator[None]:
    """Has a pool serve while the block runs: that of somebody else, or one of this script's own."""
    try:
        ovray.attach(NAME).close()
    except ovray.ConfigError:
        with ovray.compile_model(digits.model_file(), "MULTI", name=NAME):
            yield
    else:
        yield


def serve_until_interrupted(port: int) -> None:
    ray.init(log_to_driver=False)
    with the_pool():
        # Loopback; for other hosts give "0.0.0.0", and mind who can reach it.
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        try:
            serve.run(KServeFront.bind(NAME), blocking=True)
        finally:
            serve.shutdown()


def ask(port: int) -> None:
    url = f"http://127.0.0.1:{port}/v2"
    ready = wait_until_ready(f"{url}/health/ready")
    live, _ = answer_of(f"{url}/health/live")
    print(f"live {live}, ready {ready}")
    _, about = answer_of(f"{url}/models/{NAME}")
    inputs = [(port["name"], port["datatype"], port["shape"]) for port in about["inputs"]]
    print(f"{NAME}: inputs {inputs}")

    images = pandas.read_parquet(digits.held_out_file())
    read: list[int] = []
    starts = range(0, len(images), ROWS_PER_REQUEST)
    for start in starts:
        rows = np.stack(images["pixels"][start : start + ROWS_PER_REQUEST]).astype(np.float32)
        _, answer = answer_of(f"{url}/models/{NAME}/infer", {"inputs": [tensor_of("pixels", rows)]})
        read += next(output["data"] for output in answer["outputs"] if output["name"] == "digit")
    accuracy = (images["label"] == read).mean()
    print(f"{len(read)} digits in {len(starts)} requests, accuracy {accuracy:.2f}")

    three_values = tensor_of("pixels", np.zeros((1, 3), np.float32))
    status, answer = answer_of(f"{url}/models/{NAME}/infer", {"inputs": [three_values]})
    print(f"a wrong shape: {status}, {answer['detail']}")
    print(f"an unknown model: {answer_of(f'{url}/models/nobody')[0]}")


def wait_until_ready(url: str) -> int:
    """Returns the status of readiness once it is 200; gives up after two minutes."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while (status := answer_of(url)[0]) != 200 and time.monotonic() < end_s:
        time.sleep(0.5)
    return status


def answer_of(url: str, question: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Returns status and JSON of an answer; status 0 where nobody listens yet."""
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        text = refused.read()
        return refused.code, json.loads(text) if text.startswith(b"{") else text.decode()
    except urllib.error.URLError:
        return 0, None


if __name__ == "__main__":
    command, its_port = sys.argv[1], int(sys.argv[2])
    if command == "serve":
        serve_until_interrupted(its_port)
    else:
        ask(its_port)
