"""Builds what is published, installs it where nothing else is, and uses it there."""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Ray and OpenVINO are large: a slow network takes minutes for them.
INSTALL_TIMEOUT_S = 900

#: Packed and published; whoever has the archive can test, try the examples and set up a cluster.
PUBLISHED = ("ovray", "tests", "examples", "cluster", ".ci")

pytestmark = [pytest.mark.slow, pytest.mark.internet, pytest.mark.timeout(2 * INSTALL_TIMEOUT_S)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the archive of sources, and the wheel that was built of it."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("ovray-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that had nothing before the wheel."""
    folder = tmp_path_factory.mktemp("installed") / "environment"
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # The smallest of what the wheel needs tells whether anything can be had from here.
    asked = subprocess.run([*pip, "download", "--no-deps", "psutil"], cwd=folder, capture_output=True, text=True)
    if asked.returncode != 0:
        pytest.skip(f"no package index can be reached: {asked.stderr.strip().splitlines()[-1]}")
    run([*pip, "install", str(wheel)], folder)
    return folder / "bin"


def run(command: list[str], folder: Path) -> str:
    # Nothing of this checkout is to be found by way of the environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_archive_has_every_source(built: Path) -> None:
    (archive,) = built.glob("ovray-*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}

    files = [path for folder in PUBLISHED for path in (ROOT / folder).rglob("*") if path.is_file()]
    sources = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    single = {"README.md", "CHANGELOG.md", "LICENSE", "Makefile", "pyproject.toml"}
    assert (sources | single) - names == set()


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {"ovray/py.typed", "ovray/digits/model.bin", "ovray/digits/held_out.parquet"} <= set(names)
    assert any(name.endswith("licenses/ovray/digits/LICENSE-data.md") for name in names)
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"ovray"}


@pytest.mark.ray
def test_the_demo_runs_where_only_the_wheel_is(installed: Path, tmp_path: Path) -> None:
    printed = run([str(installed / "ovray"), "demo"], tmp_path)

    assert "540 rows" in printed
    found = re.search(r"accuracy (\S+): \d+ of 540", printed)
    assert found is not None
    assert float(found[1]) == pytest.approx(529 / 540, abs=2 / 540)


def test_the_installed_command_knows_its_version(installed: Path, tmp_path: Path) -> None:
    assert run([str(installed / "ovray"), "--version"], tmp_path) == f"ovray {version('ovray')}\n"


def test_type_checkers_see_the_types_of_what_is_installed(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
import ovray

reveal_type(ovray.score("model.xml", ["rows.parquet"], output="scores"))
reveal_type(ovray.devices())
with ovray.compile_model("model.xml", "MULTI", batch_size=4) as compiled:
    reveal_type(compiled)
    reveal_type(compiled.submit([1.0]).result())
ovray.score("model.xml", ["rows.parquet"], output="scores", top_k="five")
"""
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--no-color-output"]
    done = subprocess.run(
        [*command, "--python-executable", str(installed / "python"), str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
    )

    revealed = re.findall(r"script.py:(\d+): note: Revealed type is \"(.*)\"", done.stdout)
    assert [(int(line), name.rpartition(".")[2]) for line, name in revealed] == [
        (4, "ScoreReport"),
        (5, "ClusterProbe"),
        (7, "CompiledModel"),
        (8, "OVDict"),
    ], done.stdout
    errors = re.findall(r"script.py:(\d+): error: (.*)", done.stdout)
    assert [int(line) for line, _ in errors] == [9], done.stdout
