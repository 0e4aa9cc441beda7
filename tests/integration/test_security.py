"""What a data set, a model and the network may not do: run code, write elsewhere, talk to a Ray of ovray's own."""

import ipaddress
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovray.errors import ConfigError
from ovray.replica.model import read_model
from ovray.scoring.parts import part_name
from tests.data_builders import a_data_set, a_parquet_file
from tests.integration.commands import Command, ran, started
from tests.waiting import DEADLINE_S, wait_until

#: Names that lead out of a folder, or would if they became part of a path.
WAYS_OUT = ["../climbed", "/tmp/ovray-absolute", "..", "a/b"]

#: What the models here take.
X = pa.list_(pa.float32(), 4)

SaveArray = Callable[[Path, "np.ndarray[tuple[int], np.dtype[np.object_]]"], None]


class RunsOnUnpickling:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (os.mkdir, (str(self._trace),))


def as_npy(path: Path, array: "np.ndarray[tuple[int], np.dtype[np.object_]]") -> None:
    np.save(path, array, allow_pickle=True)


def as_npz(path: Path, array: "np.ndarray[tuple[int], np.dtype[np.object_]]") -> None:
    np.savez(path, x=np.arange(3), y=array)


def as_bare_pickle(path: Path, array: "np.ndarray[tuple[int], np.dtype[np.object_]]") -> None:
    path.write_bytes(pickle.dumps(array))


@pytest.mark.parametrize(
    ("name", "save"), [("bomb.npy", as_npy), ("bomb.npz", as_npz), ("pickled.npy", as_bare_pickle)]
)
def test_a_pickle_in_an_array_file_is_refused_and_does_not_run(tmp_path: Path, name: str, save: SaveArray) -> None:
    bomb, trace = tmp_path / name, tmp_path / "it-ran"
    save(bomb, np.array([RunsOnUnpickling(trace)], dtype=object))

    with pytest.raises(ConfigError, match=name):
        a_data_set(bomb)

    assert not trace.exists()
    # It is a real one: who allows pickles runs it.
    loaded = np.load(bomb, allow_pickle=True)
    if name.endswith(".npz"):
        loaded["y"]
    assert trace.exists()


