"""Is a script of a user: compiles a model, keeps asking from the main thread, and says as JSON lines what came.

Run as ``python -m tests.multihost.asking_script SCRIPT``; SCRIPT is the JSON of a ``scripts.AskingScript``.  Each
answer carries the number that was asked with it, so that one that is lost, or comes twice, shows.
"""

import json
import sys
import time
from collections import Counter
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

import ovray
from ovray.errors import OvrayError

#: Requests that have not ended at any moment: more than the windows of all replicas.
OUTSTANDING = 24

#: Lines come no more often than this.
EVERY_S = 0.05

#: What futures get to end once the model has failed; far more than the bound that the test asserts.
END_TIMEOUT_S = 150.0


def a_model() -> ov.Model:
    """Make a model that gives back its input, doubled."""
    given = ops.parameter([1, 4], np.float32, name="given")
    doubled = ops.multiply(given, ops.constant(np.float32(2.0)))
    return ov.Model([ops.result(doubled)], [given], "doubler")


class Asker:
    """Keeps requests under way, and books what becomes of each."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._next = 0
        self._pending: set[Future[Any]] = set()
        self.times: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self._said_s = 0.0

    @property
    def asked(self) -> int:
        return self._next

    def ask_until(self, is_over: Any) -> None:
        while not is_over() and not self.errors:
            while len(self._pending) < OUTSTANDING:
                self._ask_one()
            wait(self._pending, timeout=EVERY_S, return_when="FIRST_COMPLETED")
            self._book()

    def finish(self) -> None:
        """Wait for all that is under way; what does not end counts as hung."""
        _, hung = wait(self._pending, timeout=END_TIMEOUT_S)
        self._book()
        say(
            at_s=time.monotonic(),
            ended={
                "asked": self._next,
                "answered": len(self.times),
                "twice": sum(count > 1 for count in self.times.values()),
                "failed": sum(self.errors.values()),
                "errors": list(self.errors),
                "hung": len(hung),
            },
        )

    def _ask_one(self) -> None:
        number, self._next = self._next, self._next + 1
        future = self._compiled.submit(np.full((1, 4), number, np.float32))
        future.add_done_callback(lambda done: self._note(number, done))
        self._pending.add(future)

    def _note(self, number: int, done: "Future[Any]") -> None:
        if done.exception() is None:
            self.times[number] += 1

    def _book(self) -> None:
        ended = {future for future in self._pending if future.done()}
        self._pending -= ended
        self.errors.update(f"{type(error).__name__}: {error}" for one in ended if (error := one.exception()))
        if ended and time.monotonic() - self._said_s >= EVERY_S:
            self._said_s = time.monotonic()
            say(at_s=self._said_s, answered=len(self.times))


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def main() -> int:
    script = json.loads(sys.argv[1])
    compiled = ovray.compile_model(
        a_model(), script["devices"], address=script["address"], replica_timeout_s=script["replica_timeout_s"]
    )
    end_s = time.monotonic() + script["for_s"]
    asker = Asker(compiled)
    try:
        asker.ask_until(lambda: time.monotonic() > end_s)
    except OvrayError as error:  # of a ``submit``
        asker.errors[f"{type(error).__name__}: {error}"] += 0
    except KeyboardInterrupt:
        say(at_s=time.monotonic(), interrupted=True)
        raise
    asker.finish()
    compiled.close()
    say(at_s=time.monotonic(), closed=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
