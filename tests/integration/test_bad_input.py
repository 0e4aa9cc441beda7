"""Gives ``ovray score`` what a caller can get wrong: one clear line each, code 2, and nothing half-written.

What can be known without a Ray must be said before one is started.  Those cases go through the real command line
in this process, which takes milliseconds; one of each kind is a real command as well, whose output is looked at.
"""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import typer

from ovray.cli.main import app
from ovray.errors import ConfigError
from tests.integration import models
from tests.integration.commands import ran

pytestmark = pytest.mark.slow

VECTOR = [1.0] * models.FEATURES
EXIT_CONFIG, EXIT_FAILED = 2, 1

#: Of these a real command is run: one of each kind.
RUN_AS_COMMANDS = [
    "a text called .onnx",
    "one cut file beside good ones",
    "two columns that could be meant",
    "no rows",
    "an unknown device",
    "an address where nothing answers",
    "an output below a file",
]

#: What is wrong, the arguments after ``score``, and what the message has to name.
KNOWN_BEFORE_RAY: dict[str, tuple[str, list[str]]] = {
    # The model.
    "a missing model": ("none.onnx good.parquet", ["'none.onnx' does not exist"]),
    "a text called .onnx": ("text.onnx good.parquet", ["'text.onnx' is no model", ".onnx"]),
    "an IR without weights": ("bare.xml good.parquet", ["'bare.xml'", ".bin"]),
    # The inputs.
    "no input given": ("model.xml", ["INPUT"]),
    "a missing file": ("model.xml none.parquet", ["'none.parquet' matches nothing"]),
    "a glob that matches nothing": ("model.xml good*.csv", ["'good*.csv' matches no file"]),
    "a folder without data": ("model.xml notes", ["'notes'", "readme.md", ".parquet"]),
    "one cut file beside good ones": ("model.xml many", ["'many/17.parquet' cannot be read as Parquet"]),
    "an empty Parquet file": ("model.xml good.parquet empty.parquet", ["'empty.parquet'", "0 bytes"]),
    "a Parquet file without rows": ("model.xml rowless.parquet", ["'rowless.parquet' is empty"]),
    "an empty CSV file": ("model.xml empty.csv", ["'empty.csv' is empty"]),
    "an uneven CSV file": ("model.xml uneven.csv", ["'uneven.csv', line 3", "2 columns"]),
    "files with other columns": ("model.xml good.parquet two.parquet", ["'two.parquet'", "'features'"]),
    # The columns.
    "no column that fits": ("model.xml other.parquet", ["'features'", "f32[?,32]", "name (string)"]),
    "a column that is not there": ("model.xml good.parquet --input fatures", ["'fatures'", "'features'"]),
    "an input that is not there": ("model.xml good.parquet --input x=features", ["no input 'x'", "'features'"]),
    "a column of another shape": ("model.xml good.parquet --input short", ["'short'", "5 values", "32 values"]),
    "a column of another type": ("model.xml good.parquet --input name", ["'name' (string)", "takes numbers"]),
    "two columns that could be meant": ("model.xml two.parquet", ["'a', 'b'", "--input features="]),
    "a kept column that is not there": ("model.xml good.parquet --keep nam", ["'nam'", "'name'"]),
    "a column named as an output": ("model.xml clash.parquet", ["'logits'", "--keep"]),
    # Options.
    "a batch of no number": ("model.xml good.parquet --batch-size ten", ["'ten'", "auto"]),
    "no rows": ("model.xml good.parquet --limit 0", ["--limit 0"]),
    "an unknown hint": ("model.xml good.parquet --hint FAST", ["'FAST'", "LATENCY", "THROUGHPUT"]),
    "an unknown precision": ("model.xml good.parquet --precision f31", ["'f31'", "bf16"]),
    "a property without a value": ("model.xml good.parquet --config CACHE_DIR", ["'CACHE_DIR'", "KEY=VALUE"]),
    "an unknown device": ("model.xml good.parquet --devices CPU,XPU", ["'XPU'", "CPU, GPU, NPU and SIM"]),
    "an address where nothing answers": (
        "model.xml good.parquet --address 127.0.0.1:1",
        ["no Ray answers at '127.0.0.1:1'"],
    ),
    # The output.
    "an output with other files": ("model.xml good.parquet --output notes", ["'notes' holds", "readme.md"]),
    "an output that is a file": ("model.xml good.parquet --output good.parquet", ["'good.parquet' is a file"]),
    "an output below a file": (
        "model.xml good.parquet --output good.parquet/scores",
        ["'good.parquet/scores' cannot be written"],
    ),
    "an output that nobody can write": (
        "model.xml good.parquet --output /proc/ovray",
        ["'/proc/ovray' cannot be"],
    ),
    "an output without a name": ("model.xml good.parquet --output=", ["has no name"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    models.save(models.a_perceptron(), folder / "model.xml")
    shutil.copy(folder / "model.xml", folder / "bare.xml")
    (folder / "text.onnx").write_text("no model")
    good = {"features": [VECTOR] * 9, "short": [[1.0] * 5] * 9, "name": ["x"] * 9}
    write(folder / "good.parquet", **good)
    write(folder / "rowless.parquet", **{name: values[:0] for name, values in good.items()})
    write(folder / "other.parquet", id=[1], name=["x"])
    write(folder / "two.parquet", a=[VECTOR], b=[VECTOR])
    write(folder / "clash.parquet", features=[VECTOR], logits=[1])
    rows = [VECTOR] * 777 + [VECTOR[1:]] + [VECTOR] * 222
    write(folder / "ragged.parquet", features=rows, short=[[1.0] * 5] * 1000, name=["x"] * 1000)
    for name, text in {"empty.parquet": "", "empty.csv": "", "uneven.csv": "a,b\n1,2\n3\n"}.items():
        (folder / name).write_text(text)
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.md").write_text("mine")
    (folder / "many").mkdir()
    for number in range(20):
        shutil.copy(folder / "good.parquet", folder / "many" / f"{number:02}.parquet")
    (folder / "many" / "17.parquet").write_bytes((folder / "good.parquet").read_bytes()[:-20])
    return folder


def write(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def arguments(case: str, output: Path) -> list[str]:
    line, _ = KNOWN_BEFORE_RAY[case]
    return ["score", *line.split(), *([] if "--output" in line else ["--output", str(output)])]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", KNOWN_BEFORE_RAY)
def test_what_a_caller_can_mend_is_said_before_a_ray_is_started(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = contents(folder)

    with pytest.raises((ConfigError, typer.TyperException)) as raised:
        app(arguments(case, tmp_path / "scores"), standalone_mode=False)

    message = str(getattr(raised.value, "format_message", raised.value.__str__)())
    assert [words for words in KNOWN_BEFORE_RAY[case][1] if words not in message] == [], message
    assert raised.value.exit_code == EXIT_CONFIG
    assert not ray.is_initialized()
    assert list(tmp_path.iterdir()) == []
    assert contents(folder) == before


@pytest.mark.parametrize("case", RUN_AS_COMMANDS)
def test_a_command_says_it_in_one_line_and_ends_with_code_2(case: str, folder: Path, tmp_path: Path) -> None:
    command = ran(folder, *arguments(case, tmp_path / "scores"), RAY_TMPDIR=str(tmp_path / "ray"))

    assert command.process.returncode == EXIT_CONFIG
    assert [words for words in KNOWN_BEFORE_RAY[case][1] if words not in command.stderr] == [], command.stderr
    assert 1 <= len(command.stderr.splitlines()) <= 3
    assert "Traceback" not in command.stderr
    assert command.stdout == ""
    assert list(tmp_path.iterdir()) == [], "neither an output folder nor a Ray was made"
    assert command.processes() == []


def test_debug_shows_where_it_happened(folder: Path, tmp_path: Path) -> None:
    command = ran(folder, "--debug", *arguments("a missing file", tmp_path / "scores"))

    assert command.process.returncode == EXIT_CONFIG
    assert "Traceback" in command.stderr
    assert command.stderr.splitlines()[-1].startswith("ovray: input 'none.parquet' matches nothing")


@pytest.mark.ray
class TestWithARayOfItsOwn:
    def test_an_absent_device_lists_those_that_there_are(self, folder: Path, tmp_path: Path) -> None:
        output = tmp_path / "made" / "scores"
        command = ran(folder, "score", "model.xml", "good.parquet", "--output", output, "--devices", "GPU.77")

        assert command.process.returncode == EXIT_CONFIG
        assert "nothing here is 'GPU.77'; there are" in command.stderr
        assert "CPU.0" in command.stderr
        assert len(command.stderr.splitlines()) <= 3
        assert list(tmp_path.iterdir()) == []
        assert command.leaves_nothing(), command.processes()

    def test_a_row_that_cannot_be_fed_ends_the_run_with_code_1_and_is_named(
        self, folder: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "scores"
        options = ["--output", output, "--keep", "", "--devices", "CPU"]
        command = ran(folder, "score", "model.xml", "good.parquet", "ragged.parquet", *options)

        assert command.process.returncode == EXIT_FAILED
        assert "ragged.parquet, row 777" in command.stderr
        assert "'features' holds a list of 31" in command.stderr
        assert len(command.stderr.splitlines()) <= 3
        assert "Traceback" not in command.stderr
        # What was complete by then is kept, and may be nothing at all.
        assert not output.exists() or list(output.glob("part-*")) != []
        assert command.leaves_nothing(), command.processes()
