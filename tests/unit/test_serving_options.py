"""What device names and configurations of compile_model come to."""

import openvino as ov
import pytest
from openvino.properties import hint

from ovray.core.policies import SchedulePolicy
from ovray.devices.records import CoreSharing, Hint
from ovray.driver.pool_options import Lifetime
from ovray.errors import ConfigError
from ovray.replica.workload import Merging
from ovray.runtime.options import as_text, read_options


def test_defaults_are_openvinos() -> None:
    assert read_options(None, {}, {}).placement.devices == "AUTO"
    assert read_options("CPU", {}, {}).placement.hint is Hint.LATENCY
    assert read_options("MULTI:CPU", {}, {}).placement.hint is Hint.THROUGHPUT


def test_properties_are_read_by_constant_and_by_name() -> None:
    config = {
        hint.performance_mode: hint.PerformanceMode.THROUGHPUT,
        hint.inference_precision: ov.Type.f32,
        "SCHEDULE_POLICY": "ROUND_ROBIN",
        "ENABLE_CPU_PINNING": True,
        "NUM_STREAMS": 2,
    }

    options = read_options("CPU", config, {})

    assert options.placement.hint is Hint.THROUGHPUT
    assert options.placement.precision == "f32"
    assert options.policy is SchedulePolicy.ROUND_ROBIN
    assert options.config == {"ENABLE_CPU_PINNING": "YES", "NUM_STREAMS": "2"}


def test_properties_of_devices_stay_with_their_devices() -> None:
    options = read_options("MULTI", {"DEVICE_PROPERTIES": {"CPU": {"NUM_STREAMS": 1}}}, {})

    assert options.device_config == {"CPU": {"NUM_STREAMS": "1"}}
    with pytest.raises(ConfigError, match="dictionary of dictionaries"):
        read_options("MULTI", {"DEVICE_PROPERTIES": "CPU"}, {})


def test_device_priorities_are_the_device_string_of_multi() -> None:
    assert read_options("MULTI", {"MULTI_DEVICE_PRIORITIES": "GPU,CPU"}, {}).placement.devices == "MULTI:GPU,CPU"
    with pytest.raises(ConfigError, match="MULTI or AUTO"):
        read_options("CPU", {"MULTI_DEVICE_PRIORITIES": "GPU"}, {})


def test_options_of_ours_are_read_and_slips_of_the_pen_told() -> None:
    options = read_options("CPU", {}, {"share_cores": True, "batch_size": 8, "rows_are_independent": True})

    assert options.placement.sharing is CoreSharing.SHARED
    assert options.batching.batch_size == 8
    assert options.batching.merging is Merging.ALWAYS
    with pytest.raises(TypeError, match="share_core; beyond"):
        read_options("CPU", {}, {"share_core": True})  # type: ignore[typeddict-unknown-key]


def test_properties_of_auto_go_on_as_text() -> None:
    options = read_options("AUTO", {"ENABLE_RUNTIME_FALLBACK": False, "MODEL_PRIORITY": hint.Priority.HIGH}, {})

    assert options.config == {"ENABLE_RUNTIME_FALLBACK": "NO", "MODEL_PRIORITY": "HIGH"}


def test_a_pool_can_be_named_and_kept() -> None:
    options = read_options("CPU", {}, {"name": "resnet", "lifetime": "detached"})

    assert (options.name, options.lifetime) == ("resnet", Lifetime.DETACHED)
    with pytest.raises(ConfigError, match="needs a name"):
        read_options("CPU", {}, {"lifetime": "detached"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"PERFORMANCE_HINT": "FAST"}, "LATENCY, THROUGHPUT"),
        ({"SCHEDULE_POLICY": "RANDOM"}, "ROUND_ROBIN"),
        ({"CACHE_DIR": object()}, "of type object"),
    ],
)
def test_values_that_there_are_not_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_options("CPU", config, {})


def test_values_are_written_as_openvino_reads_them() -> None:
    values = [True, False, 4, 0.5, "text", ov.Type.bf16, hint.PerformanceMode.LATENCY, ov.OVAny(3)]

    assert [as_text(value) for value in values] == ["YES", "NO", "4", "0.5", "text", "bf16", "LATENCY", "3"]
