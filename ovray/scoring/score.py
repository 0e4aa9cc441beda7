"""Scores a data set: checks all that can be checked, starts replicas, has every row done, reports.

Here the rooms meet; each step is decided in its own.  May not enter: printing, the command line.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import openvino as ov
import pandas as pd

from ovray.core.events import MAX_BACKUPS, JobSubmitted, Poison
from ovray.core.scheduler import Scheduler
from ovray.devices.records import CoreSharing, Plan, ReplicaSpec
from ovray.driver.job import JOB, Commit, JobDriver, Outcome, Progress
from ovray.driver.messages import ReplicaStart
from ovray.driver.newcomers import upkeep_of
from ovray.driver.placement import PlacementOptions, place
from ovray.driver.session import ray_session
from ovray.driver.transport import Inbox, RayTransport
from ovray.errors import ConfigError
from ovray.replica.model import pack, read_model, with_plain_types
from ovray.replica.properties import compile_properties
from ovray.replica.workload import Workload
from ovray.scoring.batching import BatchSize
from ovray.scoring.chunk import Chunk, ScoringWork
from ovray.scoring.dataset import DataSet, name_rows
from ovray.scoring.done_rows import count
from ovray.scoring.error_tally import ErrorTally
from ovray.scoring.files import find_files
from ovray.scoring.folder_lock import open_folder
from ovray.scoring.inspection import inspect_all, inspects_here
from ovray.scoring.job_record import describe_job
from ovray.scoring.on_error import ErrorOptions, OnError
from ovray.scoring.preparation import GraphSteps, PerChannel, Size
from ovray.scoring.recording import Recording, recorded
from ovray.scoring.reduction import Labels, ResultOptions
from ovray.scoring.report import ScoreReport
from ovray.scoring.result_formats import ResultFormat, check_columns
from ovray.scoring.row_plan import RowOptions, RowPlan, plan_rows
from ovray.scoring.settling import settle_folder
from ovray.scoring.taking_up import Earlier, TakenUp, take_up
from ovray.scoring.user_functions import Function, find_function

#: A chunk is one part, and a replica has two in work: each may take this share of the time between two parts,
#: which leaves the other half to a rate that was learnt wrong.
CHUNK_SHARE = 0.5

PathOrUrl = str | os.PathLike[str]

REPLICA_COLUMNS = ("id", "host", "device", "pid", "cpus", "nireq", "rows", "busy_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """Says how a data set is to be scored; ``score`` documents each."""

    rows: RowOptions = field(default_factory=RowOptions)
    errors: ErrorOptions = field(default_factory=ErrorOptions)
    config: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    result_format: ResultFormat = ResultFormat.PARQUET
    earlier: Earlier = Earlier.KEEP
    commit_every_s: float = 10.0
    max_backups: int = MAX_BACKUPS
    #: Where the page about the run goes; ``None`` writes none.
    report: PathOrUrl | None = None
    placement: PlacementOptions = field(default_factory=PlacementOptions)
    address: str | None = None

    @property
    def changing_results(self) -> dict[str, object]:
        """The options that a job must not change between its runs, beside those that show in its columns.

        Those about its files must stay, too: one folder, one kind of files.
        """
        return {
            "--config": self.config,
            "--precision": self.placement.precision,
            "--limit": self.limit,
            "--format": None if self.result_format is ResultFormat.PARQUET else self.result_format.value,
            **self.rows.changing_results,
        }

    @property
    def as_text(self) -> dict[str, str]:
        """What was given, by flag, and what always counts."""
        given = {
            "--devices": self.placement.devices,
            "--hint": self.placement.hint.value,
            "--batch-size": self.rows.batch_size,
            "--commit-every": f"{self.commit_every_s:g}",
            "--no-backup": "yes" if self.max_backups == 0 else None,
            "--share-cores": "yes" if self.placement.sharing is CoreSharing.SHARED else None,
            "--address": self.address,
            **self.changing_results,
        }
        return {flag: str(value) for flag, value in given.items() if value not in (None, {}, ())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Tells a watcher what goes on before rows are scored."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Tells a watcher how many rows an earlier run had done, where it had some."""

    rows: int
    rows_total: int


#: Where an earlier run had done every row.
NOTHING_DONE = (Plan(replicas=()), Outcome(commits=(), run_s=0.0, specs=(), reports={}, failures={}))

News = Stage | Resumed | Plan | Progress
Watch = Callable[[News], None]


