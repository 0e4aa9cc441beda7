"""What a switch of the environment may be, and what is said where it is something else."""

import pytest

from ovray.driver.pool_options import Carriers
from ovray.errors import ConfigError


@pytest.mark.parametrize(
    ("environment", "carriers"),
    [
        ({}, Carriers.SOCKET),
        ({"OVRAY_TRANSPORT": ""}, Carriers.SOCKET),
        ({"OVRAY_TRANSPORT": "socket"}, Carriers.SOCKET),
        ({"OVRAY_TRANSPORT": "ray"}, Carriers.RAY),
    ],
)
def test_a_switch_that_is_not_set_stands_as_by_default(environment: dict[str, str], carriers: Carriers) -> None:
    assert Carriers.parse(environment) is carriers


def test_anything_else_is_refused_with_what_it_may_be() -> None:
    with pytest.raises(ConfigError, match="OVRAY_TRANSPORT is 'tcp'; set it to 'socket' or 'ray', or not at all"):
        Carriers.parse({"OVRAY_TRANSPORT": "tcp"})
