"""Writes the report of a run as one HTML page that needs nothing else: no script, no network, no other file.

A page stays below a few megabytes whatever the job was: what grows with it is cut off, and the page says so.
May not enter: files (recording.py), drawings (charts.py).
"""

from collections.abc import Mapping
from importlib.resources import files

from ovray.core.ids import ReplicaId
from ovray.devices.cpulist import format_cpu_list
from ovray.devices.records import Cell
from ovray.driver.journal import MARKS_KEPT, SPANS_KEPT, Fate, Journal, Lane, Sending, Span
from ovray.scoring.page import charts, numbers
from ovray.scoring.page.facts import Ending, PageFacts
from ovray.scoring.page.markup import Markup, Value, joined, table, tag

REPLICAS_LISTED = 500
INPUTS_LISTED = 20
MISHAPS_LISTED = 200

#: The tail is drawn with as much before it as it is long, and this part of the run at the least.
_TAIL_SHARE = 0.05

_BADGES = {Ending.DONE: "good", Ending.FAILED: "bad", Ending.INTERRUPTED: "stopped"}

_KINDS = (
    ("done", "done"),
    ("copy", "copy, done first"),
    ("retry", "retry, done"),
    ("needless", "called off"),
    ("failed", "failed or lost"),
    ("idle", "ready, without work"),
)


def write_page(facts: PageFacts) -> str:
    """Returns the page.

    Example:
        >>> write_page(facts).startswith("<!DOCTYPE html>")  # doctest: +SKIP
        True
    """
    style = (files("ovray.scoring.page") / "style.css").read_text(encoding="utf-8")
    title = f"ovray report: {facts.job.output}"
    head = tag("head", _meta(), tag("title", title), tag("style", Markup(style)))
    sections = [_header(facts), _tiles(facts)]
    if facts.journal.lanes:
        sections += [_throughput(facts), _time_line(facts), _tail(facts)]
    sections += [_replicas(facts), _mishaps(facts), _plan(facts), _job(facts)]
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', *sections), lang='en')}\n"


def _meta() -> Markup:
    return Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')


def _section(heading: str, *parts: Value) -> Markup:
    return tag("section", tag("h2", heading), *parts)


def _header(facts: PageFacts) -> Markup:
    badge = tag("span", facts.ending.value, class_=f"badge {_BADGES[facts.ending]}")
    began = f"{facts.began:%Y-%m-%d %H:%M:%S %Z}".strip()
    when = f"began {began} on {facts.host}, took {numbers.duration(facts.seconds)} with start-up"
    error = tag("p", facts.error, class_="alarm") if facts.error else None
    return tag("header", tag("h1", facts.job.output, badge), tag("p", when), error)


def _tiles(facts: PageFacts) -> Markup:
    journal, job = facts.journal, facts.job
    done, run_s = journal.rows_done, _run_s(journal)
    idle_s = sum(lane.idle_s(journal.ended_s) for lane in journal.lanes.values())
    there_s = sum(lane.there_s(journal.ended_s) for lane in journal.lanes.values())
    copies = journal.sendings(Sending.COPY)
    before = f"; {numbers.count(job.resumed_rows)} were done before" if job.resumed_rows else ""
    tiles = [
        (numbers.count(done), f"rows done, of {numbers.count(job.rows - job.resumed_rows)}{before}"),
        (numbers.rate(done / run_s) if run_s else "–", "rows/s on average"),
        (numbers.duration(run_s), "from the first replica ready"),
        (numbers.count(len(journal.lanes)), f"replicas, of {numbers.count(len(facts.plan.replicas))} planned"),
        (numbers.share(idle_s, there_s), "of the replicas' time without work"),
        (numbers.count(journal.sendings(Sending.RETRY)), "retries"),
        (numbers.count(copies), f"copies, {numbers.count(journal.copies_won)} of use" if copies else "copies"),
        (numbers.count(facts.errors), "errors: rows put aside"),
    ]
    return tag(
        "div",
        *(tag("div", tag("b", big), tag("span", small), class_="tile") for big, small in tiles),
        class_="tiles",
    )


def _throughput(facts: PageFacts) -> Markup:
    return _section("Rows per second", charts.throughput(facts.journal))


