"""Looks into all input files before anything is scored: few of them here, many of them all over the cluster.

May not enter: what is found in a file (inputs.py).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayTaskError

from ovray.errors import ConfigError, DataError
from ovray.scoring.files import file_info
from ovray.scoring.inputs import inspect
from ovray.scoring.on_error import OnError
from ovray.scoring.records import FileRef, InputFile

#: Starting a Ray worker takes as long as reading so many footers here, or so much text.
FILES_HERE = 256
PASSED_BYTES_HERE = 256 * 1024 * 1024

#: Threads hide the latency of object stores.
THREADS = 16

#: Files that one Ray task looks into: enough to be worth its message.
FILES_PER_TASK = 64

#: If no task ends for this long, the files' store is taken to hang.
SILENCE_TIMEOUT_S = 600.0


def inspects_here(files: Sequence[FileRef]) -> bool:
    """Says whether the files are looked into by this process, so that no Ray is needed for it yet."""
    opened = [ref for ref in files if ref.pictures is None]
    if len(opened) > FILES_HERE:
        return False
    passed = [ref for ref in opened if ref.format.takes_a_pass]
    return sum(file_info(ref).size or 0 for ref in passed) <= PASSED_BYTES_HERE


def inspect_all(
    files: Sequence[FileRef], *, rows_wanted: int | None, on_error: OnError = OnError.RAISE
) -> list[InputFile]:
    """Returns what the files hold, in their order; see ``inspect``.

    Raises:
        ConfigError: the first file in order that is damaged or empty; the message names it.
        DataError: the files' store does not answer.
    """
    if inspects_here(files):
        return _inspect_some(files, rows_wanted, on_error)
    return _inspect_on_cluster(files, rows_wanted, on_error)


def _inspect_some(files: Sequence[FileRef], rows_wanted: int | None, on_error: OnError) -> list[InputFile]:
    with ThreadPoolExecutor(max_workers=THREADS) as threads:
        return list(threads.map(partial(inspect, rows_wanted=rows_wanted, on_error=on_error), files))


def _inspect_on_cluster(files: Sequence[FileRef], rows_wanted: int | None, on_error: OnError) -> list[InputFile]:
    # CPUs are not claimed: this is over before replicas claim theirs, and mostly waits for storage.
    task: Any = ray.remote(num_cpus=0, scheduling_strategy="SPREAD", max_retries=2)(_inspect_some)
    groups = [files[at : at + FILES_PER_TASK] for at in range(0, len(files), FILES_PER_TASK)]
    references = [task.remote(group, rows_wanted, on_error) for group in groups]
    waiting = list(references)
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=SILENCE_TIMEOUT_S)
        if not ready:
            raise DataError(
                f"{len(waiting)} of {len(groups)} groups of input files could not be looked into for"
                f" {SILENCE_TIMEOUT_S:g} s; see whether every host can reach them"
            )
    return [found for reference in references for found in _result_of(reference)]


def _result_of(reference: Any) -> list[InputFile]:
    try:
        found: list[InputFile] = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, ConfigError):
            raise error.cause from None
        raise
    return found
