"""One Ray, and one set of compiled models, for all tests of OpenVINO's face."""

from collections.abc import Iterator

import openvino
import pytest

import ovray
from ovray.driver.session import ray_session
from tests.integration.runtime.served_models import Served


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    with ray_session("local"):
        yield


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
