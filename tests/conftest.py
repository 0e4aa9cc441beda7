"""What holds for every test, however the run was started."""

import signal

import pytest

from tests.signal_stack import use_the_plain_stack

# Whatever starts the tests in the background has them ignore Ctrl-C, which their children would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _signals_reach_this_process() -> None:
    """Tests that compare with plain OpenVINO load it again and again, which leaves this thread no signal stack."""
    use_the_plain_stack()
