"""Sends numbered requests through ovray's own face, and prints, as JSON lines, what its driver knows meanwhile.

Run as ``python -m tests.multihost.requests_driver REQUESTS``, which is the JSON of a
``request_load.RequestsOnHosts``.  Every even number goes through an ``AsyncInferQueue``, every odd one through
``submit``; the last line says how often each of them was answered, and how.
"""

import itertools
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil

import ovray as ov
from ovray.driver.pool import PoolSnapshot
from ovray.errors import OvrayError
from tests.multihost.numbered_requests import NUMBERS, POISON, a_row_sum, as_a_meal, is_answer_to, numbered
from tests.waiting import until

SHARED = Path(os.environ["OVRAY_TEST_SHARED"])

#: Lines come no more often than this.
EVERY_S = 0.02

#: And of the process itself.
PROCESS_EVERY_S = 1.0

#: Errors that are told in full.
SHOWN = 5

#: Requests that are in flight beside those of the queue.
SUBMITTED_AT_ONCE = 48


class Answers:
    """Counts what became of each number.  Safe to use from many threads."""

    def __init__(self) -> None:
        #: By number: how often it was sent, and answered.
        self.sent = bytearray()
        self.times = bytearray()
        self.sent_count = self.done = self.wrong = 0
        self.errors: dict[int, str] = {}
        self._changing = threading.Lock()

    def note_sent(self, number: int) -> None:
        """Is told of a request before its answer can come."""
        with self._changing:
            self.sent.extend(bytes(max(0, number + 1 - len(self.sent))))
            self.times.extend(bytes(max(0, number + 1 - len(self.times))))
            self.sent[number] += 1
            self.sent_count += 1

    def take_back(self, number: int) -> None:
        """Is told of one that was not taken."""
        with self._changing:
            self.sent[number] -= 1
            self.sent_count -= 1

    def take(self, number: int, answer: Any, columns: int) -> None:
        is_right = is_answer_to(number % NUMBERS, columns, answer)
        with self._changing:
            self.times[number] += 1
            self.done += 1
            self.wrong += not is_right

    def refuse(self, number: int, error: BaseException) -> None:
        with self._changing:
            self.errors[number] = f"{type(error).__name__}: {error}"

    def to_json(self) -> dict[str, Any]:
        each = list(enumerate(zip(self.sent, self.times, strict=True)))
        return {
            "sent": self.sent_count,
            "answered": self.done,
            "lost": sum(sent > times and number not in self.errors for number, (sent, times) in each),
            "twice": sum(times + (number in self.errors) > 1 for number, (_, times) in each),
            "wrong": self.wrong,
            "failed": len(self.errors),
            # As many as a message may show.
            "errors": dict(itertools.islice(self.errors.items(), SHOWN)),
        }


class Teller:
    """Prints how the pool stands, again and again."""

    def __init__(self, compiled: ov.CompiledModel, answers: Answers) -> None:
        self._compiled = compiled
        self._answers = answers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _tell(self) -> None:
        told_s = 0.0
        while not self._over.wait(EVERY_S):
            if time.monotonic() > told_s + PROCESS_EVERY_S:
                told_s = time.monotonic()
                say(at_s=told_s, process=this_process())
            try:
                told = self._compiled.serving.pool.snapshot()
            except OvrayError as error:
                say(at_s=time.monotonic(), pool_is_over=str(error))
                return
            say(at_s=time.monotonic(), standing=standing(told, self._answers.done))


def this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "rss_mb": process.memory_info().rss / 1e6,
        "files": process.num_fds(),
        "threads": process.num_threads(),
        #: Python's own, by what they are called without their numbers; the others are Ray's and NumPy's.
        "python_threads": Counter(thread.name.rstrip("-_0123456789") for thread in threading.enumerate()),
    }