def score(  # noqa: PLR0913 (the public face: every option has its name)
    model: PathOrUrl | ov.Model,
    inputs: PathOrUrl | Sequence[PathOrUrl],
    *,
    output: PathOrUrl,
    devices: str = "MULTI",
    input: str | Sequence[str] = (),
    keep: str | Sequence[str] | None = None,
    layout: str | None = None,
    resize: Size | None = None,
    mean: PerChannel | None = None,
    scale: PerChannel | None = None,
    color: str | None = None,
    outputs: str | Sequence[str] | None = None,
    top_k: int | None = None,
    argmax: bool = False,
    labels: Labels | None = None,
    dtype: str | None = None,
    format: str = ResultFormat.PARQUET.value,
    rows_per_file: int | None = None,
    preprocess: str | Function | None = None,
    postprocess: str | Function | None = None,
    hint: str = "THROUGHPUT",
    batch_size: BatchSize = "auto",
    config: Mapping[str, str] | None = None,
    precision: str | None = None,
    address: str | None = None,
    limit: int | None = None,
    restart: bool = False,
    on_error: str = ErrorOptions().on_error.value,
    max_errors: int | None = None,
    commit_every_s: float = ScoreOptions().commit_every_s,
    max_backups: int = MAX_BACKUPS,
    report: PathOrUrl | None = None,
    share_cores: bool = False,
    lease_timeout_s: float = PlacementOptions().lease_timeout_s,
    max_replicas: int | None = None,
    replica_timeout_s: float = 30.0,
) -> ScoreReport:
    """Scores every row of some files and writes the results as a folder of files.

    The folder is the record of what is done: the same call again, after a kill at whatever moment, scores the rows
    that are missing, and on a finished folder does nothing.

    Args:
        model: a file that OpenVINO reads, or a model in memory.
        inputs: data files, folders, globs and URLs that pyarrow opens; their rows count in this order.  Of
            pictures, each is a row, with the columns ``path`` and ``image``.
        output: the folder for the results; new, empty, or with results of this same job.
        devices: device string; ``MULTI`` is every device of the cluster.
        input: which column feeds which input: ``"COL"``, ``"NAME=COL"``, ``"pixel_*"``.
        keep: columns carried over; ``None`` keeps every column that is not an input.
        layout: how the values of pictures lie in the data, ``NHWC`` or ``NCHW``; ``None`` is as in the model.
        resize: ``"HEIGHTxWIDTH"`` or ``(height, width)`` that pictures get, in the model's graph; picture files,
            which may differ in size, get it while they are read, with the same numbers.
        mean: one number, or one for each channel as the model sees them, taken from the values in the graph.
        scale: the same, by which the values are then divided.
        color: ``BGR2RGB`` or ``RGB2BGR``.
        outputs: the model's outputs that are wanted; ``None`` means all.
        top_k: gives the classes and scores of the ``top_k`` highest scores instead of all scores.
        argmax: gives the class of the highest score instead of all scores.
        labels: a file with the name of one class a line, or the names; adds the names of the classes found.
        dtype: ``float16`` stores results that are floats in half precision.
        format: of the files in ``output``: ``parquet``, ``csv`` (lists become JSON) or ``arrow``.
        rows_per_file: the most rows that one file holds; files end at its multiples.
        preprocess: ``"module:function"`` or a function: gets a dict of column name to array (those of ``input``,
            by default all), gives a dict of input name to array with as many rows.  Tried on the first rows before
            anything starts; runs in the replicas, on two threads at once.
        postprocess: the same for results: gets the outputs by name, gives columns.  Tried on zeros.
        hint: OpenVINO's performance hint, ``THROUGHPUT``, ``LATENCY`` or ``CUMULATIVE_THROUGHPUT``.
        batch_size: rows in one inference; ``"auto"`` chooses from the size of a row.
        config: OpenVINO properties for every replica.
        precision: ``f32``, ``f16`` or ``bf16`` for every replica; ``None`` leaves it to each device.
        address: ``HOST:PORT`` of a Ray head; ``None`` uses the Ray at hand, or starts one and stops it again.
        limit: scores the first rows only.
        restart: deletes the results that the folder holds, of whatever job, and begins anew.
        on_error: ``"raise"`` ends the job at the first row that cannot be read, prepared, inferred, finished or
            written, with an error that names it; ``"record"`` writes such rows to ``_errors`` in ``output``, with
            ``file``, ``row``, ``stage``, ``message`` and the kept columns, and goes on.
        max_errors: more rows than this in ``_errors`` end the job; ``None`` allows any number.
        commit_every_s: at least so often each replica completes a part; what a kill costs at most.
        max_backups: how many copies of the last chunks may run beside the originals, on replicas that have nothing
            else to do; 0 turns copies off.
        report: an ``.html`` file for a page about the run: speed over time, what each replica did when, errors.
        share_cores: lets replicas run on cores that others hold.
        lease_timeout_s: seconds to wait for cores that others hold.
        max_replicas: at most so many replicas, those on hosts that join later included; ``None`` is all.
        replica_timeout_s: a replica, or the cluster's head, that is silent for so long is given up.

    Returns:
        The figures; the rows are in ``output``: kept columns, then one column for each output of the model.

    Raises:
        ConfigError: something that you can mend, also that another driver has the folder or that it holds
            results of another job; nothing was scored and nothing is left behind.
        DataError: rows could not be read, prepared, inferred, finished or written, or more than ``max_errors``.
        ReplicaError: no replica was left.

    Example:
        >>> from ovray import digits
        >>> report = score(digits.model_file(), [digits.held_out_file()], output="scores")  # doctest: +SKIP
        >>> report.rows  # doctest: +SKIP
        540
    """
    options = ScoreOptions(
        rows=RowOptions(
            inputs=(input,) if isinstance(input, str) else tuple(input),
            keep=(keep,) if isinstance(keep, str) else None if keep is None else tuple(keep),
            batch_size=batch_size,
            steps=GraphSteps.parse(layout=layout, resize=resize, mean=mean, scale=scale, color=color),
            preprocess=None if preprocess is None else find_function("--preprocess", preprocess),
            postprocess=None if postprocess is None else find_function("--postprocess", postprocess),
            results=ResultOptions.parse(outputs=outputs, top_k=top_k, argmax=argmax, labels=labels, dtype=dtype),
            rows_per_file=rows_per_file,
        ),
        errors=ErrorOptions.parse(on_error=on_error, max_errors=max_errors),
        config=config or {},
        limit=limit,
        result_format=ResultFormat.parse(format),
        earlier=Earlier.DELETE if restart else Earlier.KEEP,
        commit_every_s=commit_every_s,
        max_backups=max_backups,
        report=report,
        placement=PlacementOptions.parse(
            devices=devices,
            hint=hint,
            precision=precision,
            share_cores=share_cores,
            lease_timeout_s=lease_timeout_s,
            max_replicas=max_replicas,
            replica_timeout_s=replica_timeout_s,
        ),
        address=address,
    )
    paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    return run(model, paths, output, options, watch=lambda _: None)


