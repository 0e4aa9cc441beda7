"""What callers say of a pool: names, lifetimes, and the properties that the driver answers to."""

import pytest

from ovray.core.ids import ReplicaId
from ovray.core.policies import SchedulePolicy
from ovray.core.serving_order import AsListed, BestThatWorks, ServingOrder
from ovray.devices.records import Hint, ReplicaSpec
from ovray.driver.placement import PlacementOptions
from ovray.driver.pool_options import Lifetime, PoolOptions, replica_properties, serving_order
from ovray.errors import ConfigError


def _options(devices: str = "AUTO", hint: Hint = Hint.LATENCY, **more: object) -> PoolOptions:
    return PoolOptions(placement=PlacementOptions(devices=devices, hint=hint), **more)  # type: ignore[arg-type]


def _spec(openvino_device: str, device: str = "CPU.0") -> ReplicaSpec:
    return ReplicaSpec(
        id=ReplicaId(f"a/{device}#0"),
        host="a",
        node_id="n",
        device=device,
        openvino_device=openvino_device,
        numa_node=None,
        cpus=(),
    )


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (_options("AUTO"), BestThatWorks()),
        (
            _options("AUTO:GPU,CPU", config={"ENABLE_STARTUP_FALLBACK": "NO"}),
            BestThatWorks(has_startup_fallback=False),
        ),
        (_options("AUTO", config={"ENABLE_RUNTIME_FALLBACK": "false"}), BestThatWorks(has_runtime_fallback=False)),
        (_options("AUTO", Hint.CUMULATIVE_THROUGHPUT), None),
        (_options("AUTO", Hint.CUMULATIVE_THROUGHPUT, policy=SchedulePolicy.DEVICE_PRIORITY), AsListed()),
        (_options("MULTI"), None),
        (_options("CPU", policy=SchedulePolicy.DEVICE_PRIORITY), AsListed()),
        (_options("MULTI", policy=SchedulePolicy.ROUND_ROBIN), None),
    ],
)
def test_which_replicas_are_preferred(options: PoolOptions, wanted: ServingOrder | None) -> None:
    assert serving_order(options) == wanted


def test_properties_of_auto_do_not_reach_a_device() -> None:
    options = _options(
        config={"ENABLE_STARTUP_FALLBACK": "NO", "ENABLE_RUNTIME_FALLBACK": "NO", "CACHE_DIR": "/c"}
    )

    assert replica_properties(_spec("CPU"), options) == {"PERFORMANCE_HINT": "THROUGHPUT", "CACHE_DIR": "/c"}


def test_the_more_exact_name_of_a_device_counts_more() -> None:
    by_device = {"GPU": {"NUM_STREAMS": "1"}, "GPU.1": {"NUM_STREAMS": "2"}, "a/GPU.1": {"NUM_STREAMS": "3"}}
    options = _options(device_config=by_device)

    assert replica_properties(_spec("GPU.0", "GPU.0"), options)["NUM_STREAMS"] == "1"
    assert replica_properties(_spec("GPU.1", "GPU.1"), options)["NUM_STREAMS"] == "3"


def test_a_simulated_device_gets_its_own_properties_and_no_others() -> None:
    options = _options(config={"CACHE_DIR": "/c"}, device_config={"SIM": {"ms": "7"}, "CPU": {"NUM_STREAMS": "1"}})

    assert replica_properties(_spec("", "SIM"), options) == {"ms": "7"}


def test_a_priority_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="MODEL_PRIORITY is 'URGENT'; legal are LOW, MEDIUM and HIGH"):
        replica_properties(_spec("CPU"), _options(config={"MODEL_PRIORITY": "URGENT"}))


def test_a_fallback_is_on_or_off() -> None:
    with pytest.raises(ConfigError, match="ENABLE_STARTUP_FALLBACK is 'perhaps'; legal are YES and NO"):
        serving_order(_options(config={"ENABLE_STARTUP_FALLBACK": "perhaps"}))


def test_default_is_openvinos_name_for_medium() -> None:
    options = _options(config={"MODEL_PRIORITY": "DEFAULT"})

    assert replica_properties(_spec("GPU", "GPU"), options)["MODEL_PRIORITY"] == "MEDIUM"


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 129])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="the pool's name is"):
        PoolOptions(name=name)


def test_a_detached_pool_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="a detached pool needs a name"):
        PoolOptions(lifetime=Lifetime.DETACHED)


def test_lifetimes_are_written_as_ray_writes_them() -> None:
    assert Lifetime.parse(None) is Lifetime.OWNER
    assert Lifetime.parse("detached") is Lifetime.DETACHED
    with pytest.raises(ConfigError, match="legal are None and 'detached'"):
        Lifetime.parse("forever")
