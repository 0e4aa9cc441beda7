"""Placing replicas on a Ray whose CPUs others hold."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from ovray.devices.resources import CpusTakenError
from ovray.driver.placement import PlacementOptions, place


@pytest.fixture(scope="module", autouse=True)
def _local_ray() -> Iterator[None]:
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote
class _Holder:
    def is_there(self) -> bool:
        return True


def a_holder_of_every_cpu() -> Any:
    holder = _Holder.options(num_cpus=ray.cluster_resources()["CPU"]).remote()  # type: ignore[attr-defined]
    assert ray.get(holder.is_there.remote(), timeout=120)
    return holder


def test_cpus_that_stay_taken_are_told_after_the_lease_timeout() -> None:
    holder = a_holder_of_every_cpu()

    with pytest.raises(CpusTakenError) as caught:
        place(PlacementOptions(devices="CPU", lease_timeout_s=0.0))

    assert "other jobs and actors hold" in str(caught.value)
    assert "waited 0 s" in str(caught.value)
    ray.kill(holder)


def test_cpus_that_become_free_in_time_are_taken() -> None:
    holder = a_holder_of_every_cpu()
    threading.Timer(2.0, ray.kill, [holder]).start()

    plan = place(PlacementOptions(devices="CPU", lease_timeout_s=120.0)).plan

    assert [replica.device for replica in plan.replicas][:1] == ["CPU.0"]