def _time_line(facts: PageFacts) -> Markup:
    journal = facts.journal
    notes = []
    if not journal.is_complete:
        notes.append(
            f"{numbers.count(journal.spans_ended)} chunks are too many to draw each: the deeper the colour, the"
            " more of that time the replica was at work. Retries and what failed are drawn each."
        )
    if len(journal.lanes) > charts.LANES_DRAWN:
        notes.append(f"The first {charts.LANES_DRAWN} of {numbers.count(len(journal.lanes))} replicas are drawn.")
    return _section(
        "Which replica did what",
        charts.legend(_KINDS),
        charts.time_line(journal, _order(facts)),
        *(tag("p", note, class_="faint") for note in notes),
    )


def _tail(facts: PageFacts) -> Markup:
    journal = facts.journal
    began_s, ended_s = journal.tail_began_s(), journal.ended_s
    run_s = _run_s(journal)
    workers = [lane for lane in journal.lanes.values() if lane.sendings and lane.gone_s is None]
    unused_s = sum(lane.last_idle_s(ended_s) for lane in workers)
    tail_s = ended_s - began_s
    words = (
        f"The first replica ran out of work {numbers.duration(tail_s)} before the end"
        f" ({numbers.share(tail_s, run_s)} of the run). From then on {numbers.duration(unused_s)} of replica time"
        " were left unused: had all ended together, the job would have been done"
        f" {numbers.duration(unused_s / max(len(workers), 1))} earlier."
    )
    from_s = max(0.0, ended_s - max(2.0 * tail_s, _TAIL_SHARE * run_s))
    notes = []
    if not journal.is_complete and journal.spans[0].ended_s > from_s:
        from_s = journal.spans[0].ended_s
        notes.append(f"The last {numbers.count(SPANS_KEPT)} chunks are drawn.")
    if len(journal.lanes) > charts.LANES_OF_TAIL:
        notes.append(f"The {charts.LANES_OF_TAIL} replicas that worked longest are drawn.")
    return _section(
        "The tail",
        tag("p", words),
        charts.legend(_KINDS),
        charts.tail(journal, _order(facts), from_s),
        *(tag("p", note, class_="faint") for note in notes),
    )


def _order(facts: PageFacts) -> list[ReplicaId]:
    """Returns the replicas that were ready, as planned; those that joined later at the end."""
    return [spec.id for spec in facts.specs if spec.id in facts.journal.lanes]


def _replicas(facts: PageFacts) -> Markup:
    heads = ("replica", "device", "CPUs", "ready after", "chunks", "rows", "share", "rows/s", "idle", "at the end")
    specs = {spec.id: spec for spec in facts.specs}
    listed = list(specs)[:REPLICAS_LISTED]
    rows = [_replica_row(facts, id, specs[id].device, format_cpu_list(specs[id].cpus) or "–") for id in listed]
    left_out = len(specs) - len(listed)
    more = tag("p", f"and {numbers.count(left_out)} more", class_="faint") if left_out else None
    note = "idle: ready and without work. at the end: the part of it after its last chunk."
    return _section(
        "Replicas", table((*heads, "state"), rows, numbers=heads[3:]), more, tag("p", note, class_="faint")
    )


def _replica_row(facts: PageFacts, id: ReplicaId, device: str, cpus: str) -> list[Value]:
    lane, failure = facts.journal.lanes.get(id), facts.failures.get(id, "")
    if lane is None:
        return [id, device, cpus, *[""] * 7, f"did not start: {failure}" if failure else "was not ready"]
    ended_s = facts.journal.ended_s
    total = facts.journal.rows_done
    return [
        id,
        device,
        cpus,
        numbers.duration(lane.ready_s),
        numbers.count(lane.chunks_done),
        numbers.count(lane.rows_done),
        joined([numbers.share(lane.rows_done, total), _bar(lane.rows_done, total)]),
        numbers.rate(lane.rows_done / lane.working_s) if lane.working_s else "",
        f"{numbers.duration(lane.idle_s(ended_s))} ({numbers.share(lane.idle_s(ended_s), lane.there_s(ended_s))})",
        numbers.duration(lane.last_idle_s(ended_s)),
        _state(lane, failure),
    ]


