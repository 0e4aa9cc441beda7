"""Interrupts and kills a real ``ovray score``: what is finished stays, and nothing runs on behind one's back.

Jobs here take several seconds of real inference, and every step waits for what it needs to see, never for a time.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration import models
from tests.integration.commands import Command, started
from tests.integration.scored import PART
from tests.waiting import wait_until

MY_CPUS = sorted(os.sched_getaffinity(0))

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(len(MY_CPUS) < 2, reason="two replicas on disjoint cores need two cores"),
]

TWO_REPLICAS = f"CPU@{MY_CPUS[0]},CPU@{MY_CPUS[1]}"
ROWS = 12_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a model that takes a millisecond a row on one core, and rows in many row groups."""
    folder = tmp_path_factory.mktemp("job")
    models.save(models.a_perceptron(layers=6, width=2048), folder / "model.xml")
    values = np.random.default_rng(5).standard_normal((ROWS, models.FEATURES)).astype(np.float32)
    features = pa.FixedSizeListArray.from_arrays(values.reshape(-1), models.FEATURES)
    pq.write_table(
        pa.table({"id": np.arange(ROWS), "features": features}), folder / "rows.parquet", row_group_size=300
    )
    return folder


@contextmanager
def scoring(folder: Path, output: Path, *options: str, devices: str = TWO_REPLICAS) -> Iterator[Command]:
    arguments = ["model.xml", "rows.parquet", "--output", output, "--devices", devices, *options]
    with started(folder, "score", *arguments, OVRAY_LEASE_DIR=str(output.parent)) as command:
        yield command


def parts_in(output: Path) -> list[Path]:
    return sorted(path for path in output.glob("*") if PART.fullmatch(path.name))


class TestInterrupts:
    def check(self, command: Command, output: Path) -> None:
        command.interrupt()
        assert command.wait() == 130
        assert command.leaves_nothing(), command.processes()
        assert command.stderr == "ovray: interrupted; what was complete is kept, the rest was taken away\n"
        if output.exists():
            assert {path.name for path in output.iterdir() if not PART.fullmatch(path.name)} <= {"_ovray.json"}

    def test_before_ray_is_there(self, folder: Path, tmp_path: Path) -> None:
        with scoring(folder, tmp_path / "scores") as command:
            assert wait_until((tmp_path / "scores").exists), command.stderr
            self.check(command, tmp_path / "scores")
        assert not (tmp_path / "scores").exists(), "what was made and not used is taken away"

    def test_while_ray_starts(self, folder: Path, tmp_path: Path) -> None:
        with scoring(folder, tmp_path / "scores") as command:
            assert wait_until(lambda: command.runs("gcs_server"))
            self.check(command, tmp_path / "scores")
        assert not (tmp_path / "scores").exists()

    def test_while_replicas_compile(self, folder: Path, tmp_path: Path) -> None:
        with scoring(folder, tmp_path / "scores") as command:
            assert wait_until(lambda: bool(command.replicas()))
            self.check(command, tmp_path / "scores")
        assert not (tmp_path / "scores").exists()

    def test_while_rows_flow_a_job_system_ends_it_as_well_as_ctrl_c(self, folder: Path, tmp_path: Path) -> None:
        # Parts are due in ten minutes: what is there afterwards was completed because it was held.
        with scoring(folder, tmp_path / "scores", "--commit-every", "600") as command:
            assert wait_until(lambda: ": ready" in command.stdout), command.stderr
            command.process.terminate()
            assert command.wait() == 130
            assert command.leaves_nothing(), command.processes()
            assert command.stderr == "ovray: interrupted; what was complete is kept, the rest was taken away\n"
        assert 0 < sum(pq.read_table(part).num_rows for part in parts_in(tmp_path / "scores")) < ROWS

    def test_while_rows_flow_finished_files_stay_whole(self, folder: Path, tmp_path: Path) -> None:
        with scoring(folder, tmp_path / "scores") as command:
            assert wait_until(lambda: bool(parts_in(tmp_path / "scores")))
            self.check(command, tmp_path / "scores")
        parts = parts_in(tmp_path / "scores")
        assert 0 < sum(pq.read_table(part).num_rows for part in parts) < ROWS
        for part in parts:
            start, stop = (int(text) for text in part.stem.split("-")[1:])
            assert pq.read_table(part)["id"].to_pylist() == list(range(start, stop))


def test_when_the_command_is_killed_its_processes_end_too(folder: Path, tmp_path: Path) -> None:
    with scoring(folder, tmp_path / "scores") as command:
        assert wait_until(lambda: bool(parts_in(tmp_path / "scores")))

        command.process.kill()

        assert command.leaves_nothing(), command.processes()
