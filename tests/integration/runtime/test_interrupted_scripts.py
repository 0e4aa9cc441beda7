"""Ctrl-C in a script that a user wrote: replicas finish what they hold, and a second one ends at once."""

import signal
import time

import pytest

from tests.integration.processes import Script, running
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.ray

#: Twelve requests of which a replica holds some; each says how it ended.
SCRIPT = """
import logging, sys, threading
import numpy as np
import ovray
from tests.integration.models import a_perceptron

logging.basicConfig(stream=sys.stdout, format="%(message)s")
ms = sys.argv[1]
said = threading.Semaphore(0)

def say(done):
    # In one piece: several threads say so.
    sys.stdout.write("answer\\n" if done.exception() is None else "error\\n")
    said.release()

try:
    with ovray.compile_model(a_perceptron(), f"SIM*2?ms={ms}", address="local") as compiled:
        futures = [compiled.submit(np.ones((1, 32), np.float32)) for _ in range(12)]
        for future in futures:
            future.add_done_callback(say)
        print("asked", flush=True)
        futures[-1].result()
finally:
    all(said.acquire(timeout=30) for _ in futures)
"""


def interrupted(script: Script, times: int) -> list[str]:
    """Interrupts a script that has asked, and returns what it said from then on."""
    while script.read_line() != "asked":
        pass
    for number in range(times):
        if number:
            time.sleep(0.5)  # two signals at once are one, and nothing shows when Python has seen the first
        script.process.send_signal(signal.SIGINT)
    said, _ = script.process.communicate(timeout=DEADLINE_S)
    return str(said).splitlines()


def test_ctrl_c_once_lets_replicas_finish_what_they_hold_and_says_what_was_not_run() -> None:
    with running(SCRIPT, "700") as script:
        said = interrupted(script, times=1)

    report = next(line for line in said if line.startswith("interrupted"))
    at = said.index(report)
    assert 1 <= said[:at].count("answer") <= 8
    assert said[:at].count("error") == 0
    assert said.count("answer") + said.count("error") == 12
    assert report.endswith(f"{said[at:].count('error')} requests end with an error")
    assert script.process.returncode != 0


def test_a_second_ctrl_c_ends_at_once() -> None:
    with running(SCRIPT, "60000") as script:
        began_s = time.monotonic()
        said = interrupted(script, times=2)

    assert "answer" not in said
    assert said.count("error") == 12
    assert not any(line.startswith("interrupted") for line in said)
    assert time.monotonic() - began_s < DEADLINE_S
