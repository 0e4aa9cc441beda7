"""What Prometheus reads from a node whose driver serves requests and scores rows."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovray import digits
from tests.integration.a_scraped_head import ScrapedHead, a_scraped_head
from tests.integration.commands import ran
from tests.integration.processes import running
from tests.waiting import DEADLINE_S, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUN = "metrics-test-1"
REQUESTS = 60
HISTOGRAMS = ("wait", "transport", "inference", "end_to_end")

_DRIVER = """
import json, sys, time
import numpy as np
import ovray as ov
from ovray import digits
from ovray.errors import ReplicaError
from tests.waiting import until

compiled = ov.compile_model(
    digits.model_file(), "MULTI:SIM*2?ms=5", address=sys.argv[1], max_requests=int(sys.argv[2])
)
until(lambda: all(replica.state == "ready" for replica in compiled.replicas))
pixels = np.zeros((1, 64), np.float32)
most = int(sys.argv[2])
rejected = 0
futures = [compiled.submit([pixels]) for _ in range(most)]
while not rejected:  # as long as there is room, one more goes in, and may come too late there
    try:
        futures.append(compiled.submit([pixels], deadline_s=0.001))
    except ReplicaError:
        rejected += 1
for future in futures:
    future.exception()
futures += [compiled.submit([pixels]) for _ in range(most - 1)]
futures.append(compiled.submit([pixels], deadline_s=0.001))
failed = sum(isinstance(future.exception(), ReplicaError) for future in futures)
print(json.dumps({"accepted": len(futures), "rejected": rejected, "failed": failed}))
sys.stdin.readline()
compiled.close()
"""


@pytest.fixture(scope="module")
def head() -> Iterator[ScrapedHead]:
    with a_scraped_head(cpus=4) as head:
        yield head


def test_requests_are_counted_to_the_last_one(head: ScrapedHead) -> None:
    where = {"RAY_ADDRESS": head.address, "RAY_AUTH_MODE": "disabled", "OVRAY_RUN_ID": RUN}
    with running(_DRIVER, head.address, str(REQUESTS), **where) as driver:
        told = json.loads(driver.read_line())
        succeeded = told["accepted"] - told["failed"]
        is_shown = wait_until(lambda: head.sum("ray_ovray_requests_succeeded_total") == succeeded, 30)
        # Every second for two seconds: a machine that is busy elsewhere may be late now and then.
        are_ready = wait_until(lambda: head.sum("ray_ovray_replicas", state="ready") == 2, 30)
        now = {"ray_ovray_queue_length", "ray_ovray_outstanding", "ray_ovray_run_info"}
        is_now = wait_until(lambda: now <= {sample.name for sample in head.scrape()}, 30)
        driver.tell("end")
        driver.process.wait(DEADLINE_S)

    assert is_shown
    assert told["accepted"] >= 2 * REQUESTS
    assert told["rejected"] >= 1
    assert told["failed"] >= 1
    for name in ("accepted", "rejected", "failed"):
        assert head.sum(f"ray_ovray_requests_{name}_total", work="requests") == told[name]
    assert head.sum("ray_ovray_rows_total", work="requests") == succeeded
    assert is_now
    assert are_ready
    assert head.sum("ray_ovray_batch_rows_count_total") == succeeded
    assert head.sum("ray_ovray_envelope_requests_sum_total") == succeeded


def test_times_have_the_buckets_of_openvino_model_server(head: ScrapedHead) -> None:
    bounds = [math.floor(10 * 1.8**i) / 1e6 for i in range(33)]
    samples = head.scrape()

    for name in HISTOGRAMS:
        buckets: dict[str, dict[float, float]] = defaultdict(dict)
        for sample in samples:
            if sample.name == f"ray_ovray_{name}_seconds_bucket_total" and sample.labels["work"] == "requests":
                buckets[sample.labels["replica"]][float(sample.labels["le"])] = sample.value
        assert len(buckets) == 2, name
        for replica, counts in buckets.items():
            # A bucket that is still empty has no series yet; those that there are never go down.
            assert [le for le in sorted(counts) if le < math.inf] == pytest.approx(
                bounds[len(bounds) + 1 - len(counts) :], rel=1e-5
            )
            in_order = [counts[le] for le in sorted(counts)]
            assert in_order == sorted(in_order)
            succeeded = head.sum("ray_ovray_requests_succeeded_total", replica=replica, work="requests")
            assert counts[math.inf] == succeeded
            assert head.sum(f"ray_ovray_{name}_seconds_count_total", replica=replica) == succeeded
    # Simulated devices need 5 ms for each, or longer for several that were joined.
    mean_s = head.sum("ray_ovray_inference_seconds_sum_total") / head.sum(
        "ray_ovray_inference_seconds_count_total"
    )
    assert 0.004 < mean_s < 1.0


def test_figures_say_whose_they_are(head: ScrapedHead) -> None:
    ended = [sample for sample in head.scrape() if sample.name == "ray_ovray_requests_succeeded_total"]

    for sample in ended:
        labels = sample.labels
        assert labels["replica"].startswith(f"{labels['host']}/{labels['device']}#")
        assert labels["model"]
        assert labels["work"] == "requests"
    assert len({sample.labels["replica"] for sample in ended}) == 2


def test_rows_of_a_job_are_counted_to_the_last_one(head: ScrapedHead, tmp_path: Path) -> None:
    command = ran(
        tmp_path,
        *("score", digits.model_file(), digits.held_out_file(), "--output", "scores"),
        *("--devices", "SIM*2?ms=0.2", "--address", head.address, "--json"),
        RAY_AUTH_MODE="disabled",
    )
    assert command.process.returncode == 0, command.stderr

    assert wait_until(lambda: head.sum("ray_ovray_rows_total", work="chunks") >= 540, 30)
    assert head.sum("ray_ovray_rows_total", work="chunks", model="model.xml") == 540
    chunks = head.sum("ray_ovray_requests_succeeded_total", work="chunks")
    assert chunks == len([*Path(tmp_path, "scores").glob("part-*")])
    for name in ("transport", "inference", "end_to_end"):
        assert head.sum(f"ray_ovray_{name}_seconds_count_total", work="chunks") == chunks
