"""Scores a data set: checks all that can be checked, has every row done, and puts results where they are wanted.

Here the rooms meet; each step is decided in its own.  May not enter: printing, the command line.
"""

import inspect
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ovray.core.events import JobSubmitted
from ovray.devices.records import Plan, ReplicaSpec
from ovray.driver.job import AllAtOnce, Commit, Outcome, Progress
from ovray.driver.trace import check_path
from ovray.replica.workload import Workload
from ovray.scoring.delivery import InOrder, PutAway
from ovray.scoring.done_rows import count
from ovray.scoring.error_tally import ErrorTally
from ovray.scoring.flow import Flow
from ovray.scoring.folder_lock import open_folder
from ovray.scoring.given import Given, look_at
from ovray.scoring.iteration import AsTheyCome, iterate
from ovray.scoring.job_record import UNKNOWN, describe_job
from ovray.scoring.options import PathOrUrl, ScoreKeywords, ScoreOptions, parse_options
from ovray.scoring.recording import Recording, recorded, refuse_among_results
from ovray.scoring.report import ScoreReport
from ovray.scoring.result_formats import check_columns
from ovray.scoring.row_plan import RowPlan
from ovray.scoring.running import (
    CHUNK_SHARE,
    ModelLike,
    News,
    Resumed,
    Scoring,
    Stage,
    SupplyOf,
    Watch,
    how_to_cut,
    name_of,
    plan_for,
    run_scoring,
    warnings_of,
)
from ovray.scoring.settling import settle_folder
from ovray.scoring.sinks import AnswerSink, FolderSink
from ovray.scoring.taking_up import TakenUp, take_up

if TYPE_CHECKING:
    import pandas as pd
    import ray.data
    from numpy.typing import NDArray
    from typing_extensions import Unpack

REPLICA_COLUMNS = ("id", "host", "device", "pid", "cpus", "nireq", "rows", "busy_s")

_NOT_KNOWN_AGAIN = "another run would not know {} again: had this one been interrupted, only --restart would help"

#: Where an earlier run had done every row.
NOTHING_DONE = (Plan(replicas=()), Outcome(commits=(), run_s=0.0, specs=(), reports={}, failures={}))

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _spelt_out(function: _Function) -> _Function:
    """Has ``help`` show every option with its default in place of ``**options``."""
    own = [one for one in inspect.signature(function).parameters.values() if one.kind is not one.VAR_KEYWORD]
    options = inspect.signature(parse_options).parameters.values()
    function.__signature__ = inspect.signature(function).replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return function


