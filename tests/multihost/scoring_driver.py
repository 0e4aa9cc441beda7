"""Runs one scoring job on the bench's head and prints, as JSON lines, what its driver knows at every moment.

Run as ``python -m tests.multihost.scoring_driver JOB``; JOB is the JSON of a ``loads.JobOnHosts``.  The lines are
the driver's own ledger: what a test needs to show that a replica held work when something was done to it.
"""

import json
import sys
import time
from typing import Any

from ovray import digits
from ovray.devices.records import Plan
from ovray.driver.job import Progress
from ovray.driver.placement import PlacementOptions
from ovray.errors import OvrayError
from ovray.scoring.on_error import ErrorOptions
from ovray.scoring.options import ScoreOptions
from ovray.scoring.row_plan import RowOptions
from ovray.scoring.running import Stage
from ovray.scoring.score import run
from ovray.scoring.user_functions import find_function

#: Lines come no more often than this.
EVERY_S = 0.02


class Teller:
    """Prints what a watcher is told."""

    def __init__(self) -> None:
        self._told_s = 0.0

    def watch(self, told: Stage | Plan | Progress) -> None:
        now_s = time.monotonic()
        if isinstance(told, Progress) and now_s - self._told_s >= EVERY_S:
            self._told_s = now_s
            say(at_s=now_s, standing=standing(told))


def standing(told: Progress) -> dict[str, Any]:
    return {
        "done": told.rows_done,
        "starting": list(told.starting),
        "counters": told.snapshot.counters,
        "replicas": {
            replica.id: {
                "state": replica.state.value,
                "stalled": replica.is_stalled,
                "outstanding": replica.chunks_outstanding,
                "done": replica.rows_done,
            }
            for replica in told.snapshot.replicas
        },
    }


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def main() -> int:
    job = json.loads(sys.argv[1])
    options = ScoreOptions(
        rows=RowOptions(
            batch_size=job["batch_size"],
            preprocess=None if job["preprocess"] is None else find_function("--preprocess", job["preprocess"]),
        ),
        placement=PlacementOptions.parse(
            devices=job["devices"],
            hint="THROUGHPUT",
            precision=None,
            share_cores=False,
            lease_timeout_s=30.0,
            replica_timeout_s=job["replica_timeout_s"],
        ),
        errors=ErrorOptions.parse(on_error=job["on_error"], max_errors=None),
        address=job["address"],
        commit_every_s=job["commit_every_s"],
    )
    try:
        report = run(digits.model_file(), [job["input"]], job["output"], options, Teller().watch)
    except KeyboardInterrupt:
        say(at_s=time.monotonic(), error="interrupted", kind="KeyboardInterrupt")
        return 130
    except OvrayError as error:
        say(at_s=time.monotonic(), error=str(error), kind=type(error).__name__)
        return 1
    say(at_s=time.monotonic(), report={**report.to_json(), "warnings": report.warnings})
    return 0


if __name__ == "__main__":
    sys.exit(main())
