"""A job that begins on a small head, and the node that Ray's autoscaler adds because the job asked for it."""

import os
import sys
from collections.abc import Iterator

import pytest

from ovray import digits
from tests.integration.scoring_job import write_numbered_digits
from tests.multihost import hosts
from tests.multihost.autoscaled import AutoscaledHead
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="head and node need a core each"),
]

#: Keeps the job going until the node is there, and its replicas answering.
PREPARE = """
import os, time

def with_leisure(columns):
    if not os.path.exists({told!r}):
        time.sleep(0.02 * len(columns["pixels"]))
    return {{"pixels": columns["pixels"]}}
"""

ROWS = 20_000


@pytest.fixture
def head() -> Iterator[AutoscaledHead]:
    reason = hosts.why_not()
    if reason is not None:
        pytest.skip(f"no test over several hosts: {reason}")
    head = AutoscaledHead(cpus=1, max_workers=3)
    try:
        yield head
    finally:
        head.close()


def test_a_node_that_a_job_asked_for_comes_and_works_and_is_asked_for_no_more(head: AutoscaledHead) -> None:
    write_numbered_digits(head.folder / "in.parquet", rows=ROWS)
    (head.folder / "prepare.py").write_text(PREPARE.format(told=str(head.folder / "told")))
    printed = head.folder / "job"
    command = f"""
import os, sys
os.chdir({str(head.folder)!r})
sys.path.insert(0, "")
from ovray.cli.main import main
sys.argv = ["ovray", "score", {str(digits.model_file())!r}, "in.parquet", "-o", "out", "--devices", "CPU",
    "--address", {head.address!r}, "--preprocess", "prepare:with_leisure", "--commit-every", "0.02",
    "--batch-size", "32", "--autoscale", "--max-replicas", "2"]
main()
"""
    job = head.start([sys.executable, "-c", command], printed)

    def said(text: str) -> bool:
        assert job.poll() is None, (printed.read_text(), printed.with_suffix(".err").read_text())
        return text in printed.read_text()

    assert wait_until(lambda: said("less is free than was asked for")), printed.read_text()
    assert wait_until(lambda: head.announced()), printed.read_text()
    assert head.announced() == [{"CPU": 1.0}, {"CPU": 1}]
    assert wait_until(lambda: head.nodes() == 2)
    # Ray has one name for both, so the one that came goes by its id.
    assert wait_until(lambda: said("00001/CPU.0#0: ready")), printed.read_text()
    assert head.nodes() == 2  # and not one node more

    (head.folder / "told").touch()
    assert job.wait(hosts.DEADLINE_S) == 0, printed.with_suffix(".err").read_text()
    assert head.announced() == []
    assert wait_until(lambda: head.nodes() == 1), "the node that nobody needs any more is still there"
