"""The same work by Ray Data: ``map_batches`` with an actor class that holds a compiled model."""

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import ray
import ray.data

from tests.benchmarks.one_process import Inference
from tests.benchmarks.works import Work, results_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Says how Ray Data is to go about it."""

    actors: int
    #: That each actor claims.  All of the machine's would leave none to the tasks that read: they wait forever.
    cpus: float
    #: Of OpenVINO, in each actor.
    threads: int
    batch_size: int

    def __str__(self) -> str:
        actors = f"{self.actors} actor{'s' * (self.actors != 1)}"
        return f"Ray Data, {actors}, {self.threads} threads, {self.batch_size:,} rows"


def settings(work: Work) -> tuple[Setting, ...]:
    """Returns what people would try: one actor with every core, or several; small and large batches."""
    cores = len(os.sched_getaffinity(0))
    small, large = (64, 128) if work.name == "squeezenet" else (16_384, 131_072)
    several = max(2, cores // 2)
    one = Setting(actors=1, cpus=cores / 2, threads=cores, batch_size=large)
    each = (cores / 2) / several
    return (
        one,
        Setting(actors=several, cpus=each, threads=max(1, cores // several), batch_size=large),
        Setting(actors=several, cpus=each, threads=max(1, cores // several), batch_size=small),
    )


class _Scorer:
    """Is what runs in an actor; leaves a file that says when it was ready."""

    def __init__(self, work: Work, threads: int, stamps: Path) -> None:
        # The CPU plugin shares a small machine out by its own measure, whatever an actor claims from Ray.
        self._infer = Inference(work.model, work.script_batch_rows, {"INFERENCE_NUM_THREADS": threads})
        (stamps / uuid.uuid4().hex).write_text(repr(time.time()))

    def __call__(self, table: pa.Table) -> pa.Table:
        return results_of(table, self._infer(table))


def rate_of_ray_data(work: Work, output: Path, setting: Setting) -> float:
    """Scores the files; returns rows per second from when the first actor is ready."""
    stamps = output.with_name(f"{output.name}-stamps")
    stamps.mkdir()
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    scored = ray.data.read_parquet(str(work.data)).map_batches(
        _Scorer,
        fn_constructor_kwargs={"work": work, "threads": setting.threads, "stamps": stamps},
        batch_size=setting.batch_size,
        batch_format="pyarrow",
        num_cpus=setting.cpus,
        compute=ray.data.ActorPoolStrategy(size=setting.actors),
    )
    scored.write_parquet(str(output))
    ended_s = time.time()
    rows = ray.data.read_parquet(str(output)).count()
    ray.shutdown()
    if rows != work.rows:
        raise AssertionError(f"{rows:,} rows were written, not {work.rows:,}")
    return work.rows / (ended_s - min(float(stamp.read_text()) for stamp in stamps.iterdir()))
