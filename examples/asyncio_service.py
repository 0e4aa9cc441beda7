"""A small web service: asyncio on the outside, every device of the cluster behind it.

    $ python examples/asyncio_service.py serve 8701 &
    $ python examples/asyncio_service.py ask 8701
    540 digits asked one by one, accuracy 0.98
    a bad question: 400, input 0 'pixels' f32[?,64] was given the shape [1, 3]; give one of [?,64]
    $ kill -INT %1

Needs aiohttp (`pip install aiohttp`; Ray's `default` extra brings it). Each request is one row; those that wait
together are inferred together. Put TLS and logins in front of it: it listens on loopback.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pandas
from aiohttp import web

import ovray
from ovray import digits

MODEL = web.AppKey("model", ovray.CompiledModel)

#: How many questions the client below has open at a time.
OPEN_QUESTIONS = 64
START_TIMEOUT_S = 120


async def compiled_model(app: web.Application) -> AsyncIterator[None]:
    """Has the model serve as long as the service does."""
    app[MODEL] = await asyncio.to_thread(ovray.compile_model, digits.model_file(), "MULTI")
    yield
    await asyncio.to_thread(app[MODEL].close)


async def ready(request: web.Request) -> web.Response:
    """Answers 200 as long as some replica can take work."""
    is_ready = any(replica.state == "ready" for replica in request.app[MODEL].replicas)
    return web.Response(status=200 if is_ready else 503)


async def read_digit(request: web.Request) -> web.Response:
    """Takes ``{"pixels": [64 numbers]}``, gives ``{"digit": 7}``."""
    question = await request.json()
    try:
        results = await request.app[MODEL].infer_async({"pixels": np.array([question["pixels"]], np.float32)})
    except ovray.DataError as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response({"digit": int(results["digit"][0])})


def serve(port: int) -> None:
    app = web.Application()
    app.cleanup_ctx.append(compiled_model)
    app.add_routes([web.get("/ready", ready), web.post("/digit", read_digit)])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


async def ask(port: int) -> None:
    images = pandas.read_parquet(digits.held_out_file())
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        await asyncio.wait_for(until_ready(client), timeout=START_TIMEOUT_S)
        turns = asyncio.Semaphore(OPEN_QUESTIONS)

        async def one(pixels: "np.typing.NDArray[np.uint8]") -> int:
            async with turns, client.post("/digit", json={"pixels": pixels.tolist()}) as answer:
                return int((await answer.json())["digit"])

        read = await asyncio.gather(*[one(pixels) for pixels in images["pixels"]])
        print(f"{len(read)} digits asked one by one, accuracy {(images['label'] == read).mean():.2f}")
        async with client.post("/digit", json={"pixels": [0, 1, 2]}) as answer:
            print(f"a bad question: {answer.status}, {(await answer.json())['error']}")


async def until_ready(client: aiohttp.ClientSession) -> None:
    """Waits until the service answers."""
    while True:
        try:
            async with client.get("/ready") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientConnectionError:
            pass  # it has not begun to listen
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    command, port = sys.argv[1], int(sys.argv[2])
    if command == "serve":
        serve(port)
    else:
        asyncio.run(ask(port))
