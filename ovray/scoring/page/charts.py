"""Draws a job over time: rows per second, and what each replica did when.  Plain SVG; colours are the style's.

Up to some thousand sendings each is drawn; of more, each replica's share of time at work.  May not enter: words
around the drawings (document.py).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ovray.core.ids import ReplicaId
from ovray.driver.journal import Fate, Journal, Lane, Sending, Span
from ovray.scoring.page import numbers
from ovray.scoring.page.markup import Markup, joined, tag

WIDTH = 1080
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 26, 10, 26
_LANE_NAMES_WIDTH = 190

#: Replicas that are drawn at the most; a drawing with more is a wall of grey.
LANES_DRAWN = 500
LANES_OF_TAIL = 60

#: Of one lane, by how many there are at the most.
_LANE_HEIGHTS = ((12, 22.0), (40, 15.0), (120, 8.0), (LANES_DRAWN, 3.0))
_THICKNESS = 0.82
_NAME_HEIGHT = 12.0
#: Between names where there is no room for each.
_NAME_EVERY = 24.0
_NAME_LETTERS = 30

#: Shares of time at work are drawn in so many shades.
_SHADES = 5

#: What a drawing shows at the least of a sending, however short it was.
_THIN = 0.4

#: Between one sending and the next, where they are wider than this.
_GAP = 0.7
_WIDE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Turns times into places from left to right."""

    began_s: float
    ended_s: float
    left: float
    right: float = WIDTH - _RIGHT
    #: From which times count where they are written.
    origin_s: float = 0.0

    def x(self, at_s: float) -> float:
        at_s = min(max(at_s, self.began_s), self.ended_s)
        return self.left + (at_s - self.began_s) / max(self.ended_s - self.began_s, 1e-9) * (
            self.right - self.left
        )

    def drawn(self, top: float, bottom: float) -> Markup:
        low_s, high_s = self.began_s - self.origin_s, self.ended_s - self.origin_s
        step_s, times_s = numbers.ticks(low_s, high_s, 9, of_time=True)
        parts = []
        for at_s in times_s:
            x = self.x(at_s + self.origin_s)
            parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
            label = numbers.clock(at_s, step_s)
            parts.append(tag("text", label, x=x, y=bottom + 17, text_anchor="middle"))
        return joined(parts)


def throughput(journal: Journal, height: float = 220.0) -> Markup:
    """Draws rows per second over the job."""
    bins = [(began_s, ended_s, rows) for began_s, ended_s, rows in journal.rows.until(journal.ended_s)]
    rates = [rows / (ended_s - began_s) if ended_s > began_s else 0.0 for began_s, ended_s, rows in bins]
    axis = _Axis(began_s=0.0, ended_s=journal.ended_s, left=_LEFT)
    _, marks = numbers.ticks(0.0, max(rates, default=0.0) or 1.0, 4)
    highest = max(max(rates, default=0.0), marks[-1]) * 1.05
    bottom = height - _BOTTOM

    def y(per_s: float) -> float:
        return bottom - per_s / highest * (bottom - _TOP)

    grid = []
    for mark in marks:
        grid.append(tag("line", x1=axis.left, x2=axis.right, y1=y(mark), y2=y(mark), class_="grid"))
        grid.append(tag("text", numbers.short(mark), x=axis.left - 8, y=y(mark) + 4, text_anchor="end"))
    steps = "".join(
        f"L{axis.x(began_s):.1f} {y(per_s):.1f}L{axis.x(ended_s):.1f} {y(per_s):.1f}"
        for (began_s, ended_s, _), per_s in zip(bins, rates, strict=True)
    )
    area = tag("path", d=f"M{axis.left} {bottom}{steps}L{axis.x(journal.ended_s):.1f} {bottom}Z", class_="area")
    line = tag("path", d=f"M{axis.left} {bottom}{steps}", class_="line")
    return _drawing(
        height, axis.drawn(_TOP, bottom), *grid, area, line, _average(journal, axis, y), label="rows/s"
    )


