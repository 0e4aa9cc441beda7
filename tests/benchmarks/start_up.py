"""How long a command takes to its first row, beside what it cannot do without: the start of Ray and a compilation.

Both sides are whole processes, from their launch on, so that what they import counts.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.comparison import SideError
from tests.benchmarks.works import Work
from tests.waiting import wait_until

#: Few, so that the first result file holds the first row and little more.
ROWS = 16

_TIMEOUT_S = 120.0
_LOOK_EVERY_S = 0.005

_BARE = """
import sys
import openvino as ov
import ray
ray.init(address="local", include_dashboard=False, log_to_driver=False)
model = ov.Core().read_model(sys.argv[1])
ov.compile_model(model, "CPU", dict(pair.split("=") for pair in sys.argv[2:]))
print("compiled", flush=True)
"""

_THROUGHPUT = "PERFORMANCE_HINT=THROUGHPUT"


def seconds_to_compile(work: Work, output: Path, cache: Path | None = None) -> float:
    """Returns the seconds until Ray has been started and then the model compiled, in one process."""
    properties = [_THROUGHPUT, *([] if cache is None else [f"CACHE_DIR={cache}"])]
    began_s = time.perf_counter()
    bare = subprocess.Popen(
        [sys.executable, "-c", _BARE, str(work.model), *properties], stdout=subprocess.PIPE, text=True
    )
    assert bare.stdout is not None
    said = bare.stdout.readline()
    ended_s = time.perf_counter()
    bare.communicate(timeout=_TIMEOUT_S)
    if said != "compiled\n":
        raise SideError(f"ended with {bare.returncode}")
    return ended_s - began_s


def seconds_to_first_row(work: Work, output: Path, cache: Path | None = None) -> float:
    """Returns the seconds until ``ovray score`` has a first result file."""
    command = [Path(sys.executable).with_name("ovray"), "score", work.model, work.data, "--output", output]
    options = ["--limit", str(ROWS), "--quiet", *([] if cache is None else ["--config", f"CACHE_DIR={cache}"])]
    began_s = time.perf_counter()
    ovray = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    wait_until(lambda: _has_part(output) or ovray.poll() is not None, _TIMEOUT_S, poll_s=_LOOK_EVERY_S)
    ended_s = time.perf_counter()
    if not _has_part(output):
        if ovray.poll() is not None:
            raise SideError(f"ended with {ovray.returncode}")
        ovray.kill()
        raise SideError(f"no row after {_TIMEOUT_S:g} s")
    ovray.wait(timeout=_TIMEOUT_S)
    return ended_s - began_s


def _has_part(folder: Path) -> bool:
    return folder.is_dir() and any(name.startswith("part-") for name in os.listdir(folder))
