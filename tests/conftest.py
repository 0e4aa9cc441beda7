"""What holds for every test, however the run was started."""

import signal

# Whatever starts the tests in the background has them ignore Ctrl-C, which their children would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