def _average(journal: Journal, axis: _Axis, y: Callable[[float], float]) -> Markup | None:
    began_s = journal.first_ready_s
    if began_s is None or journal.ended_s <= began_s:
        return None
    mean = journal.rows_done / (journal.ended_s - began_s)
    return joined(
        [
            tag("line", x1=axis.x(began_s), x2=axis.right, y1=y(mean), y2=y(mean), class_="mean"),
            tag("text", f"average {numbers.rate(mean)}", x=axis.right - 4, y=y(mean) - 5, class_="mean-text"),
        ]
    )


def time_line(journal: Journal, order: Sequence[ReplicaId]) -> Markup:
    """Draws what each replica did over the whole job, from top to bottom in this order."""
    lanes = {id: journal.lanes[id] for id in order[:LANES_DRAWN]}
    axis = _Axis(began_s=0.0, ended_s=journal.ended_s, left=_LANE_NAMES_WIDTH)
    grid = _Lanes(lanes, axis)
    if journal.is_complete:
        work = grid.spans(journal.spans)
    else:
        marks = [span for span in journal.marks if span.fate is not Fate.NEEDLESS]
        work = joined([grid.shades(journal.ended_s), grid.spans(marks)])
    return grid.drawn(work, journal.ended_s, label="what each replica did")


def tail(journal: Journal, order: Sequence[ReplicaId], began_s: float) -> Markup:
    """Draws the end of a job from ``began_s`` on: each sending, of the replicas that worked longest."""
    within = [span for span in journal.spans if span.ended_s >= began_s]
    latest = sorted(order, key=lambda id: journal.lanes[id].answered_s, reverse=True)[:LANES_OF_TAIL]
    lanes = {id: journal.lanes[id] for id in order if id in set(latest)}
    axis = _Axis(began_s=began_s, ended_s=journal.ended_s, left=_LANE_NAMES_WIDTH, origin_s=journal.ended_s)
    grid = _Lanes(lanes, axis)
    return grid.drawn(grid.spans(within), journal.ended_s, label="what each replica did at the end")


class _Lanes:
    """Draws one lane for each of some replicas."""

    def __init__(self, lanes: Mapping[ReplicaId, Lane], axis: _Axis) -> None:
        self._lanes = lanes
        self._axis = axis
        self._pitch = next((height for most, height in _LANE_HEIGHTS if len(lanes) <= most), _LANE_HEIGHTS[-1][1])
        self._thick = self._pitch * _THICKNESS
        self._tops = {id: _TOP + number * self._pitch for number, id in enumerate(lanes)}
        self._bottom = _TOP + len(lanes) * self._pitch

    def drawn(self, work: Markup, ended_s: float, *, label: str) -> Markup:
        height = self._bottom + _BOTTOM
        axis = self._axis.drawn(_TOP - 4, self._bottom)
        return _drawing(height, axis, self._names(), self._presence(ended_s), work, label=label)

    def _names(self) -> Markup:
        """Names lanes as far as there is room."""
        every = 1 if self._pitch >= _NAME_HEIGHT else math.ceil(_NAME_EVERY / self._pitch)
        return joined(
            tag("text", _shortened(id), x=_LANE_NAMES_WIDTH - 8, y=top + self._thick / 2 + 4, text_anchor="end")
            for number, (id, top) in enumerate(self._tops.items())
            if number % every == 0
        )

    def _presence(self, ended_s: float) -> Markup:
        """Shows when each replica was there: starting, there, gone."""
        parts = []
        for id, lane in self._lanes.items():
            middle = self._tops[id] + self._thick / 2
            start, end = self._axis.x(0.0), self._axis.x(lane.ready_s)
            if end > start and self._pitch >= _NAME_HEIGHT:
                parts.append(tag("line", x1=start, x2=end, y1=middle, y2=middle, class_="starting"))
            until_s = ended_s if lane.gone_s is None else lane.gone_s
            if until_s < self._axis.began_s:
                continue
            parts.append(self._box(id, lane.ready_s, until_s, "idle"))
            if lane.gone_s is not None:
                parts.append(tag("text", "✕", x=self._axis.x(lane.gone_s) + 2, y=middle + 4, class_="gone"))
        return joined(parts)

    def spans(self, spans: Iterable[Span]) -> Markup:
        """Draws sendings, each with a note that shows under the pointer."""
        parts = []
        for span in spans:
            if span.replica in self._tops:
                box = self._box(span.replica, span.began_s, span.ended_s, _kind(span), tag("title", _told(span)))
                parts.append(box)
        return joined(parts)

    def shades(self, ended_s: float) -> Markup:
        """Draws how much of its time each replica was at work."""
        paths: dict[int, list[str]] = {}
        for id, lane in self._lanes.items():
            for began_s, until_s, shade in _runs(lane, ended_s):
                left, right = self._axis.x(began_s), self._axis.x(until_s)
                box = f"M{left:.1f} {self._tops[id]:g}h{right - left:.1f}v{self._thick:g}H{left:.1f}z"
                paths.setdefault(shade, []).append(box)
        # One path a shade: a rectangle each would make a page of many megabytes.
        return joined(
            tag("path", d="".join(boxes), class_="work", opacity=shade / _SHADES)
            for shade, boxes in sorted(paths.items())
        )

    def _box(self, id: ReplicaId, began_s: float, ended_s: float, kind: str, *inside: Markup) -> Markup:
        left, right = self._axis.x(began_s), self._axis.x(ended_s)
        return tag(
            "rect",
            *inside,
            x=left,
            y=self._tops[id],
            width=right - left - _GAP if right - left > _WIDE else max(right - left, _THIN),
            height=self._thick,
            class_=kind,
        )


