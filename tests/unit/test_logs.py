"""Lines of ovray's log: fields, levels, the run's id, and what the environment may ask for."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ovray import logs
from ovray.errors import ConfigError
from ovray.logs import LogSettings, fields, read_settings
from tests.waiting import DEADLINE_S


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Takes the lines; afterwards the process logs as before."""
    logger = logging.getLogger("ovray")
    level, propagate = logger.level, logger.propagate
    monkeypatch.setattr(logs, "_process", logs._Process())
    yield io.StringIO()
    if logs._process.handler is not None:
        logger.removeHandler(logs._process.handler)
    logger.setLevel(level)
    logger.propagate = propagate


def log_as(settings: LogSettings, stream: io.StringIO) -> logging.Logger:
    logs._process.settings = settings
    logs.set_up(stream)
    return logging.getLogger("ovray.driver.tests")


def test_a_line_has_the_run_and_its_fields(stream: io.StringIO) -> None:
    log = log_as(LogSettings(run="night-7", level="info"), stream)

    log.info("replica is %s", "lost", extra=fields(replica="a/CPU.0#0", seconds=1.25, reason='it said "no"'))

    line = stream.getvalue()
    assert " level=info run=night-7 host=" in line
    assert line.endswith(
        ' logger=ovray.driver.tests message="replica is lost" replica=a/CPU.0#0 seconds=1.25'
        ' reason="it said \\"no\\""\n'
    )


def test_a_line_stays_one_line_whatever_it_says(stream: io.StringIO) -> None:
    log = log_as(LogSettings(run="r", level="info"), stream)

    log.info("two\nlines")

    assert stream.getvalue().count("\n") == 1


def test_json_lines_have_fields_of_the_process_and_exceptions(stream: io.StringIO) -> None:
    log = log_as(LogSettings(run="r", level="debug", is_json=True, fields={"process": "a/CPU.0#0"}), stream)

    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it failed")

    line = json.loads(stream.getvalue())
    assert (line["run"], line["level"], line["process"], line["message"]) == (
        "r",
        "error",
        "a/CPU.0#0",
        "it failed",
    )
    assert "ValueError: broken" in line["exception"]


def test_lines_below_the_level_are_left_out(stream: io.StringIO) -> None:
    log = log_as(LogSettings(run="r", level="warning"), stream)

    log.info("no")
    log.warning("yes")

    assert stream.getvalue().count("message=") == 1


def test_setting_up_twice_doubles_no_line(stream: io.StringIO) -> None:
    log = log_as(LogSettings(run="r", level="info"), stream)
    logs.set_up(stream)
    logs.set_up()

    log.info("once")

    assert stream.getvalue().count("once") == 1


def test_nothing_is_set_up_unless_asked_for(stream: io.StringIO) -> None:
    logs._process.settings = read_settings({})

    logs.set_up(stream)

    assert logs._process.handler is None


def test_runs_have_ids_of_their_own() -> None:
    first, second = read_settings({}).run, read_settings({}).run

    assert first != second
    assert len(first) == 12


@pytest.mark.parametrize("words", ["loud", "info,debug", "json,xml"])
def test_what_is_no_level_is_refused_with_those_that_are(words: str) -> None:
    with pytest.raises(ConfigError, match="give one of debug, info, warning, error, or json, or both"):
        read_settings({"OVRAY_LOG": words})


def test_a_run_id_that_breaks_lines_is_refused() -> None:
    with pytest.raises(ConfigError, match="OVRAY_RUN_ID is 'a b'"):
        read_settings({"OVRAY_RUN_ID": "a b"})


def test_the_command_line_refuses_in_one_line() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ovray.cli.main", "--version"],
        env={"OVRAY_LOG": "loud", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert ran.returncode == 2
    assert ran.stderr.startswith("ovray: OVRAY_LOG is 'loud'")
    assert ran.stderr.count("\n") == 1
