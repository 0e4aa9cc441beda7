import json

import pytest
from typer.testing import CliRunner

from ovray.cli.main import app
from ovray.errors import ConfigError

UNEQUAL = "SIM*10?ms=40&jitter=0.2,SIM*2?ms=2&jitter=0.2"


def simulate(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["simulate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_a_job_is_reported_as_one_json_object() -> None:
    report = json.loads(simulate("--devices", UNEQUAL, "--rows", "20000", "--seed", "3", "--json"))

    assert list(report) == [
        "policy",
        "rows",
        "replicas",
        "makespan_s",
        "bound_s",
        "efficiency",
        "lost",
        "duplicated",
        "events",
        "events_per_s",
    ]
    assert report["policy"] == "FASTEST_COMPLETION"
    assert (report["rows"], report["replicas"], report["lost"], report["duplicated"]) == (20000, 12, 0, 0)
    assert report["bound_s"] == pytest.approx(16.0)
    assert report["efficiency"] == pytest.approx(report["bound_s"] / report["makespan_s"])
    assert report["efficiency"] > 0.95


def test_requests_are_reported_as_one_json_object() -> None:
    arguments = ["--devices", "SIM*2?ms=2", "--requests", "300", "--duration", "2", "--json"]
    report = json.loads(simulate(*arguments, "--policy", "ROUND_ROBIN"))

    assert report["policy"] == "ROUND_ROBIN"
    assert 2.0 <= report["p50_ms"] <= report["p99_ms"]
    assert report["offered"] == pytest.approx(300.0, rel=0.15)
    assert report["throughput"] == pytest.approx(report["offered"], rel=0.05)


def test_the_table_shows_every_policy_side_by_side_and_what_each_entry_did() -> None:
    output = simulate("--devices", UNEQUAL, "--rows", "2000")

    policies = ["FASTEST_COMPLETION", "DEVICE_PRIORITY", "ROUND_ROBIN", "LEAST_OUTSTANDING"]
    assert [policy for policy in policies if policy in output] == policies
    assert "sim/SIM#11" in output


def test_faults_are_part_of_the_rehearsal_and_of_its_bound() -> None:
    arguments = ["--devices", "SIM*4?ms=10", "--rows", "4000", "--json"]

    slowed = json.loads(simulate(*arguments, "--slow-down", "SIM#3@50%=0.25"))
    dying = json.loads(simulate(*arguments, "--die", "50", "--return", "50"))

    assert slowed["bound_s"] == pytest.approx(5.0 + 2000 / 325)
    assert dying["bound_s"] > 10.0
    assert (dying["lost"], dying["duplicated"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "CPU", "--rows", "5"], "only simulated devices can be rehearsed"),
        (["--devices", "SIM", "--rows", "5"], "say how long a row takes"),
        (["--devices", "SIM?ms=0", "--rows", "5"], "say how long a row takes"),
        (["--devices", "SIM?ms=-4", "--rows", "5"], "ms is a number from 0 up"),
        (["--devices", "SIM?ms=1&trouble=/tmp/t", "--rows", "5"], "a simulation reads no file of troubles"),
        (["--devices", "SIM?ms=1"], "give either --rows N or --requests RATE; nothing was simulated"),
        (["--devices", "SIM?ms=1", "--rows", "-5"], "--rows must be above 0, got -5; nothing was simulated"),
        (["--devices", "SIM?ms=1", "--requests", "nan"], "--requests must be above 0, got nan"),
        (["--devices", "SIM?ms=1", "--rows", "5", "--round-trip-ms", "-1"], "--round-trip-ms must be 0 or more"),
        (["--devices", "SIM?ms=1", "--rows", "5", "--die", "101"], "--die must be from 0 to 100"),
        (
            ["--devices", "SIM?ms=1", "--rows", "5", "--policy", "best"],
            "policy 'best' is not known; legal are DEV",
        ),
        (
            ["--devices", "SIM?ms=1", "--rows", "5", "--slow-down", "SIM#0"],
            "--slow-down 'SIM#0' must read SIM#NUMB",
        ),
        (["--devices", "SIM?ms=1", "--rows", "5", "--slow-down", "SIM#1@1s=0"], "there are SIM#0 to SIM#0"),
    ],
)
def test_bad_arguments_get_one_clear_error(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        simulate(*arguments)

    assert message in str(error.value)
    assert error.value.exit_code == 2
