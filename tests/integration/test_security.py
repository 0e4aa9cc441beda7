"""What a data set, a model and the network may not do: run code, write elsewhere, talk to a Ray of ovray's own."""

import ipaddress
import os
import pickle
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
from tests.data_builders import a_data_set, a_parquet_file
from tests.integration.commands import Command, ran, started, wait_until
from tests.integration.processes import DEADLINE_S

#: Names that lead out of a folder, or would if they became part of a path.
WAYS_OUT = ["../climbed", "/tmp/ovray-absolute", "..", "a/b"]

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

    # when: it is looked at all the time, on devices that are slow enough for that
    listening: set[tuple[str, str]] = set()

    def is_over(job: Command) -> bool:
        listening.update(listening_addresses(job))
        return job.process.poll() is not None

    options = ["--devices", "SIM*2?ms=40", "--on-error", "record", "--report", "page.html"]
    with started(work, "score", "model.xml", "rows.parquet", "--output", "scores", *options) as job:
        assert wait_until(lambda: is_over(job), 2 * DEADLINE_S)

    # then
    assert job.process.returncode == 0, job.stderr
    programs = {program for program, _ in listening}
    assert {"gcs_server", "raylet", "ray::Replica"} <= {program.split(".")[0] for program in programs}
    assert not [one for one in listening if not is_loopback(one[1])]
    new = everything_in(tmp_path) - before
    assert {path.relative_to(work).parts[0] for path in new} == {"scores", "page.html"}
    assert not Path("/tmp/ovray-absolute").exists()
    assert pq.read_table(work / "scores").column_names == ["../kept", *WAYS_OUT]


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "fd00::2", "::ffff:192.0.2.7"])
def test_what_others_can_reach_does_not_count_as_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_what_only_this_machine_can_reach_counts_as_loopback(address: str) -> None:
    assert is_loopback(address)


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
