"""Asks the real kernel for a memory policy and reads it back from /proc."""

from pathlib import Path

import pytest

from tests.integration.processes import running

HAS_NUMA = Path("/sys/devices/system/node/node0").is_dir()

#: A thread born before keeps the default, one born after takes over the policy.
BIND = """
import sys, threading
from ovray.replica.memory import bind_memory

print(bind_memory(int(sys.argv[1])))
sys.stdin.readline()
"""


def _policies(pid: int, *, thread: int) -> set[str]:
    lines = Path(f"/proc/{pid}/task/{thread}/numa_maps").read_text().splitlines()
    return {line.split()[1] for line in lines}


@pytest.mark.skipif(not HAS_NUMA, reason="this kernel was built without NUMA")
def test_memory_is_preferred_from_the_node_as_the_kernel_confirms() -> None:
    with running(BIND, "0") as script:
        policy = script.read_line()
        if policy == "first-touch":
            pytest.skip("this container's security profile forbids set_mempolicy")

        assert policy == "preferred:0"
        assert _policies(script.pid, thread=script.pid) == {"prefer:0"}


@pytest.mark.parametrize("node", ["-1", "900", "1024", "100000"])
def test_a_node_that_is_not_there_leaves_first_touch(node: str) -> None:
    with running(BIND, node) as script:
        assert script.read_line() == "first-touch"