def _bar(part: float, whole: float) -> Markup:
    width = f"width:{100 * part / whole:.1f}%" if whole else "width:0"
    return tag("span", tag("i", style=width), class_="bar")


def _state(lane: Lane, failure: str) -> str:
    if lane.gone_s is not None:
        return f"gone after {numbers.duration(lane.gone_s)}: {failure}".rstrip(": ")
    failed = lane.fates[Fate.FAILED]
    return f"{failed} chunk{'s' * (failed != 1)} failed here" if failed else "to the end"


def _mishaps(facts: PageFacts) -> Markup:
    journal = facts.journal
    marks = [span for span in journal.marks if span.fate in (Fate.FAILED, Fate.LOST)]
    parts: list[Value] = [tag("p", f"warning: {warning}") for warning in facts.plan.warnings]
    parts += [
        tag("p", f"{id} did not start: {why}") for id, why in facts.failures.items() if id not in journal.lanes
    ]
    if facts.errors:
        first = f" The first: {facts.first_error}" if facts.first_error else ""
        where = f"{facts.job.output}/_errors"
        parts.append(
            tag("p", f"Rows that could not be scored: {numbers.count(facts.errors)}; {where} has them.{first}")
        )
    if marks:
        parts.append(
            table(("after", "replica", "rows", "what"), [_mishap(span) for span in marks[:MISHAPS_LISTED]])
        )
    seen = journal.fates(Fate.FAILED) + journal.fates(Fate.LOST)
    left_out = seen - min(len(marks), MISHAPS_LISTED)
    if left_out:
        kept = "" if journal.marks_ended <= MARKS_KEPT else ", of which not all were kept"
        parts.append(tag("p", f"and {numbers.count(left_out)} more{kept}", class_="faint"))
    return _section("Errors and warnings", *(parts or [tag("p", "none", class_="faint")]))


def _mishap(span: Span) -> list[Value]:
    what = f"{span.fate.value}: {span.message}" if span.message else span.fate.value
    return [numbers.duration(span.ended_s), span.replica, f"{span.start:,} to {span.stop:,}", what]


def _plan(facts: PageFacts) -> Markup:
    rows = facts.plan.rows()
    # What nobody knows of any replica needs no column.
    keys = [key for key in rows[0] if any(row[key] not in (None, ()) for row in rows)] if rows else []
    shown = [[_shown(row[key]) for key in keys] for row in rows[:REPLICAS_LISTED]]
    numeric = [key for key in keys if any(isinstance(row[key], int | float) for row in rows)]
    left_out = len(rows) - len(shown)
    more = tag("p", f"and {numbers.count(left_out)} more", class_="faint") if left_out else None
    heads = {key: key.replace("_", " ") for key in keys}
    return _section("The plan", table(list(heads.values()), shown, numbers=[heads[key] for key in numeric]), more)


def _shown(cell: Cell) -> str:
    if isinstance(cell, tuple):
        return format_cpu_list(cell) or "–"
    if isinstance(cell, float):
        return numbers.rate(cell)
    return "–" if cell is None else str(cell)


def _job(facts: PageFacts) -> Markup:
    job = facts.job
    inputs = [*job.inputs[:INPUTS_LISTED]]
    if len(job.inputs) > INPUTS_LISTED:
        inputs.append(f"and {numbers.count(len(job.inputs) - INPUTS_LISTED)} more")
    files = "1 file" if job.files == 1 else f"{numbers.count(job.files)} files"
    data = f"{numbers.count(job.rows)} rows in {files}, {numbers.size(job.input_bytes)}"
    told = {
        "model": job.model,
        "inputs": ", ".join(inputs),
        "data": data,
        "output": job.output,
        "model inputs": _pairs(job.bindings, " from "),
        "result columns": _pairs(job.results, " "),
        "options": _pairs(job.options, " "),
        "versions": _pairs(job.versions, " "),
    }
    lines = (part for name, value in told.items() if value for part in (tag("dt", name), tag("dd", value)))
    return _section("The job", tag("dl", *lines))


def _pairs(values: Mapping[str, str], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items())


def _run_s(journal: Journal) -> float:
    return journal.ended_s - journal.first_ready_s if journal.first_ready_s is not None else 0.0
