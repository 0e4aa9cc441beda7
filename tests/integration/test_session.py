"""Connecting to clusters that run on their own, as `ray start` leaves them, with tokens and without."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray

from ovray.driver.session import Origin, ray_session
from ovray.errors import ReplicaError
from tests.integration.a_head import RAY, a_head, environment_without_ray

OVRAY = [sys.executable, "-m", "ovray.cli.main"]


def environment_of(home: Path) -> dict[str, str]:
    """Return an environment whose user keeps their Ray token below ``home``."""
    return {**environment_without_ray(), "HOME": str(home)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Is the home of a user who has a token."""
    home = tmp_path_factory.mktemp("home")
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment_of(home), check=True, timeout=120)
    return home


@pytest.fixture(scope="module")
def head(home: Path) -> Iterator[str]:
    """Runs a head node that asks for that token."""
    with a_head({**environment_of(home), "RAY_AUTH_MODE": "token"}, num_cpus=2) as address:
        yield address


def run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OVRAY, *command], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def wait_for(head: str, environment: Mapping[str, str]) -> None:
    """Ask until the head answers."""
    end_s = time.monotonic() + 180
    while run(["devices", "--address", head], environment).returncode:
        assert time.monotonic() < end_s, "the head did not come up"


def test_a_cluster_on_this_machine_is_used_with_the_token_of_its_user(head: str, home: Path) -> None:
    wait_for(head, environment_of(home))

    done = run(["demo", "--address", head], environment_of(home))

    assert done.returncode == 0, done.stderr
    assert "accuracy 0.9" in done.stdout


def test_without_its_token_the_cluster_is_not_used_and_the_message_says_what_to_do(
    head: str, home: Path, tmp_path: Path
) -> None:
    wait_for(head, environment_of(home))

    done = run(["demo", "--address", head], environment_of(tmp_path))

    assert done.returncode == 2
    assert "asks for a token" in done.stderr
    assert "~/.ray/auth_token" in done.stderr
    assert done.stderr.count("\n") <= 3


def test_a_cluster_without_tokens_is_used_though_its_user_has_one(home: Path) -> None:
    with a_head({**environment_of(home), "RAY_AUTH_MODE": "disabled"}) as address:
        wait_for(address, environment_of(home))

        done = run(["demo", "--address", address], environment_of(home))

    assert done.returncode == 0, done.stderr
    assert "accuracy 0.9" in done.stdout


def test_a_ray_that_was_not_up_in_time_is_started_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    init, asked = ray.init, []

    def late_at_first(*args: Any, **options: Any) -> Any:
        asked.append(options)
        if len(asked) == 1:
            raise Exception("The current node timed out during startup. This could happen because ...")
        return init(*args, **options)

    monkeypatch.setattr(ray, "init", late_at_first)
    with ray_session("local") as session:
        assert session.origin is Origin.LOCAL
        assert ray.is_initialized()
    assert len(asked) == 2


def test_a_ray_that_is_late_again_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_late(*_: Any, **__: Any) -> Any:
        raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr(ray, "init", is_late)
    with pytest.raises(ReplicaError, match=r"timed out during startup.*try again when"), ray_session("local"):
        raise AssertionError("there is none")
