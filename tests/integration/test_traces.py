"""Traces of real runs, and OpenTelemetry spans where Ray's tracing is on."""

import json
from pathlib import Path

import pytest

from ovray import digits
from tests.integration.a_scraped_head import a_scraped_head
from tests.integration.commands import ran
from tests.integration.processes import running
from tests.trace_events import TraceFile

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OPEN = {"RAY_AUTH_MODE": "disabled"}

_DRIVER = """
import os, sys
import numpy as np
import ovray as ov
from ovray import digits
from opentelemetry import trace

with ov.compile_model(digits.model_file(), "MULTI:SIM*2?ms=2", address=sys.argv[1]) as compiled:
    with trace.get_tracer("caller").start_as_current_span("the caller's own") as own:
        futures = [compiled.submit([np.zeros((1, 64), np.float32)]) for _ in range(20)]
    for future in futures:
        future.result()
trace.get_tracer_provider().force_flush()
print(os.getpid(), f"0x{own.get_span_context().span_id:016x}")
"""


def test_a_job_is_drawn_chunk_by_chunk(tmp_path: Path) -> None:
    command = ["score", digits.model_file(), digits.held_out_file(), "--output", "scores", "--trace", "trace.json"]
    job = ran(tmp_path, *command, "--devices", "SIM*2?ms=1", "--json", OVRAY_RUN_ID="traced")
    assert job.process.returncode == 0, job.stderr

    trace = TraceFile(tmp_path / "trace.json")
    report = job.json()
    assert trace.about["run"] == "traced"
    assert set(trace.processes.values()) == {replica["host"] for replica in report["replicas"]}
    drawn = {name.partition(" ")[0] for name in trace.tracks.values()}
    assert drawn == {replica["id"] for replica in report["replicas"] if replica["rows"]}
    chunks = [event for event in trace.complete("rows ")]
    assert sum(event["args"]["rows"] for event in chunks) == 540
    for name in ("read, prepare, infer", "finish", "write"):
        assert len(trace.complete(name)) == len(chunks)
    # The whole lies within the run.
    ends_s = max(event["ts"] + event["dur"] for event in chunks) / 1e6
    assert ends_s < report["seconds"]


def test_requests_of_a_benchmark_are_drawn(tmp_path: Path) -> None:
    command = ["bench", "-m", digits.model_file(), "-d", "SIM*2?ms=5", "-niter", "60", "--trace", "trace.json"]
    command += ["-data_shape", "[1,64]"]
    bench = ran(tmp_path, *command, "--json")
    assert bench.process.returncode == 0, bench.stderr

    trace = TraceFile(tmp_path / "trace.json")
    assert trace.about["works"] > 0
    assert trace.about["dropped"] == 0
    drawn = [*trace.begun("request"), *trace.begun("requests together")]
    assert sum(event["args"]["requests"] for event in drawn) >= 60
    for name in ("queue", "transport", "wait at replica", "inference", "transport back"):
        assert len(trace.begun(name)) == len(drawn)
    took_us = sorted(event["dur"] for event in trace.complete("inference"))
    assert took_us[0] == pytest.approx(5000, rel=0.5)


@pytest.mark.parametrize(
    ("trace", "what"), [("trace.txt", "name ends in .json"), ("scores/trace.json", "takes no other files")]
)
def test_a_trace_that_cannot_be_is_refused_before_anything_starts(tmp_path: Path, trace: str, what: str) -> None:
    (tmp_path / "scores").mkdir()
    command = ["score", digits.model_file(), digits.held_out_file(), "--output", "scores", "--trace", trace]

    job = ran(tmp_path, *command)

    assert job.process.returncode == 2
    assert what in job.stderr
    assert job.stderr.count("\n") == 1


def test_spans_are_made_where_rays_tracing_is_on() -> None:
    hook = {"tracing-startup-hook": "ray.util.tracing.setup_local_tmp_tracing:setup_tracing"}
    with a_scraped_head(cpus=4, options=hook) as head, running(_DRIVER, head.address, **OPEN) as driver:
        pid, own = driver.read_line().split()

    spans = spans_in(Path("/tmp/spans") / f"{pid}.txt")
    requests = [span for span in spans if span["name"] == "ovray request"]
    assert len(requests) == 20
    assert {span["parent_id"] for span in requests} == {own}
    for request in requests:
        parts = [span for span in spans if span["parent_id"] == request["context"]["span_id"]]
        assert [part["name"] for part in parts] == [
            f"ovray {name}" for name in ("queue", "transport", "wait at replica", "inference", "transport back")
        ]
        assert parts[0]["start_time"] == request["start_time"]
        assert request["attributes"]["ovray.replica"].endswith(("SIM#0", "SIM#1"))


def spans_in(path: Path) -> list[dict[str, object]]:
    """Read what OpenTelemetry's console exporter wrote: JSON objects, one behind the other."""
    text, spans, at = path.read_text(), [], 0
    decoder = json.JSONDecoder()
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        span, at = decoder.raw_decode(text, at)
        spans.append(span)
    return spans