def _runs(lane: Lane, ended_s: float) -> list[tuple[float, float, int]]:
    """Returns times over which a replica was at work to the same part, in fifths; without those of no work."""
    runs: list[tuple[float, float, int]] = []
    for began_s, until_s, worked_s in lane.work.until(ended_s):
        shade = round(_SHADES * min(worked_s / (until_s - began_s), 1.0)) if until_s > began_s else 0
        if runs and runs[-1][1:] == (began_s, shade):
            runs[-1] = (runs[-1][0], until_s, shade)
        else:
            runs.append((began_s, until_s, shade))
    return [run for run in runs if run[2]]


def _kind(span: Span) -> str:
    """Returns the style's name for what became of a sending."""
    if span.fate is not Fate.DONE:
        return str(span.fate.value)
    return "done" if span.sending is Sending.FIRST else str(span.sending.value)


_FATES = {
    Fate.FAILED: "failed",
    Fate.LOST: "lost with its replica",
    Fate.NEEDLESS: "called off",
    Fate.OPEN: "open",
}


def _told(span: Span) -> str:
    rows, seconds = span.stop - span.start, span.ended_s - span.began_s
    what = [f"{span.replica}: rows {span.start:,} to {span.stop:,}"]
    what.append(f"{span.began_s:.2f} s + {seconds:.2f} s")
    if span.fate is Fate.DONE and seconds > 0:
        what.append(f"{numbers.rate(rows / seconds)} rows/s")
    if span.sending is not Sending.FIRST:
        what.append(span.sending.value)
    if span.fate in _FATES:
        what.append(_FATES[span.fate])
    return ", ".join(what)


def legend(kinds: Sequence[tuple[str, str]]) -> Markup:
    """Says what colours mean: pairs of a class and its words."""
    items = (
        tag("span", tag("svg", tag("rect", width=14, height=12, class_=kind), width=14, height=12), words)
        for kind, words in kinds
    )
    return tag("p", *items, class_="legend")


def _drawing(height: float, *parts: Markup | None, label: str) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=label, class_="chart")


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LETTERS else f"…{name[1 - _NAME_LETTERS :]}"
