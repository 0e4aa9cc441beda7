"""One Ray, and one set of compiled models, for all tests of OpenVINO's face."""

from collections.abc import Iterator

import openvino
import pytest
import ray

import ovray
from tests.integration.runtime.served_models import Served


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    # Not a Ray of ovray's own, which listens on loopback only: example scripts are to join this one.
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="package")
def original() -> Served:
    """Is OpenVINO itself, in this process."""
    return Served(openvino)


@pytest.fixture(scope="package")
def ours(local_ray: None) -> Iterator[Served]:
    """Is ovray, on replicas that share this machine's cores."""
    served = Served(ovray, share_cores=True)
    yield served
    served.close()