def run(
    model: PathOrUrl | ov.Model,
    inputs: Sequence[PathOrUrl],
    output: PathOrUrl,
    options: ScoreOptions,
    watch: Watch,
) -> ScoreReport:
    """Does what ``score`` documents, and tells ``watch`` how it goes."""
    with recorded(options.report, output) as recording:
        return _run(model, inputs, output, options, watch, recording)


def _run(
    model: PathOrUrl | ov.Model,
    inputs: Sequence[PathOrUrl],
    output: PathOrUrl,
    options: ScoreOptions,
    watch: Watch,
    recording: Recording,
) -> ScoreReport:
    began_s = time.monotonic()
    _check_numbers(options)
    watch(Stage(text="reading the model and the inputs"))
    graph = with_plain_types(read_model(model))
    files = find_files(inputs)
    with ExitStack() as stack:
        if not inspects_here(files):
            stack.enter_context(ray_session(options.address))
        found = inspect_all(files, rows_wanted=options.limit, on_error=options.errors.on_error)
        data = DataSet(found, limit=options.limit)
        rows = plan_rows(graph, data, options.rows, options.errors)
        check_columns(options.result_format, rows.result_schema)
        folder = stack.enter_context(open_folder(output, options.result_format))
        workload = Workload(model=pack(graph), batch_rows=rows.batch_rows)
        job = describe_job(workload.model, data, rows, options.changing_results)
        taken = stack.enter_context(take_up(folder, job, data.rows, options.earlier))
        _tally(taken, options).check()
        plan, outcome = NOTHING_DONE
        if taken.done:
            watch(Resumed(rows=count(taken.done), rows_total=data.rows))
        if taken.missing:
            recording.describe(model, inputs, job, data, taken, options.as_text)
            plan, outcome = _score(workload, rows, data, taken, options, watch, recording)
        commits = [(commit.start, commit.stop) for commit in outcome.commits]
        errors = settle_folder(taken.folder, [*taken.done, *commits], data.rows)
    return _report(plan, outcome, taken, errors, time.monotonic() - began_s)


def _check_numbers(options: ScoreOptions) -> None:
    if options.limit is not None and (not isinstance(options.limit, int) or options.limit < 1):
        raise ConfigError(f"--limit {options.limit!r}: give a whole number from 1, or leave it out for all rows")
    batch_size = options.rows.batch_size
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise ConfigError(f"--batch-size {batch_size!r}: give a whole number from 1, or auto")
    file_rows = options.rows.rows_per_file
    if file_rows is not None and (not isinstance(file_rows, int) or file_rows < 1):
        raise ConfigError(f"--rows-per-file {file_rows!r}: give a whole number from 1, or leave it out")
    if not options.commit_every_s > 0:
        raise ConfigError(f"--commit-every {options.commit_every_s:g}: give seconds, more than 0")
    if not isinstance(options.max_backups, int) or options.max_backups < 0:
        raise ConfigError(f"max_backups={options.max_backups!r}: give a number of copies, 0 for none")


