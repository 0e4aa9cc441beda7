"""What holds for every test, however the run was started."""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.signal_stack import use_the_plain_stack

pytest_plugins = ["tests.multihost.table"]

# No test fails because the machine was slow.
settings.register_profile("on any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("on any machine")

# Whatever starts the tests in the background has them ignore Ctrl-C, which their children would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Have the folder in which a worker with a ``/tmp`` of its own is to make its folder."""
    if hasattr(config, "workerinput"):
        Path(config.option.basetemp).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


@pytest.fixture(autouse=True)
def _signals_reach_this_process() -> None:
    """Tests that compare with plain OpenVINO load it again and again, which leaves this thread no signal stack."""
    use_the_plain_stack()