def test_a_pickle_given_to_the_command_ends_it_with_2(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    np.save(tmp_path / "bomb.npy", np.array([RunsOnUnpickling(trace)], dtype=object), allow_pickle=True)
    ov.save_model(a_model_with_outputs(["y"]), tmp_path / "model.xml")

    done = ran(tmp_path, "score", "model.xml", "bomb.npy", "--output", "scores")

    assert done.process.returncode == 2
    assert "does not unpickle" in done.stderr
    assert not trace.exists()
    assert not (tmp_path / "scores").exists()


def a_pickled_object(payload: object) -> pa.Table:
    """A column as Ray Data stores Python objects: bytes, under a name by which Arrow unpickles them."""
    marks = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object", b"ARROW:extension:metadata": b""}
    field = pa.field("thing", pa.large_binary(), metadata=marks)
    things = pa.array([pickle.dumps(payload)], pa.large_binary())
    return pa.table([pa.array([[0.0] * 4], pa.list_(pa.float32(), 4)), things], pa.schema([("x", X), field]))


def nested(table: pa.Table) -> pa.Table:
    """The same column within another."""
    inner = table.schema.field("thing")
    outer = pa.StructArray.from_arrays([table["thing"].combine_chunks()], fields=[inner])
    return pa.table([table["x"], outer], pa.schema([("x", X), ("outer", outer.type)]))


def write_table(table: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


#: Looks into each file of the command line as ovray does, and says what came of it.
_LOOK_INTO = """
import sys
from tests.data_builders import a_data_set
for path in sys.argv[1:]:
    try:
        a_data_set(path)
    except Exception as error:
        print(type(error).__name__, error)
"""

#: Does what anybody does with a column.
_UNPICKLE = "import sys, pyarrow.parquet as pq; pq.read_table(sys.argv[1]).to_pylist()"


@pytest.mark.parametrize("first", ["", "import ray.data;"], ids=["unknown to Arrow", "known to Arrow"])
def test_a_pickle_in_a_column_is_refused_and_does_not_run(tmp_path: Path, first: str) -> None:
    trace = tmp_path / "it-ran"
    table = a_pickled_object(RunsOnUnpickling(trace))
    bombs = [tmp_path / name for name in ("flat.parquet", "nested.parquet", "flat.arrow", "nested.arrow")]
    for bomb in bombs:
        write_table(nested(table) if bomb.stem == "nested" else table, bomb)

    told = run_python(first + _LOOK_INTO, *bombs).splitlines()

    assert len(told) == len(bombs)
    for bomb, line in zip(bombs, told, strict=True):
        assert line.startswith("ConfigError column"), line
        assert bomb.name in line
        assert "does not unpickle" in line
    assert not trace.exists()
    # It is a real one: who looks into the column where Ray Data was imported runs it.
    run_python(first + _UNPICKLE, bombs[0])
    assert trace.exists() == bool(first)


@pytest.mark.parametrize("suffix", ["xml", "onnx", "pb", "tflite", "pdmodel", "pt", "pth", "pkl", "bin", "h5"])
def test_a_pickle_given_as_a_model_is_refused_and_does_not_run(tmp_path: Path, suffix: str) -> None:
    trace, bomb = tmp_path / "it-ran", tmp_path / f"model.{suffix}"
    bomb.write_bytes(pickle.dumps(RunsOnUnpickling(trace)))

    with pytest.raises(ConfigError, match=bomb.name):
        read_model(bomb)

    assert not trace.exists()
    pickle.loads(bomb.read_bytes())
    assert trace.exists()


def test_only_the_module_that_was_named_is_loaded(tmp_path: Path) -> None:
    """In a folder where everything else would leave a trace if it were imported."""
    ov.save_model(a_model_with_outputs(["y"]), tmp_path / "model.xml")
    a_parquet_file(tmp_path / "rows.parquet", pa.table({"x": [[0.0] * 4]}))
    for name in ("named", "other", "sitecustomize", "usercustomize", "conftest", "rows", "model"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'a').write('{name} ')\n")

    done = subprocess.run(
        [
            Path(sys.executable).with_name("ovray"),
            *("score", "model.xml", "rows.parquet", "--output", "scores", "--preprocess", "named:function"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
    )

    assert done.returncode == 2
    assert "named has no 'function'" in done.stderr
    assert (tmp_path / "loaded").read_text() == "named "


def test_an_output_is_asked_for_by_its_name_and_not_by_a_path(tmp_path: Path) -> None:
    name = "../../y"
    ov.save_model(a_model_with_outputs(["y", *WAYS_OUT]), tmp_path / "model.xml")
    a_parquet_file(tmp_path / "rows.parquet", pa.table({"x": [[0.0] * 4]}))

    done = ran(tmp_path, "score", "model.xml", "rows.parquet", "--output", "scores", "--outputs", name)

    assert done.process.returncode == 2
    assert name in done.stderr
    assert not (tmp_path / "scores").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_folder_that_was_tampered_with_leads_nowhere(tmp_path: Path) -> None:
    # given: a folder of results, in which somebody has put a part that is a link to a file elsewhere
    outside = tmp_path / "outside.parquet"
    pq.write_table(pa.table({"secret": [1]}), outside)
    work = tmp_path / "work"
    work.mkdir()
    ov.save_model(a_model_with_outputs(["y"]), work / "model.xml")
    a_parquet_file(work / "rows.parquet", pa.table({"x": pa.array(np.zeros((3, 4)).tolist(), X)}))
    command = ("score", "model.xml", "rows.parquet", "--output", "scores", "--devices", "SIM?ms=1")
    assert ran(work, *command).process.returncode == 0
    (work / "scores" / part_name(0, 3)).unlink()
    (work / "scores" / part_name(0, 2)).symlink_to(outside)
    before = outside.read_bytes()

    # when, then: the link goes, what it led to stays
    assert ran(work, *command).process.returncode == 0
    assert outside.read_bytes() == before
    assert [path.name for path in (work / "scores").glob("part-*")] == [part_name(0, 3)]

    # when, then: a record that names other places is refused, and nothing is changed
    record = work / "scores" / "_ovray.json"
    content = json.loads(record.read_text())
    content["job"]["inputs"][0]["location"] = str(outside)
    content["job"]["options"]["--output"] = "../.."
    record.write_text(json.dumps(content))
    kept = everything_in(tmp_path)
    refused = ran(work, *command)
    assert refused.process.returncode == 2
    assert "another job" in refused.stderr
    assert everything_in(tmp_path) == kept


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_of_its_own_listens_on_loopback_only_and_names_in_it_lead_nowhere(tmp_path: Path) -> None:
    # given: outputs and a kept column whose names would lead out of the folder, if they were used for a path
    work = tmp_path / "deep" / "down" / "work"
    work.mkdir(parents=True)
    ov.save_model(a_model_with_outputs(WAYS_OUT), work / "model.xml")
    rows = pa.table({"x": pa.array(np.zeros((300, 4)).tolist(), pa.list_(pa.float32(), 4)), "../kept": range(300)})
    a_parquet_file(work / "rows.parquet", rows)
    before = everything_in(tmp_path)

    # when
    options = ["--devices", "SIM*2?ms=40", "--on-error", "record", "--report", "page.html"]
    listening = what_listens_during(work, "score", "model.xml", "rows.parquet", "--output", "scores", *options)

    # then
    assert not [one for one in listening if not is_loopback(one[1])]
    new = everything_in(tmp_path) - before
    assert {path.relative_to(work).parts[0] for path in new} == {"scores", "page.html"}
    assert not Path("/tmp/ovray-absolute").exists()
    assert pq.read_table(work / "scores").column_names == ["../kept", *WAYS_OUT]


@pytest.mark.ray
@pytest.mark.slow
def test_a_pool_of_its_own_listens_on_loopback_only(tmp_path: Path) -> None:
    ov.save_model(a_model_with_outputs(["y"]), tmp_path / "model.xml")

    listening = what_listens_during(
        tmp_path, "bench", "-m", "model.xml", "-shape", "[1,4]", "-d", "SIM*2?ms=5", "-t", "5"
    )

    assert not [one for one in listening if not is_loopback(one[1])]


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "fd00::2", "::ffff:192.0.2.7"])
def test_what_others_can_reach_does_not_count_as_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_what_only_this_machine_can_reach_counts_as_loopback(address: str) -> None:
    assert is_loopback(address)


def run_python(source: str, *arguments: Path) -> str:
    """Runs Python in a process of its own; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
    )
    return done.stdout


def a_model_with_outputs(names: list[str]) -> ov.Model:
    """``x`` f32[?,4] in; for each name f32[?,4] out."""
    x = ops.parameter(ov.PartialShape([-1, 4]), ov.Type.f32)
    x.output(0).get_tensor().set_names({"x"})
    results = []
    for place, name in enumerate(names):
        port = ops.multiply(x, np.float32(place + 2)).output(0)
        port.get_tensor().set_names({name})
        results.append(ops.result(port))
    return ov.Model(results, [x], "outputs")


def everything_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def what_listens_during(folder: Path, *arguments: str) -> set[tuple[str, str]]:
    """Run a command to its good end, looking all the time, on devices slow enough for that."""
    listening: set[tuple[str, str]] = set()

    def is_over(job: Command) -> bool:
        listening.update(listening_addresses(job))
        return job.process.poll() is not None

    with started(folder, *arguments) as job:
        assert wait_until(lambda: is_over(job), 2 * DEADLINE_S)
    assert job.process.returncode == 0, job.stderr
    programs = {program.split(".")[0] for program, _ in listening}
    assert {"gcs_server", "raylet", "ray::Replica"} <= programs
    return listening


def listening_addresses(job: Command) -> set[tuple[str, str]]:
    """Return each program of a command, and an address that it listens on."""
    found = set()
    for process in job.processes():
        try:
            connections = process.net_connections(kind="inet")
        except psutil.NoSuchProcess:
            continue
        listening = [one for one in connections if one.status == psutil.CONN_LISTEN]
        found |= {(process.name(), one.laddr.ip) for one in listening}
    return found


def is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
