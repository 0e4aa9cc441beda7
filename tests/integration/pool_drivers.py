"""Drivers of named pools for tests, each a real process that is told what to do line by line.

``opener`` opens a pool; ``asker`` attaches to one and asks, as fast as it is answered, until it is told to stop.
"""

import os
import sys
import threading

import numpy as np
import openvino as ov

from ovray.core.policies import SchedulePolicy
from ovray.driver.calls import Ended
from ovray.driver.named_pools import AttachOptions, attach_pool
from ovray.driver.opening import PoolOptions, open_pool
from ovray.driver.placement import PlacementOptions
from ovray.driver.pool_options import Lifetime
from tests.integration.models import a_perceptron

OPENER = "from tests.integration.pool_drivers import opener; opener()"
ASKER = "from tests.integration.pool_drivers import asker; asker()"

#: Requests of one asker that have not ended: more than the windows of all replicas.
OUTSTANDING = 64


def options_for(
    name: str, devices: str, lifetime: str, address: str | None, share_cores: bool = True
) -> PoolOptions:
    return PoolOptions(
        placement=PlacementOptions.parse(
            devices=devices, hint="LATENCY", precision="f32", share_cores=share_cores, lease_timeout_s=30.0
        ),
        policy=SchedulePolicy.FASTEST_COMPLETION,
        address=address,
        name=name,
        lifetime=Lifetime(lifetime),
    )


def opener() -> None:
    """Arguments: address, name, devices, lifetime.  Prints ``open``; closes when it is told anything."""
    address, name, devices, lifetime = sys.argv[1:]
    opened = open_pool(a_perceptron(), options_for(name, devices, lifetime, address))
    print("open")
    sys.stdin.readline()
    opened.pool.close()
    print("closed")


def asker() -> None:
    """Arguments: address, name.  Prints ``attached``; asks from the first line that it is told to the second.

    Prints ``asking``, and at the end ``right N wrong M`` and the first error, or ``None``.
    """
    address, name = sys.argv[1:]
    attached = attach_pool(name, AttachOptions(address=address))
    simulated = all(not spec.openvino_device for spec in attached.plan.replicas)
    answers = _Answers(simulated)
    print("attached")
    sys.stdin.readline()
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
    has_said_so = False
    while not told.is_set() and not answers.error:
        answers.ask(attached.pool)
        if answers.right and not has_said_so:
            print("asking")
            has_said_so = True
    attached.pool.drain(60.0)
    print(f"right {answers.right} wrong {answers.wrong}")
    print(f"error {answers.error}")
    sys.stdout.flush()
    attached.pool.close()


class _Answers:
    """Asks, and holds every answer against what OpenVINO in this process says."""

    def __init__(self, simulated: bool) -> None:
        chance = np.random.default_rng(os.getpid())
        self._inputs = chance.standard_normal((32, 1, 32), dtype=np.float32)
        compiled = ov.Core().compile_model(a_perceptron(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self._wanted = [None if simulated else compiled(one)[0].copy() for one in self._inputs]
        self._free = threading.Semaphore(OUTSTANDING)
        self._next = 0
        self.right = self.wrong = 0
        self.error: Exception | None = None

    def ask(self, pool: object) -> None:
        if not self._free.acquire(timeout=0.1):
            return
        number = self._next = (self._next + 1) % len(self._inputs)

        def ended(how: Ended) -> None:
            self._free.release()
            if how.outputs is None:
                self.error = self.error or how.error
            elif self._wanted[number] is None or np.allclose(how.outputs[0], self._wanted[number], 1e-4, 1e-5):
                self.right += 1
            else:
                self.wrong += 1

        try:
            pool.submit([self._inputs[number]], ended=ended)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 (said to the test)
            self._free.release()
            self.error = self.error or error
