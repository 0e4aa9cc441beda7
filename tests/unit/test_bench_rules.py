"""The rules of benchmark_app that need no device: percentiles, limits, flags, parts of a request's time."""

from pathlib import Path

import openvino as ov
import pytest

from ovray.benching.inputs import prepare
from ovray.benching.latencies import Samples, percentile
from ovray.benching.options import Api, Limits, Shapes, hint_and_api, limits_of, properties_of
from ovray.core.ids import ReplicaId
from ovray.driver.calls import Ended
from ovray.errors import ConfigError
from tests.integration.models import a_perceptron


@pytest.mark.parametrize(
    ("count", "percent", "place"),
    [(1, 1, 1), (1, 100, 1), (4, 50, 2), (5, 50, 3), (100, 99, 99), (101, 99, 100), (10, 1, 1), (10, 100, 10)],
)
def test_a_percentile_is_the_value_at_the_place_rounded_up(count: int, percent: int, place: int) -> None:
    ordered = [float(number) for number in range(1, count + 1)]

    assert percentile(ordered, percent) == place


def test_percentiles_are_those_of_benchmark_app() -> None:
    theirs = pytest.importorskip("openvino.tools.benchmark.benchmark").percentile
    ordered = [number**1.5 for number in range(37)]

    assert [percentile(ordered, p) for p in range(1, 101)] == [theirs(ordered, p) for p in range(1, 101)]


def an_end(*, total_s: float, queued_s: float, replica_queued_s: float, infer_s: float) -> Ended:
    return Ended(
        outputs=(),
        error=None,
        replica=ReplicaId("node-a/CPU.0#0"),
        total_s=total_s,
        queued_s=queued_s,
        replica_queued_s=replica_queued_s,
        infer_s=infer_s,
        batch_rows=4,
    )


def test_time_is_split_into_queue_transport_and_device() -> None:
    samples = Samples()
    samples.add(an_end(total_s=8.0, queued_s=1.0, replica_queued_s=0.5, infer_s=4.0), frames=2)
    samples.add(an_end(total_s=4.0, queued_s=0.0, replica_queued_s=0.5, infer_s=3.0), frames=2)

    split = samples.split(50)

    assert (split.end_to_end.percentile_s, split.end_to_end.max_s) == (4.0, 8.0)
    assert (split.queue.min_s, split.queue.max_s) == (0.5, 1.5)
    assert (split.transport.min_s, split.transport.average_s, split.transport.max_s) == (0.5, 1.5, 2.5)
    assert split.device.average_s == 3.5
    assert (samples.frames, samples.batch_rows) == (4, 8)


def test_a_measurement_goes_on_until_iterations_and_seconds_are_both_reached() -> None:
    limits = Limits(iterations=10, duration_s=2.0)

    assert limits.are_open(iterations=9, elapsed_s=3.0)
    assert limits.are_open(iterations=11, elapsed_s=1.0)
    assert not limits.are_open(iterations=10, elapsed_s=2.0)


def test_without_iterations_and_seconds_it_takes_a_minute() -> None:
    assert limits_of(None, None) == Limits(iterations=None, duration_s=60.0)
    assert limits_of(5, None) == Limits(iterations=5, duration_s=None)


def test_hint_and_api_follow_from_each_other() -> None:
    assert hint_and_api(None, None) == ("THROUGHPUT", Api.ASYNC)
    assert hint_and_api(None, "sync") == ("LATENCY", Api.SYNC)
    assert hint_and_api("latency", None) == ("LATENCY", Api.SYNC)
    assert hint_and_api("tput", "sync") == ("THROUGHPUT", Api.SYNC)
    assert hint_and_api("ctput", None) == ("CUMULATIVE_THROUGHPUT", Api.ASYNC)


def test_precisions_and_properties_go_to_all_devices_or_to_one(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"CPU": {"NUM_STREAMS": "3"}}')

    properties = properties_of(
        hint="LATENCY", infer_precision="CPU:f32,GPU:f16", cache_dir="/c", load_config=file, config=["A=b=c"]
    )

    assert properties == {
        "PERFORMANCE_HINT": "LATENCY",
        "A": "b=c",
        "CACHE_DIR": "/c",
        "DEVICE_PROPERTIES": {
            "CPU": {"NUM_STREAMS": "3", "INFERENCE_PRECISION_HINT": "f32"},
            "GPU": {"INFERENCE_PRECISION_HINT": "f16"},
        },
    }


def test_data_shapes_are_sent_in_turn_and_count_their_rows() -> None:
    model = a_perceptron()

    inputs = prepare(model, Shapes(data_shape="[2,32][5,32]", layout="[NC]"))

    assert [group.tensors[0].shape for group in inputs.groups] == [ov.Shape([2, 32]), ov.Shape([5, 32])]
    assert sorted(group.frames for group in inputs.groups) == [2, 5]
    assert model.inputs[0].partial_shape == ov.PartialShape([-1, 32])
    assert not inputs.is_reshaped


def test_a_batch_reshapes_the_model() -> None:
    model = a_perceptron()

    inputs = prepare(model, Shapes(batch="8"))

    assert model.inputs[0].partial_shape == ov.PartialShape([8, 32])
    assert (inputs.batch, inputs.groups[0].frames, inputs.is_reshaped) == ("8", 8, True)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (Shapes(), "Provide data shapes"),
        (Shapes(shape="1,32"), "Can't parse"),
        (Shapes(data_shape="[1,31]"), "not compatible"),
        (Shapes(shape="[1,31]"), "shape"),
        (Shapes(batch="many"), "many"),
    ],
)
def test_shapes_that_cannot_be_say_what_the_model_takes(shapes: Shapes, says: str) -> None:
    with pytest.raises(ConfigError, match=r"the model takes features f32\[") as raised:
        prepare(a_perceptron(), shapes)

    assert says in str(raised.value)
