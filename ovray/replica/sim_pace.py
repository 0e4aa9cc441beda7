"""Says when a simulated device has done what it is given, whatever the thread is late that plays it.

May not enter: clocks, how long an inference takes (sim_engine.py, sim_requests.py).
"""

#: What a thread that plays a device may take to wake up, to answer and to come back without the device being
#: slower for it: a device that has work does not wait for its program.
COMING_BACK_S = 0.001


class Pace:
    """Knows how far a device is that does one thing after the other.

    Example:
        >>> pace = Pace()
        >>> pace.done_at_s(10.0, 0.5)
        10.5
        >>> pace.done_at_s(10.5001, 0.5)  # this one waited at the device
        11.0
        >>> pace.done_at_s(20.0, 0.5)
        20.5
    """

    def __init__(self) -> None:
        self._free_at_s = 0.0

    def done_at_s(self, now_s: float, seconds: float) -> float:
        """Takes in what is given to the device now and takes it so long; says when it will have done it."""
        was_waiting = now_s - self._free_at_s < min(seconds / 4, COMING_BACK_S)
        self._free_at_s = (self._free_at_s if was_waiting else now_s) + seconds
        return self._free_at_s