@overload
def score(
    model: ModelLike, inputs: object, *, output: PathOrUrl, **options: "Unpack[ScoreKeywords]"
) -> ScoreReport: ...
@overload
def score(
    model: ModelLike,
    inputs: "PathOrUrl | Sequence[PathOrUrl] | pd.DataFrame",
    *,
    output: None = None,
    **options: "Unpack[ScoreKeywords]",
) -> "pd.DataFrame": ...
@overload
def score(
    model: ModelLike,
    inputs: "NDArray[Any]",
    *,
    output: None = None,
    **options: "Unpack[ScoreKeywords]",
) -> "NDArray[Any] | dict[str, NDArray[Any]]": ...
@overload
def score(
    model: ModelLike,
    inputs: "Mapping[str, NDArray[Any]]",
    *,
    output: None = None,
    **options: "Unpack[ScoreKeywords]",
) -> "dict[str, NDArray[Any]]": ...
@overload
def score(
    model: ModelLike,
    inputs: "ray.data.Dataset",
    *,
    output: None = None,
    **options: "Unpack[ScoreKeywords]",
) -> "ray.data.Dataset": ...
@overload
def score(
    model: ModelLike,
    inputs: object,
    *,
    output: None = None,
    **options: "Unpack[ScoreKeywords]",
) -> Any: ...
@_spelt_out
def score(
    model: ModelLike, inputs: Any, *, output: PathOrUrl | None = None, **options: "Unpack[ScoreKeywords]"
) -> Any:
    """Scores every row and writes the results as a folder of files, or gives them back.

    A folder is the record of what is done: the same call again, after a kill at whatever moment, scores the rows
    that are missing, and on a finished folder does nothing.  Rows in memory are known again by what they hold;
    those of an iterable or a Dataset are not, so that such a job can only be begun anew.

    Args:
        model: a file that OpenVINO reads, or a model in memory.
        inputs: data files, folders, globs and URLs that pyarrow opens, whose rows count in this order; of
            pictures, each is a row with the columns ``path`` and ``image``.  Or a pandas DataFrame, an Arrow table
            or record batch, an array (column ``array``), a dict of arrays, a ``ray.data.Dataset``; or an iterable
            of any of these but the last, such as a ``pyarrow.RecordBatchReader``.  An iterable is gone through on
            a thread of its own, not much further than rows are scored.
        output: the folder for the results; new, empty, or with results of this same job.  ``None`` gives the
            results back.
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
        commit_every_s: at least so often each replica completes a part; what a kill costs at most.  Half of it is
            the most that the rows of one DataFrame of ``iter_score`` take a replica.
        max_backups: how many copies of the last chunks may run beside the originals, on replicas that have nothing
            else to do; 0 turns copies off.
        report: an ``.html`` file for a page about the run: speed over time, what each replica did when, errors.
        trace: a ``.json`` file for a trace, which Perfetto opens: which replica did which chunk when, and where
            the time went.
        share_cores: lets replicas run on cores that others hold.
        lease_timeout_s: seconds to wait for cores that others hold.
        max_replicas: at most so many replicas, those on hosts that join later included; ``None`` is all.
        replica_timeout_s: a replica, or the cluster's head, that is silent for so long is given up.
        autoscale: tells Ray's autoscaler what is missing of ``max_replicas``, or of what ``devices`` means; hosts
            that it brings get replicas.

    Returns:
        With ``output`` the figures; the rows are in the folder: kept columns, then one column for each output of
        the model.  Without it these columns in the shape of the inputs, which are left as they are: a DataFrame
        with the DataFrame's index; an Arrow table; for an array one of the shape that the model gives, or a dict
        of them where it has several outputs; a dict of arrays; a Dataset, whose blocks stay in Ray's object store.
        Files give a DataFrame, an iterable a list with the results of each batch, a RecordBatchReader a table.

    Raises:
        ConfigError: something that you can mend, also that another driver has the folder or that it holds
            results of another job; nothing was scored and nothing is left behind.
        DataError: rows could not be read, prepared, inferred, finished or written, or more than ``max_errors``.
        ReplicaError: no replica was left.
        Exception: whatever an iterable raised, as it is.

    Example:
        >>> import pandas
        >>> from ovray import digits
        >>> report = ovray.score(digits.model_file(), [digits.held_out_file()], output="scores")
        >>> report.rows
        540
        >>> images = pandas.read_parquet(digits.held_out_file())
        >>> scored = ovray.score(digits.model_file(), images)
        >>> scored.index.equals(images.index)
        True
    """
    asked = parse_options(**options)
    if output is None:
        return _collect(model, inputs, asked)
    return run(model, inputs, output, asked, watch=_nobody)


@_spelt_out
def iter_score(
    model: ModelLike, inputs: Any, *, ordered: bool = True, **options: "Unpack[ScoreKeywords]"
) -> Generator["pd.DataFrame", None, None]:
    """Scores every row and yields the results while others are scored.

    Replicas run ahead of the caller by some tens of megabytes of rows each, and then wait.  They are ended when
    the generator is closed or goes, also by an exception in the loop; ``contextlib.closing`` says when.

    Args:
        model: as for ``score``, as are ``inputs`` and all options; there is no ``output``.
        inputs: where the rows are.
        ordered: yields in the order of rows; else as they are done, which needs less room and is sooner.
        options: those of ``score``.

    Yields:
        DataFrames of some rows each, every row once: kept columns, then one column for each output of the model.
        The index is a DataFrame's own, or the row's number among all; so it says which rows they are.

    Raises:
        As ``score``, from the first ``next`` on.

    Example:
        >>> from ovray import digits
        >>> right = 0
        >>> for scored in ovray.iter_score(digits.model_file(), digits.held_out_file(), outputs=["digit"]):
        ...     right += int((scored["digit"] == scored["label"]).sum())
        >>> right > 500
        True
    """
    asked = parse_options(**options)
    asked.check_for_memory()
    return iterate(model, inputs, asked, InOrder() if ordered else AsTheyCome())


def run(model: ModelLike, inputs: Any, output: PathOrUrl, options: ScoreOptions, watch: Watch) -> ScoreReport:
    """Does what ``score`` documents for a folder, and tells ``watch`` how it goes."""
    if options.trace is not None:
        refuse_among_results("--trace", check_path(options.trace), output)
    with recorded(options.report, output) as recording:
        return _fill_folder(model, inputs, output, options, watch, recording)


