"""Models and pools that are given other devices while they serve: who stays, who goes, and no request is lost."""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

import ovray
from ovray.devices.leases import DIRECTORY_VARIABLE, CoreLeases
from ovray.driver.named_pools import list_pools
from ovray.driver.session import held_session
from ovray.errors import ConfigError, ReplicaError
from ovray.runtime.compiled_model import CompiledModel
from tests.integration.a_cluster import a_cluster
from tests.integration.commands import ran
from tests.waiting import DEADLINE_S, until

#: Requests under way at any moment: more than all replicas take at once.
OUTSTANDING = 16

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def leases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for leases of our own, so that other work on this machine does not matter."""
    return tmp_path_factory.mktemp("leases")


@pytest.fixture(scope="module", autouse=True)
def address(leases: Path) -> Iterator[str]:
    with a_cluster(8, **{DIRECTORY_VARIABLE: str(leases)}) as found:
        held_session.take(found)
        yield found
        held_session.let_go()


def a_doubler() -> ov.Model:
    given = ops.parameter([1, 4], np.float32, name="given")
    return ov.Model([ops.result(ops.multiply(given, ops.constant(np.float32(2.0))))], [given], "doubler")


@contextmanager
def compiled(devices: str, **options: Any) -> Iterator[CompiledModel]:
    """Compiles for cores of its own, and waits until all replicas are there."""
    with ovray.compile_model(a_doubler(), devices, {"INFERENCE_PRECISION_HINT": "f32"}, **options) as model:
        until(lambda: {replica.state for replica in model.replicas} == {"ready"})
        yield model


def names(model: CompiledModel, *states: str) -> list[str]:
    """Returns the replicas in these states, in all where none is named, without their host."""
    return [
        str(replica.id).rpartition("/")[2] for replica in model.replicas if not states or replica.state in states
    ]


def pids(model: CompiledModel) -> dict[str, int | None]:
    return {str(replica.id).rpartition("/")[2]: replica.pid for replica in model.replicas}


class Asking:
    """Asks all the time until the block ends; then every answer must have come, once and right."""

    def __init__(self, model: CompiledModel) -> None:
        self._model = model
        self._over = threading.Event()
        self._times: Counter[int] = Counter()
        self._wrong: list[object] = []
        self._room = threading.Semaphore(OUTSTANDING)
        self._thread = threading.Thread(target=self._ask)
        self.asked = 0

    @property
    def answered(self) -> int:
        return len(self._times)

    def __enter__(self) -> "Asking":
        self._thread.start()
        until(lambda: self.answered > OUTSTANDING)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._over.set()
        self._thread.join(DEADLINE_S)
        if kind is None:
            until(lambda: self.answered + len(self._wrong) == self.asked)
            assert self._wrong == []
            assert set(self._times.values()) == {1}

    def _ask(self) -> None:
        while not self._over.is_set():
            if self._room.acquire(timeout=0.1):
                number, self.asked = self.asked, self.asked + 1
                future = self._model.submit(np.full((1, 4), number, np.float32))
                future.add_done_callback(lambda done, number=number: self._note(number, done))

    def _note(self, number: int, done: "Future[Any]") -> None:
        self._room.release()
        if done.exception() is not None:
            self._wrong.append(done.exception())
            return
        self._times[number] += 1
        # A simulated device says the sum of the four numbers that it was given.
        if (done.result()[0] != 2.0 * number).any() and (done.result()[0] != 4.0 * number).any():
            self._wrong.append((number, done.result()[0]))


# --- a model of one's own -----------------------------------------------------------------------------------


def test_replicas_that_are_wanted_still_go_on_and_the_others_finish_and_end() -> None:
    with compiled("SIM*3?ms=20&answer=sum") as model, Asking(model) as asking:
        before = pids(model)

        model.set_devices("SIM*2?ms=20&answer=sum,SIM?ms=5&answer=sum")
        until(lambda: names(model) == ["SIM#0", "SIM#1", "SIM#3"] and names(model, "ready") == names(model))
        answered = asking.answered
        until(lambda: asking.answered > answered + 50)
        after = pids(model)
        until(lambda: not Path(f"/proc/{before['SIM#2']}").exists())

    assert [after[name] for name in ("SIM#0", "SIM#1")] == [before[name] for name in ("SIM#0", "SIM#1")]


def test_cores_go_from_one_replica_to_those_that_follow_it(leases: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("needs two cores")
    one, both = f"CPU@{cpus[0]}", f"CPU@{cpus[0]},CPU@{cpus[1]}"
    with compiled(both) as model, Asking(model):
        kept, other = (replica for replica in model.replicas)

        model.set_devices(one)
        until(lambda: len(model.replicas) == 1)
        until(lambda: set(CoreLeases(leases).held()) == set(kept.cpus))
        assert model.replicas[0].pid == kept.pid

        # The other core alone: for a while nobody works, and requests wait.
        model.set_devices(f"CPU@{cpus[1]}")
        until(lambda: [replica.state for replica in model.replicas] == ["ready"])
        assert model.replicas[0].cpus == other.cpus

        # And the same cores for a replica of another kind, which has to wait for the first one's end.
        model.set_devices(f"CPU@{cpus[1]}?NUM_STREAMS=1")
        until(lambda: [replica.state for replica in model.replicas] == ["ready"])
    assert CoreLeases(leases).held() == {}


@pytest.mark.parametrize(
    ("devices", "told"), [("NPU.7", r"nothing here is 'NPU\.7'; there are .*CPU\.0"), ("CPU*", "CPU")]
)
def test_a_string_that_means_nothing_changes_nothing(devices: str, told: str) -> None:
    with compiled("SIM?ms=5&answer=sum") as model:
        before = model.replicas[0].pid
        with pytest.raises(ConfigError, match=told):
            model.set_devices(devices)

        assert names(model) == ["SIM#0"]
        assert model.replicas[0].pid == before
        model(np.ones((1, 4)))


def test_a_replica_that_starts_is_let_go_and_one_that_was_killed_is_not_awaited() -> None:
    with compiled("SIM*2?ms=5&answer=sum") as model, Asking(model):
        model.set_devices("SIM*2?ms=5&answer=sum,SIM?compile_s=600")
        assert names(model, "starting") == ["SIM#2"]
        killed = pids(model)["SIM#1"]
        assert killed is not None
        os.kill(killed, 9)

        model.set_devices("SIM?ms=5&answer=sum")

        until(lambda: names(model) == ["SIM#0"])


def test_requests_for_a_replica_that_is_gone_end_with_an_error_that_says_so() -> None:
    with compiled("SIM*2?ms=100&answer=sum") as model:
        place = str(next(replica.id for replica in model.replicas if str(replica.id).endswith("#1")))
        futures = [model.submit(np.ones((1, 4)), device=place) for _ in range(20)]

        model.set_devices("SIM?ms=100&answer=sum")
        errors = [future.exception(DEADLINE_S) for future in futures]

        assert errors[0] is None  # it ran there
        assert isinstance(errors[-1], ReplicaError)
        assert "was taken out of the model's devices; it was not run" in str(errors[-1])
        with pytest.raises(ConfigError, match="none of this model's"):
            model.submit(np.ones((1, 4)), device=place)


def test_the_order_of_the_new_string_counts_and_not_the_old_one() -> None:
    slow, fast = "SIM?ms=20&answer=sum", "SIM?ms=1&answer=sum"
    with compiled(f"AUTO:{slow},{fast}") as model:
        assert serving(model) == {"SIM#0"}

        model.set_devices(f"AUTO:{fast},{slow}")
        assert serving(model) == {"SIM#1"}

        model.set_property({"MULTI_DEVICE_PRIORITIES": "SIM"})
        model.set_devices(f"MULTI:{slow},{fast}")
        until(lambda: serving(model, 30) == {"SIM#0", "SIM#1"})


def serving(model: CompiledModel, requests: int = 6) -> set[str]:
    """Returns who answers some requests that come together."""
    before = {replica.id: replica.rows_done for replica in model.replicas}
    for future in [model.submit(np.ones((1, 4))) for _ in range(requests)]:
        future.result(DEADLINE_S)
    return {
        str(replica.id).rpartition("/")[2] for replica in model.replicas if replica.rows_done > before[replica.id]
    }


def test_a_closed_model_has_no_devices() -> None:
    with compiled("SIM") as model:
        pass
    with pytest.raises(ReplicaError, match="the model was closed"):
        model.set_devices("SIM*2")


# --- named pools --------------------------------------------------------------------------------------------


def listing(name: str) -> Any:
    (found,) = [one for one in list_pools() if one.record.name == name]
    return found


def test_all_drivers_of_a_pool_follow_and_lose_nothing(address: str, tmp_path: Path) -> None:
    with compiled("SIM*2?ms=20&answer=sum", name="followed") as model:
        attached = ovray.attach("followed")
        with Asking(model), Asking(attached):
            before = pids(model)

            attached.set_devices("SIM?ms=20&answer=sum,SIM?ms=10&answer=sum")
            both: Sequence[CompiledModel] = (model, attached)
            until(lambda: all(names(each, "ready") == ["SIM#0", "SIM#2"] for each in both))
            until(lambda: all(names(each) == ["SIM#0", "SIM#2"] for each in both))
            assert pids(model)["SIM#0"] == before["SIM#0"]
            until(lambda: not Path(f"/proc/{before['SIM#1']}").exists())

            scaled = ran(tmp_path, "pools", "scale", "followed", "SIM*3?ms=10&answer=sum", "--address", address)
            assert (scaled.process.returncode, scaled.stderr) == (0, "")
            assert scaled.stdout.startswith(
                "followed has SIM*3?ms=10&answer=sum now; replicas: 1 staying, 2 starting, 1 leaving"
            )
            until(lambda: all(len(names(each, "ready")) == 3 == len(names(each)) for each in both))
        until(lambda: len(listing("followed").view.replicas) == 3)
        late = ovray.attach("followed")
        until(lambda: len(names(late, "ready")) == 3)
        shown = ran(tmp_path, "pools", "--json", "--address", address).json()["pools"]
        late.close()
        attached.close()

    assert [(pool["device_string"], pool["replicas_ready"]) for pool in shown] == [("SIM*3?ms=10&answer=sum", 3)]


def test_what_cannot_be_scaled_is_told_and_nothing_changes(address: str, tmp_path: Path) -> None:
    with compiled("SIM", name="scaled") as model:
        nothing = ran(tmp_path, "pools", "scale", "scaled", "NPU.7", "--address", address)
        unknown = ran(tmp_path, "pools", "scale", "other", "SIM", "--address", address)
        misplaced = ran(tmp_path, "pools", "--json", "scale", "scaled", "SIM*2")

        assert names(model, "ready") == ["SIM#0"]
        assert listing("scaled").record.options.placement.devices == "SIM"
    assert [one.process.returncode for one in (nothing, unknown, misplaced)] == [2, 2, 2]
    assert "nothing here is 'NPU.7'; there are" in nothing.stderr
    assert "there is no pool 'other' in this cluster; there are: 'scaled'" in unknown.stderr
    assert "stand behind that word" in misplaced.stderr
