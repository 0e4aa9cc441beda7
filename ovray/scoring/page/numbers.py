"""Writes numbers and times as people read them, and finds round ones for axes.

May not enter: markup.
"""

import math
from collections.abc import Iterator

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TIME_STEPS = (1.0, 2.0, 5.0, 10.0)

#: Of a clock, beyond a minute: what people count in.
_CLOCK_STEPS_S = (60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 21600.0, 43200.0, 86400.0)

_MINUTE_S = 60.0
_HOUR_S = 3600.0


def count(number: float) -> str:
    """Returns a count, in thousands: ``1,234,567``."""
    return f"{number:,.0f}"


def rate(per_s: float) -> str:
    """Returns a rate with the digits that it deserves."""
    return f"{per_s:,.0f}" if per_s >= _STEPS[-1] else f"{per_s:.3g}"


def share(part: float, whole: float) -> str:
    """Returns a part in per cent; a dash of nothing."""
    return f"{part / whole:.1%}" if whole > 0 else "–"


def duration(seconds: float) -> str:
    """Returns a time: ``0.25 s``, ``12.3 s``, ``4 min 05 s``, ``7 h 03 min``."""
    if seconds < _STEPS[-1]:
        return f"{seconds:.2f} s"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if seconds < _HOUR_S:
        return f"{minutes} min {rest_s:02} s"
    hours, minutes = divmod(round(seconds / _MINUTE_S), 60)
    return f"{hours} h {minutes:02} min"


def size(count_bytes: float) -> str:
    """Returns a size: ``12.3 MiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count_bytes < 1024:
            return f"{count_bytes:,.0f} {unit}" if unit == "bytes" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1024
    return f"{count_bytes:,.1f} TiB"


def short(number: float) -> str:
    """Returns a round number for an axis: ``250``, ``2.5 k``, ``10 M``."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= limit:
            return f"{number / limit:g}{unit}"
    return f"{number:g}"


def clock(at_s: float, step_s: float) -> str:
    """Returns a point on a time axis whose ticks are ``step_s`` apart; below 0 it is before the end."""
    if at_s < 0:
        return f"−{clock(-at_s, step_s)}"
    if step_s < _MINUTE_S and at_s < _MINUTE_S:
        return f"{round(at_s, 3):g} s"
    minutes, seconds = divmod(round(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    if step_s < _MINUTE_S:
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02} min"
    return f"{hours}:{minutes:02} h" if hours or step_s >= _HOUR_S else f"{minutes} min"


def ticks(low: float, high: float, wanted: int, *, of_time: bool = False) -> tuple[float, list[float]]:
    """Returns a round step, and its multiples from ``low`` to ``high``: at the most ``wanted`` and one."""
    least = (high - low) / wanted
    if least <= 0 or not math.isfinite(least):
        return 1.0, [low]
    step = next((step for step in _round_steps(least, of_time=of_time) if step >= least), least)
    first = math.ceil(low / step - 1e-9)
    return step, [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_steps(least: float, *, of_time: bool) -> Iterator[float]:
    power = 10.0 ** math.floor(math.log10(least))
    if of_time and least > _STEPS[-1]:
        yield from (20.0, 30.0, *_CLOCK_STEPS_S)
    yield from (step * power for step in (_TIME_STEPS if of_time else _STEPS))