def _fill_folder(
    model: ModelLike, inputs: Any, output: PathOrUrl, options: ScoreOptions, watch: Watch, recording: Recording
) -> ScoreReport:
    began_s = time.monotonic()
    options.check()
    watch(Stage(text="reading the model and the inputs"))
    with ExitStack() as stack:
        given = look_at(inputs, options, stack)
        workload, plan = plan_for(model, given, options)
        check_columns(options.result_format, plan.result_schema)
        folder = stack.enter_context(open_folder(output, options.result_format))
        stamps = given.stamps(plan)
        job = describe_job(workload.model, stamps, plan, options.changing_results)
        taken = stack.enter_context(take_up(folder, job, given.source.rows, options.earlier))
        tally = ErrorTally(count=taken.errors, first=taken.first_error, most=options.errors.max_errors)
        tally.check()
        recording.tally = tally
        ended = NOTHING_DONE
        if taken.done:
            watch(Resumed(rows=count(taken.done), rows_total=given.source.rows))
        if taken.missing:
            recording.describe(model, given.facts(), job, given.source.rows, taken, options.as_text)
            filling = _Filling(workload, plan, given, taken, tally, name_of(model))
            ended = filling.run(options, watch, recording)
        commits = [(commit.start, commit.stop) for commit in ended[1].commits]
        errors = settle_folder(taken.folder, [*taken.done, *commits], given.source.rows)
    notes = tuple(_NOT_KNOWN_AGAIN.format(stamp.location) for stamp in stamps if stamp.digest == UNKNOWN)
    report = _report(ended, taken, errors, time.monotonic() - began_s)
    return replace(report, warnings=(*report.warnings, *notes))


@dataclass(frozen=True, slots=True)
class _Filling:
    """Has the missing rows of a folder done, each in a part."""

    workload: Workload
    plan: RowPlan
    given: Given
    taken: TakenUp
    tally: ErrorTally
    model_name: str

    def run(self, options: ScoreOptions, watch: Watch, recording: Recording) -> tuple[Plan, Outcome]:
        source = self.given.source
        job = how_to_cut(source, self.plan, options, max_chunk_s=CHUNK_SHARE * options.commit_every_s)
        scoring = Scoring(
            workload=self.workload,
            plan=self.plan,
            source=source,
            sink=FolderSink(folder=self.taken.folder),
            owner=f"ovray score to {self.taken.folder.name}",
            model_name=self.model_name,
        )
        flow = Flow(job)
        put_away = PutAway(source, flow)

        def deliver(commit: Commit, results: Any) -> None:
            if self.given.comes_bit_by_bit:
                put_away.deliver(commit, results)
            self.tally.add(commit.result.errors, commit.result.first_error)

        def watch_errors(news: News) -> None:
            watch(replace(news, errors=self.tally.count) if isinstance(news, Progress) else news)

        with _rows_of(self.given, flow, replace(job, ranges=self.taken.missing)) as supply_of:
            return run_scoring(scoring, supply_of, deliver, options, watch_errors, recording)


def _collect(model: ModelLike, inputs: Any, options: ScoreOptions) -> Any:
    """Has all rows done, and gives their results back."""
    options.check_for_memory()
    with ExitStack() as stack:
        given = look_at(inputs, options, stack)
        workload, plan = plan_for(model, given, options)
        job = how_to_cut(given.source, plan, options, max_chunk_s=CHUNK_SHARE * options.commit_every_s)
        flow = Flow(job)
        collector = given.collector(plan, flow)
        scoring = Scoring(
            workload=workload,
            plan=collector.plan,
            source=given.source,
            sink=AnswerSink(),
            owner="ovray score",
            model_name=name_of(model),
        )
        with _rows_of(given, flow, replace(job, ranges=((0, given.source.rows),))) as supply_of:
            ended = run_scoring(scoring, supply_of, collector.deliver, options, _nobody)
        for text in warnings_of(*ended):
            warnings.warn(text, RuntimeWarning, stacklevel=3)
        return collector.result()


@contextmanager
def _rows_of(given: Given, flow: Flow, whole: JobSubmitted) -> Iterator[SupplyOf]:
    """Gives all rows at once, or as they come while the block runs."""
    if not given.comes_bit_by_bit:
        yield lambda *_: AllAtOnce(whole)
        return
    given.pour(flow)
    try:
        yield flow.open
    finally:
        flow.stop()  # whoever fetches rows need not go on


def _nobody(_: object) -> None:
    """Is told how things stand where nobody looks."""


def _report(ended: tuple[Plan, Outcome], taken: TakenUp, errors: int, seconds: float) -> ScoreReport:
    import pandas as pd  # late: half a second of a start

    plan, outcome = ended
    table = pd.DataFrame(
        [_replica_row(spec, outcome) for spec in outcome.specs if spec.id in outcome.reports],
        columns=list(REPLICA_COLUMNS),
    )
    resumed_rows = count(taken.done) - taken.errors
    rows = count((commit.start, commit.stop) for commit in outcome.commits) - (errors - taken.errors)
    return ScoreReport(
        rows=resumed_rows + rows,
        seconds=seconds,
        run_seconds=outcome.run_s,
        rows_per_s=rows / outcome.run_s if outcome.run_s > 0 else 0.0,
        errors=errors,
        resumed_rows=resumed_rows,
        output=taken.folder.name,
        replicas=table,
        warnings=warnings_of(plan, outcome),
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