def standing(told: PoolSnapshot, done: int) -> dict[str, Any]:
    return {
        "done": done,
        "starting": list(told.starting),
        "counters": told.scheduler.counters,
        "replicas": {
            replica.id: {
                "state": replica.state.value,
                "stalled": replica.is_stalled,
                "outstanding": replica.requests_outstanding,
                "done": replica.rows_done,
            }
            for replica in told.scheduler.replicas
        },
    }


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def send_all(numbers: Iterable[int], pace: "Pace", answers: Answers, send: Callable[[int], None]) -> None:
    """Sends requests until there were enough, or the pool takes no more."""
    for number in numbers:
        if pace.is_enough():
            return
        answers.note_sent(number)
        try:
            send(number)
        except OvrayError:
            answers.take_back(number)
            return  # what is pending still ends, and says why


def through_queue(compiled: ov.CompiledModel, answers: Answers, pace: "Pace") -> None:
    """Sends the even numbers, and waits until each of them has ended."""
    queue = ov.AsyncInferQueue(compiled)
    queue.set_callback(
        lambda request, number: answers.take(number, request.results[0], len(numbered(number % NUMBERS)[0]))
    )

    send_all(itertools.count(0, 2), pace, answers, lambda number: start(queue, number))
    try:
        queue.wait_all()
    except OvrayError as error:
        # It stands for all that have no answer; there is no callback for those.
        for number in range(0, len(answers.sent), 2):
            if answers.sent[number] > answers.times[number]:
                answers.refuse(number, error)


def start(queue: ov.AsyncInferQueue, number: int) -> None:
    queue.start_async(numbered(number % NUMBERS), number)


def through_submit(compiled: ov.CompiledModel, answers: Answers, pace: "Pace", job: Mapping[str, Any]) -> None:
    """Sends the odd numbers, and waits until each of them has ended."""
    room = threading.BoundedSemaphore(SUBMITTED_AT_ONCE)

    def send(number: int) -> None:
        request, device = numbered(number % NUMBERS), None
        if number == job["poison"]:
            request[:, 0] = POISON
        if job["fed"] is not None and took("poison"):
            request[:, 0], device = POISON, job["fed"]
        if job["fed"] is not None and took("meal"):
            request, device = as_a_meal(number % NUMBERS), job["fed"]
        room.acquire()
        try:
            future = compiled.submit(request, device=device)
        except BaseException:
            room.release()
            raise
        future.add_done_callback(lambda done: end(number, len(request[0]), done))

    def end(number: int, columns: int, done: "Future[Any]") -> None:
        error = done.exception()
        if error is None:
            answers.take(number, done.result()[0], columns)
        else:
            answers.refuse(number, error)
        room.release()

    send_all(itertools.count(1, 2), pace, answers, send)
    for _ in range(SUBMITTED_AT_ONCE):
        room.acquire()


def took(order: str) -> bool:
    """Says whether a file of this name lay in the shared folder; takes it away."""
    file = SHARED / order
    if not file.exists():
        return False
    file.unlink()
    return True


class Pace:
    """Says when there were enough requests."""

    def __init__(self, job: Mapping[str, Any], answers: Answers) -> None:
        self._wanted = job["requests"]
        self._waits = job["until_hurried"]
        self._answers = answers
        self._look_at_s = 0.0

    def is_enough(self) -> bool:
        if self._waits and time.monotonic() > self._look_at_s:
            self._look_at_s = time.monotonic() + EVERY_S
            self._waits = not (SHARED / "hurry").exists()
        return not self._waits and self._answers.sent_count >= self._wanted


def main() -> int:
    job = json.loads(sys.argv[1])
    answers = Answers()
    try:
        compiled = ov.compile_model(a_row_sum(), f"MULTI:{job['devices']}", address=job["address"])
    except OvrayError as error:
        say(at_s=time.monotonic(), error=str(error), kind=type(error).__name__)
        return 1
    until(lambda: sum(replica.state == "ready" for replica in compiled.replicas) >= job["replicas"])
    teller, pace = Teller(compiled, answers), Pace(job, answers)
    sender = threading.Thread(target=through_submit, args=(compiled, answers, pace, job))
    sender.start()
    through_queue(compiled, answers, pace)
    sender.join()
    teller.stop()
    say(at_s=time.monotonic(), report=answers.to_json())
    compiled.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