def _score(  # noqa: PLR0913 (what the run has found out so far)
    workload: Workload,
    rows: RowPlan,
    data: DataSet,
    taken: TakenUp,
    options: ScoreOptions,
    watch: Watch,
    recording: Recording,
) -> tuple[Plan, Outcome]:
    """Starts replicas and has the missing rows done."""
    tally = _tally(taken, options)
    watch(Stage(text="connecting to Ray"))
    with ray_session(options.address):
        watch(Stage(text="placing replicas"))
        placed = place(options.placement)
        plan = recording.plan = placed.plan
        watch(plan)
        inbox: Inbox = Inbox()
        transport = RayTransport(
            inbox,
            owner=f"ovray score to {taken.folder.name}, driver pid {os.getpid()}",
            lease_timeout_s=options.placement.lease_timeout_s,
        )
        transport.put(workload, ScoringWork(rows=rows, folder=taken.folder, errors=options.errors))

        def start_of(spec: ReplicaSpec) -> ReplicaStart:
            return ReplicaStart(spec=spec, properties=compile_properties(spec, options.config))

        job = JobSubmitted(
            job=JOB,
            ranges=taken.missing,
            cheap_cuts=data.cheap_cuts,
            min_chunk_rows=rows.batch_rows,
            max_chunk_rows=rows.max_chunk_rows,
            cut_multiple=options.rows.rows_per_file,
            max_chunk_s=CHUNK_SHARE * options.commit_every_s,
            max_backups=options.max_backups,
            poison=Poison.PUT_ASIDE if options.errors.on_error is OnError.RECORD else Poison.FAIL,
        )
        upkeep = upkeep_of(options.placement, placed.found, start_of, inbox)
        driver = JobDriver(Scheduler(), transport, inbox, observer=recording.journal.note, upkeep=upkeep)
        recording.replicas = driver.replicas

        def watch_errors(news: Progress) -> None:
            watch(replace(news, errors=tally.count))

        return plan, driver.run(map(start_of, plan.replicas), job, _JobRows(data, tally), watch_errors)


@dataclass(frozen=True, slots=True)
class _JobRows:
    """Is what the driver asks about the rows of a data set; see ``driver.job.JobRows``."""

    data: DataSet
    tally: ErrorTally

    def piece(self, start: int, stop: int, verdict: str | None) -> Chunk:
        return Chunk(start=start, stop=stop, slices=self.data.slices(start, stop), verdict=verdict)

    def name(self, start: int, stop: int) -> str:
        return name_rows(self.data.slices(start, stop))

    def count(self, commit: Commit) -> None:
        self.tally.add(commit.result.errors, commit.result.first_error)


def _tally(taken: TakenUp, options: ScoreOptions) -> ErrorTally:
    return ErrorTally(count=taken.errors, first=taken.first_error, most=options.errors.max_errors)


def _report(plan: Plan, outcome: Outcome, taken: TakenUp, errors: int, seconds: float) -> ScoreReport:
    table = pd.DataFrame(
        [_replica_row(spec, outcome) for spec in outcome.specs if spec.id in outcome.reports],
        columns=list(REPLICA_COLUMNS),
    )
    failures = tuple(
        f"{replica} did not take part to the end: {error}" for replica, error in outcome.failures.items()
    )
    resumed_rows = count(taken.done) - taken.errors
    rows = count(taken.missing) - (errors - taken.errors)
    return ScoreReport(
        rows=resumed_rows + rows,
        seconds=seconds,
        run_seconds=outcome.run_s,
        rows_per_s=rows / outcome.run_s if outcome.run_s > 0 else 0.0,
        errors=errors,
        resumed_rows=resumed_rows,
        output=taken.folder.name,
        replicas=table,
        warnings=(*plan.warnings, *failures),
    )


def _replica_row(spec: ReplicaSpec, outcome: Outcome) -> dict[str, object]:
    reports = [commit.result for commit in outcome.commits if commit.replica == spec.id]
    return {
        "id": spec.id,
        "host": spec.host,
        "device": spec.device,
        "pid": outcome.reports[spec.id].pid,
        "cpus": spec.cpus,
        "nireq": outcome.reports[spec.id].engine.nireq,
        "rows": sum(report.rows for report in reports),
        "busy_s": max((report.engine_busy_s for report in reports), default=0.0),
    }
