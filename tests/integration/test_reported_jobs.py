"""What a real job tells of itself: the page of ``--report``, lines with their time; what ``--no-backup`` does."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from ovray.cli.main import app
from ovray.core.events import MAX_BACKUPS
from ovray.errors import DataError
from tests.html_pages import Page
from tests.integration import models
from tests.integration.scored import scores_in

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROWS = 2_000

#: A replica that is given the last row waits until another one has been given it, too, or for WAIT_S.
WAITING = """
import os
from pathlib import Path
import numpy as np
from tests.waiting import wait_until

def wait_for_another(columns):
    if (columns["id"] == {last}).any():
        Path({seen!r}, str(os.getpid())).touch()
        wait_until(lambda: len(os.listdir({seen!r})) > 1, {wait_s})
    return {{"features": columns["features"]}}
"""

#: Rows beyond the first wait until so many replicas have some: one that is ready when all is done takes no part.
GATHERING = """
import os
from pathlib import Path
from tests.waiting import until

def gather(columns):
    if columns["id"].min() >= 200:
        Path({seen!r}, str(os.getpid())).touch()
        until(lambda: len(os.listdir({seen!r})) >= {replicas})
    return {{"features": columns["features"]}}
"""

#: The first rows, on which a function is tried, are good.
REFUSING = """
def refuse_a_row(columns):
    if (columns["id"] == 1500).any():
        raise ValueError("<b>no</b>")
    return {"features": columns["features"]}
"""


@pytest.fixture(scope="module", autouse=True)
def _a_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model and rows in a file whose name is markup."""
    models.save(models.a_perceptron(), tmp_path / "model.xml")
    values = np.random.default_rng(6).standard_normal((ROWS, models.FEATURES)).astype(np.float32)
    table = pa.table({"id": range(ROWS), "features": list(values)})
    pq.write_table(table, tmp_path / "<i>&rows.parquet", row_group_size=100)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(*arguments: str, devices: str = "SIM*2?ms=0.5") -> None:
    """Run the command line ``ovray score`` into ``scores``."""
    ours = ["--output", "scores", "--devices", devices, "--batch-size", "10"]
    app(["score", "model.xml", "<i>&rows.parquet", *ours, *arguments], standalone_mode=False)


class TestReport:
    def test_it_shows_what_each_replica_did(self, folder: Path) -> None:
        seen = folder / "seen"
        seen.mkdir()
        (folder / "gathering.py").write_text(GATHERING.format(seen=str(seen), replicas=3))
        gathering = ["--preprocess", "gathering:gather", "--commit-every", "0.1", "--no-backup"]
        score("--report", "report.html", *gathering, devices="SIM*2?ms=0.5,CPU(2)")

        page = Page((folder / "report.html").read_text(encoding="utf-8"))
        assert page.reaches_for == []
        assert "scores every row is done" in page.text
        assert f"{ROWS:,} rows done, of {ROWS:,}" in page.text
        assert "<i>&rows.parquet" in page.text
        assert "i" not in {name for name, attrs in page.elements if "style" not in attrs}
        for told in ("3 replicas, of 3 planned", "--devices SIM*2?ms=0.5,CPU(2)", "openvino", "features as f32"):
            assert told in page.text
        chunks = re.findall(r"/(?:SIM|CPU\.\d)#\d: rows ([\d,]+) to ([\d,]+),[^:]*? rows/s", page.text)
        ranges = {tuple(int(number.replace(",", "")) for number in chunk) for chunk in chunks}
        assert sum(stop - start for start, stop in ranges) == ROWS
        assert sorted(folder.glob(".*")) == [], "nothing unfinished is left behind"

    def test_a_job_that_fails_leaves_one_too(self, folder: Path) -> None:
        (folder / "refusing.py").write_text(REFUSING)
        (folder / "scores").mkdir()

        with pytest.raises(DataError, match="<b>no</b>"):
            score("--report", "scores/_ovray-report.html", "--preprocess", "refusing:refuse_a_row")

        page = Page((folder / "scores" / "_ovray-report.html").read_text(encoding="utf-8"))
        assert page.text.count("<b>no</b>") >= 2, "at the top, and with the chunk that failed"
        assert "scores failed" in page.text
        assert "failed" in page.classes("rect")

    def test_rows_that_were_put_aside_are_counted(self, folder: Path) -> None:
        (folder / "refusing_one.py").write_text(REFUSING)

        score("--report", "report.html", "--preprocess", "refusing_one:refuse_a_row", "--on-error", "record")

        page = Page((folder / "report.html").read_text(encoding="utf-8"))
        assert "1 errors: rows put aside" in page.text
        assert re.search(
            r"Rows that could not be scored: 1; scores/_errors has them. The first: .*<b>no</b>", page.text
        )

    def test_a_run_that_finds_every_row_done_leaves_the_page_as_it_is(self, folder: Path) -> None:
        score("--report", "report.html")
        before = (folder / "report.html").read_bytes()

        score("--report", "report.html")

        assert (folder / "report.html").read_bytes() == before


class TestLines:
    def test_where_no_terminal_is_each_line_has_its_time(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        score()

        lines = capsys.readouterr().out.splitlines()
        told = [line[20:] for line in lines if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line)]
        assert told[0] == "starting 2 replicas"
        assert len([line for line in told if line.endswith(": ready")]) == 2
        assert re.match(rf"{ROWS:,} of {ROWS:,} rows \(100%\), [\d,]+ rows/s now, [\d,]+ on average", told[-1])
        assert not any(line in lines for line in told)


class TestCopies:
    def seen_by(self, folder: Path, module: str, *options: str, wait_s: float) -> int:
        """Score with a function of this new module; return how many replicas were given the last row."""
        seen = folder / "seen"
        seen.mkdir()
        (folder / f"{module}.py").write_text(WAITING.format(last=ROWS - 1, seen=str(seen), wait_s=wait_s))
        score("--preprocess", f"{module}:wait_for_another", *options)
        assert scores_in(folder / "scores")["id"].to_pylist() == list(range(ROWS))
        return len(list(seen.iterdir()))

    def test_an_idle_replica_copies_the_last_chunk(self, folder: Path) -> None:
        assert MAX_BACKUPS > 0
        assert self.seen_by(folder, "with_copies", wait_s=60.0) == 2

    def test_no_backup_leaves_it_to_the_one_that_has_it(self, folder: Path) -> None:
        assert self.seen_by(folder, "without_copies", "--no-backup", wait_s=3.0) == 1
