"""Requests to real replicas through Ray: envelopes that overlap, errors that travel, and what a replica says."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import openvino as ov
import pytest
import ray

from ovray.driver.placement import PlacementOptions, place
from ovray.errors import ConfigError, DataError, ReplicaError
from ovray.replica.actor import ReplicaActor
from ovray.replica.envelope import Reply
from ovray.replica.model import pack
from ovray.replica.orphans import this_process
from ovray.replica.properties import compile_properties
from ovray.replica.workload import Batching, ReplicaReport, RequestWorkload
from tests.integration.models import a_perceptron
from tests.integration.serving import alone, an_envelope
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.ray

X = np.random.default_rng(1).random((1, 32), dtype=np.float32)


class Started:
    """A replica on a device, and one that is simulated."""

    def __init__(self, actors: list[Any], reports: list[ReplicaReport]) -> None:
        self.real, self.simulated = actors
        self.report, self.simulated_report = reports


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        plan = place(PlacementOptions(devices="CPU?INFERENCE_PRECISION_HINT=f32,SIM?ms=100&nireq=2")).plan
        actors = [ReplicaActor.remote(spec, "a test", 10.0, this_process()) for spec in plan.replicas[:1]]
        actors.append(ReplicaActor.remote(plan.replicas[-1], "a test", 10.0, this_process()))
        specs = [plan.replicas[0], plan.replicas[-1]]
        workload = ray.put(RequestWorkload(model=pack(a_perceptron()), batching=Batching()))
        started = [
            actor.start.remote(workload, compile_properties(spec, {}))
            for actor, spec in zip(actors, specs, strict=True)
        ]
        yield Started(actors, ray.get(started, timeout=DEADLINE_S))
    finally:
        ray.shutdown()
        patch.undo()


def answer(reference: Any) -> Any:
    return ray.get(reference, timeout=DEADLINE_S)


def test_a_replica_says_what_the_driver_needs_to_know(replicas: Started) -> None:
    engine = replicas.report.engine

    assert engine.execution_devices == ("CPU",)
    assert (engine.model_name, engine.precision) == ("perceptron", "f32")
    assert engine.rate_rows_per_s is not None
    assert engine.batch is not None
    assert engine.batch.is_independent, engine.batch.reason
    assert engine.max_joined_rows > 1
    assert replicas.simulated_report.engine.nireq == 2
    assert replicas.simulated_report.engine.rate_rows_per_s == 20


def test_replies_come_in_the_order_of_the_envelopes_requests(replicas: Started) -> None:
    inputs = [[X * factor] for factor in (1, 2, 3)]

    replies: list[Reply] = answer(replicas.real.infer.remote(an_envelope(inputs, first=40)))

    assert [reply.dispatch for reply in replies] == [40, 41, 42]
    for arrays, reply in zip(inputs, replies, strict=True):
        assert reply.outputs is not None
        for found, wanted in zip(reply.outputs, alone(a_perceptron(), arrays), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_an_inputs_error_travels_and_leaves_its_neighbours_alone(replicas: Started) -> None:
    envelope = an_envelope([[X], [np.zeros((1, 31), np.float32)], [X]])

    replies: list[Reply] = answer(replicas.real.infer.remote(envelope))

    assert [type(reply.error) for reply in replies] == [type(None), DataError, type(None)]
    assert "'features'" in str(replies[1].error)


def test_a_later_envelope_does_not_wait_for_the_end_of_an_earlier_one(replicas: Started) -> None:
    long = replicas.simulated.infer.remote(an_envelope([[X]] * 40, client="long"))
    short = replicas.simulated.infer.remote(an_envelope([[X]], client="short"))

    answer(short)
    ready, _ = ray.wait([long], timeout=0)

    assert ready == []
    for number in range(40):
        replicas.simulated.cancel.remote(number, "long")
    errors = [reply.error for reply in answer(long)]
    assert any(error is not None for error in errors), "what had not begun was cancelled"


def test_a_replica_in_good_order_passes_its_probe(replicas: Started) -> None:
    answer(replicas.real.probe.remote())
    answer(replicas.simulated.probe.remote())


def test_properties_and_the_compiled_model_can_be_had(replicas: Started) -> None:
    assert answer(replicas.real.read_property.remote("NETWORK_NAME")) == "perceptron"
    with pytest.raises(ConfigError, match="NO_SUCH"):
        answer(replicas.real.read_property.remote("NO_SUCH"))

    exported = answer(replicas.real.export_model.remote())

    imported = ov.Core().import_model(exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(imported([X])[0], alone(a_perceptron(), [X])[0], rtol=1e-5)
    with pytest.raises(ConfigError, match="simulated"):
        answer(replicas.simulated.export_model.remote())


def test_rows_are_refused_by_a_replica_that_was_started_for_requests(replicas: Started) -> None:
    with pytest.raises(ReplicaError, match="before it was started"):
        answer(replicas.real.run.remote(1, 1, [ray.put(_AnyWork())], None))


class _AnyWork:
    def open(self, engine: Any) -> Any:
        raise AssertionError("there is no engine to open it with")
