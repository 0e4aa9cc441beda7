"""A Ray that outlives the drivers of a test: it belongs to a process of its own, and ends with the block."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.processes import running
from tests.waiting import DEADLINE_S

_HEAD = """
import logging, sys, ray
def start():
    ray.init(
        address="local", num_cpus={cpus}, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
try:
    start()
except Exception as error:
    if "timed out during startup" not in str(error):
        raise
    ray.shutdown()  # Ray gives it 30 s, which others on the machine may use up
    start()
print(ray.get_runtime_context().gcs_address)
sys.stdin.readline()
ray.shutdown()
print("ended")
"""


@contextmanager
def a_cluster(cpus: int, **environment: str) -> Iterator[str]:
    """Starts a Ray with so many CPUs in its books, whose replicas see this environment; gives its address."""
    common = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    with running(_HEAD.format(cpus=cpus), **common, **environment) as head:
        yield head.read_line()
        # Asked to, and not killed: Ray's daemons are to end with it.
        head.tell("end")
        assert head.read_line() == "ended"
        head.process.wait(DEADLINE_S)
