"""``ovray top`` on a real cluster, in a real pseudo-terminal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.a_scraped_head import ScrapedHead, a_scraped_head
from tests.integration.a_terminal import a_terminal
from tests.integration.commands import ran
from tests.integration.processes import Script, running
from tests.waiting import DEADLINE_S, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OPEN = {"RAY_AUTH_MODE": "disabled"}

_DRIVER = """
import sys, threading
import numpy as np
import ovray as ov
from ovray import digits

compiled = ov.compile_model(digits.model_file(), "MULTI:SIM*2?ms=2", address=sys.argv[1], name=sys.argv[2] or None)
compiled.infer_new_request([np.zeros((1, 64), np.float32)])
print("serves")
is_over = threading.Event()
def ask():
    while not is_over.wait(0.01):
        compiled.infer_new_request([np.zeros((1, 64), np.float32)])
asking = threading.Thread(target=ask)
asking.start()
sys.stdin.readline()
is_over.set()
asking.join()
compiled.close()
print("ended")
"""


@pytest.fixture(scope="module")
def head() -> Iterator[ScrapedHead]:
    with a_scraped_head(cpus=6) as head:
        yield head


@pytest.fixture(scope="module")
def driver(head: ScrapedHead) -> Iterator[Script]:
    where = {"RAY_ADDRESS": head.address, "OVRAY_RUN_ID": "watched", **OPEN}
    with running(_DRIVER, head.address, "shared", **where) as driver:
        assert driver.read_line() == "serves"
        yield driver


def look(head: ScrapedHead, folder: Path) -> dict[str, list[dict[str, object]]]:
    seen = ran(folder, "top", "--json", "--address", head.address, **OPEN)
    assert seen.process.returncode == 0, seen.stderr
    found: dict[str, list[dict[str, object]]] = json.loads(seen.stdout)
    return found


def test_json_has_what_a_driver_does(head: ScrapedHead, driver: Script, tmp_path: Path) -> None:
    looks: list[dict[str, list[dict[str, object]]]] = []

    def is_seen_at_work() -> bool:
        looks.append(look(head, tmp_path))
        return any(run["p50_s"] and (run["per_s"] or 0.0) > 1 for run in looks[-1]["runs"])  # type: ignore[operator]

    assert wait_until(is_seen_at_work), looks[-1]
    seen = looks[-1]
    (run,) = [run for run in seen["runs"] if run["run"] == "watched"]
    assert run["pid"] == driver.pid
    assert run["states"] == {"ready": 2}
    assert 0.001 < run["p50_s"] <= run["p99_s"]  # type: ignore[operator]
    assert not run["is_silent"]
    assert len(run["replicas"]) == 2  # type: ignore[arg-type]
    assert [(pool["name"], pool["replicas_ready"]) for pool in seen["pools"]] == [("shared", 2)]


def test_a_driver_that_is_to_tell_nothing_is_not_seen(head: ScrapedHead, driver: Script, tmp_path: Path) -> None:
    def told() -> dict[object, int]:
        return {run["run"]: int(run["done"]) for run in look(head, tmp_path)["runs"]}  # type: ignore[call-overload]

    where = {"RAY_ADDRESS": head.address, "OVRAY_RUN_ID": "unwatched", "OVRAY_METRICS": "off", **OPEN}
    with running(_DRIVER, head.address, "", **where) as silent:
        assert silent.read_line() == "serves"
        # The other one, which asks as often, has been heard of several times meanwhile.
        assert wait_until(lambda: "watched" in told(), 60)
        enough = told()["watched"] + 200
        assert wait_until(lambda: told()["watched"] > enough, 60)
        runs = set(told())
        silent.tell("end")
        silent.process.wait(DEADLINE_S)

    assert "unwatched" not in runs


def test_piped_it_prints_one_table_and_ends(head: ScrapedHead, driver: Script, tmp_path: Path) -> None:
    seen = ran(tmp_path, "top", "--address", head.address, **OPEN)

    assert seen.process.returncode == 0, seen.stderr
    assert "\x1b" not in seen.stdout
    assert seen.stdout.count("SIM#0") == 1
    assert "watched" in seen.stdout
    assert "shared" in seen.stdout


@pytest.mark.parametrize("keys", [b"q", b"\x03"])
def test_a_key_ends_it_and_the_terminal_is_as_before(head: ScrapedHead, driver: Script, keys: bytes) -> None:
    with a_terminal(120, 30, "top", "--address", head.address, "--interval-s", "0.5", **OPEN) as terminal:
        terminal.read_until("q ends")
        terminal.type(keys)
        code = terminal.wait()

        assert code == 0
        assert terminal.modes == terminal.modes_before
        # The alternate screen was entered and left, the cursor hidden and shown.
        assert terminal.raw.index(b"\x1b[?1049h") < terminal.raw.rindex(b"\x1b[?1049l")
        assert terminal.raw.rindex(b"\x1b[?25l") < terminal.raw.rindex(b"\x1b[?25h")
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_shows_what_fits(head: ScrapedHead, driver: Script, columns: int) -> None:
    with a_terminal(columns, 24, "top", "--address", head.address, **OPEN) as terminal:
        terminal.read_until("q ends")
        terminal.type(b"q")

        assert terminal.wait() == 0
        assert [line for line in terminal.full_screen_text.splitlines() if len(line) > columns] == []
        assert "SIM" in terminal.full_screen_text


def test_a_killed_driver_is_gone_and_its_entry_taken_away(head: ScrapedHead, tmp_path: Path) -> None:
    where = {"RAY_ADDRESS": head.address, "OVRAY_RUN_ID": "doomed", **OPEN}
    with running(_DRIVER, head.address, "", **where) as doomed:
        assert doomed.read_line() == "serves"
        assert wait_until(lambda: any(run["run"] == "doomed" for run in look(head, tmp_path)["runs"]))
        doomed.kill()

        assert wait_until(lambda: all(run["run"] != "doomed" for run in look(head, tmp_path)["runs"]))


def test_a_driver_that_ends_leaves_nothing(head: ScrapedHead, driver: Script, tmp_path: Path) -> None:
    driver.tell("end")
    assert driver.read_line() == "ended"

    assert look(head, tmp_path) == {"runs": [], "pools": []}
    seen = ran(tmp_path, "top", "--once", "--address", head.address, **OPEN)
    assert "no driver of this cluster serves or scores" in seen.stdout


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    seen = ran(tmp_path, "top", RAY_ADDRESS="local")

    assert seen.process.returncode == 2
    assert "no Ray runs on this machine" in seen.stderr
