"""Traces of works: what is drawn where, what is dropped, and that the file is one."""

import random
from pathlib import Path

import pytest

from ovray.driver import trace as trace_module
from ovray.driver.trace import Part, Trace, Work
from ovray.errors import ConfigError
from tests.trace_events import TraceFile


def a_work(
    ended_s: float, replica: str | None = "a/CPU.0#0", infer_s: float = 0.004, name: str = "request"
) -> Work:
    parts = (
        Part(name="queue", seconds=0.001, is_at_replica=False),
        Part(name="transport", seconds=0.0005, is_at_replica=False),
        Part(name="inference", seconds=infer_s),
        Part(name="transport back", seconds=0.0005, is_at_replica=False),
    )
    return Work(name=name, replica=replica, ended_s=ended_s, parts=parts)


def written(tmp_path: Path, works: list[Work]) -> TraceFile:
    trace = Trace(tmp_path / "trace.json", "digits")
    for work in works:
        trace.add(work)
    trace.write()
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    return TraceFile(tmp_path / "trace.json")


def test_hosts_are_processes_and_replicas_are_tracks(tmp_path: Path) -> None:
    found = written(tmp_path, [a_work(1.0), a_work(1.1, "a/CPU.1#0"), a_work(1.2, "b/GPU.0#0")])

    assert set(found.processes.values()) == {"a", "b"}
    assert sorted(found.tracks.values()) == ["a/CPU.0#0", "a/CPU.1#0", "b/GPU.0#0"]
    assert len(found.complete("inference")) == len(found.begun("request")) == 3


def test_a_part_is_drawn_where_it_was(tmp_path: Path) -> None:
    found = written(tmp_path, [a_work(1.0)])

    (inference,), (request,) = found.complete("inference"), found.begun("request")
    assert inference["ts"] - request["ts"] == pytest.approx(1500, abs=0.01)
    assert inference["dur"] == pytest.approx(4000, abs=0.01)


def test_overlapping_work_of_a_replica_gets_further_tracks(tmp_path: Path) -> None:
    found = written(tmp_path, [a_work(1.0), a_work(1.001, infer_s=0.0041), a_work(1.1)])

    assert sorted(found.tracks.values()) == ["a/CPU.0#0", "a/CPU.0#0 (2)"]


def test_requests_that_were_inferred_together_are_one_inference(tmp_path: Path) -> None:
    found = written(tmp_path, [a_work(1.0 + number * 1e-6) for number in range(50)])

    assert len(found.complete("inference")) == 1
    assert len(found.begun("request")) == 50


def test_stages_of_a_chunk_lie_within_it(tmp_path: Path) -> None:
    parts = tuple(Part(name=name, seconds=1 / 3) for name in ("read, prepare, infer", "finish", "write"))
    chunks = [Work(name=f"rows {n}", replica="a/CPU.0#0", ended_s=10 + n / 2, parts=parts) for n in range(6)]

    found = written(tmp_path, chunks)

    assert len(found.complete()) == 6 * 4
    assert len(found.tracks) == 2


def test_work_that_no_replica_had_has_a_place_of_its_own(tmp_path: Path) -> None:
    failed = Work(name="request failed", replica=None, ended_s=1.0, parts=(), facts={"error": "late"})

    found = written(tmp_path, [failed])

    assert set(found.processes.values()) == {"no replica"}
    assert found.begun("request failed")[0]["args"] == {"error": "late"}


def test_the_last_works_are_kept_and_the_file_says_how_many_were_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "WORKS_KEPT", 10)

    found = written(tmp_path, [a_work(1.0 + number, name=f"request {number}") for number in range(25)])

    assert (found.about["works"], found.about["dropped"]) == (25, 15)
    assert [bool(found.begun(f"request {number}")) for number in (14, 15, 24)] == [False, True, True]


def test_any_mixture_is_a_valid_trace(tmp_path: Path) -> None:
    chance = random.Random(3)
    works = [
        a_work(chance.uniform(1, 2), f"h{chance.randrange(3)}/CPU.{chance.randrange(2)}#0", chance.random() / 10)
        for _ in range(500)
    ]

    found = written(tmp_path, works)

    assert len(found.complete("inference")) == 500


@pytest.mark.parametrize(
    ("name", "what"),
    [("trace.txt", "name ends in .json"), ("missing/trace.json", "its folder must exist")],
)
def test_a_place_where_no_trace_can_go_is_refused_at_once(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Trace(tmp_path / name, "digits")
