"""Reads the options of ``ovray.score`` and ``ovray.iter_score``: one list, with the reasons why one is refused.

May not enter: data, models, Ray.  What each option means is documented at ``score``.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from ovray.core.events import MAX_BACKUPS
from ovray.devices.records import CoreSharing
from ovray.driver.meter import Figures
from ovray.driver.placement import PlacementOptions
from ovray.driver.trace import check_path
from ovray.errors import ConfigError
from ovray.scoring.batching import BatchSize
from ovray.scoring.on_error import ErrorOptions, OnError
from ovray.scoring.preparation import GraphSteps, PerChannel, Size
from ovray.scoring.reduction import Labels, ResultOptions
from ovray.scoring.result_formats import ResultFormat
from ovray.scoring.row_plan import RowOptions
from ovray.scoring.taking_up import Earlier
from ovray.scoring.user_functions import Function, find_function

PathOrUrl = str | os.PathLike[str]


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
    #: And a trace.
    trace: str | os.PathLike[str] | None = None
    figures: Figures = Figures.ON
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
            "--on-error": self.errors.on_error.value,
            "--max-errors": self.errors.max_errors,
            "--no-backup": "yes" if self.max_backups == 0 else None,
            "--share-cores": "yes" if self.placement.sharing is CoreSharing.SHARED else None,
            "--max-replicas": self.placement.max_replicas,
            "--autoscale": "yes" if self.placement.autoscale else None,
            "--address": self.address,
            **self.changing_results,
        }
        return {flag: str(value) for flag, value in given.items() if value not in (None, {}, ())}

    def check(self) -> None:
        """Raises ConfigError where a number makes no sense."""
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 1):
            raise ConfigError(f"--limit {self.limit!r}: give a whole number from 1, or leave it out for all rows")
        batch_size = self.rows.batch_size
        if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
            raise ConfigError(f"--batch-size {batch_size!r}: give a whole number from 1, or auto")
        file_rows = self.rows.rows_per_file
        if file_rows is not None and (not isinstance(file_rows, int) or file_rows < 1):
            raise ConfigError(f"--rows-per-file {file_rows!r}: give a whole number from 1, or leave it out")
        if not self.commit_every_s > 0:
            raise ConfigError(f"--commit-every {self.commit_every_s:g}: give seconds, more than 0")
        if self.trace is not None:
            check_path(self.trace)
        if not isinstance(self.max_backups, int) or self.max_backups < 0:
            raise ConfigError(f"max_backups={self.max_backups!r}: give a number of copies, 0 for none")

    def check_for_memory(self) -> None:
        """Raises ConfigError where an option is about a folder of results, and there is none."""
        self.check()
        if self.earlier is Earlier.DELETE:
            raise ConfigError("restart=True deletes what a folder holds: name one with output=, or leave it out")
        if self.errors.on_error is OnError.RECORD:
            raise ConfigError("on_error='record' writes bad rows into a folder: name one with output=")
        if self.result_format is not ResultFormat.PARQUET or self.rows.rows_per_file is not None:
            raise ConfigError(
                "format= and rows_per_file= are about files of results: name their folder with output=, or leave"
                " them out"
            )
        if self.report is not None:
            raise ConfigError("report= is about a run that fills a folder: name one with output=, or leave it out")


class ScoreKeywords(TypedDict, total=False):
    """Names the options for type checkers; the same ones as ``parse_options`` has."""

    devices: str
    input: str | Sequence[str]
    keep: str | Sequence[str] | None
    layout: str | None
    resize: Size | None
    mean: PerChannel | None
    scale: PerChannel | None
    color: str | None
    outputs: str | Sequence[str] | None
    top_k: int | None
    argmax: bool
    labels: Labels | None
    dtype: str | None
    format: str
    rows_per_file: int | None
    preprocess: str | Function | None
    postprocess: str | Function | None
    hint: str
    batch_size: BatchSize
    config: Mapping[str, str] | None
    precision: str | None
    address: str | None
    limit: int | None
    restart: bool
    on_error: str
    max_errors: int | None
    commit_every_s: float
    max_backups: int
    report: PathOrUrl | None
    trace: str | os.PathLike[str] | None
    share_cores: bool
    lease_timeout_s: float
    max_replicas: int | None
    replica_timeout_s: float
    autoscale: bool


def parse_options(  # noqa: PLR0913 (the public face: every option has its name)
    *,
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
    trace: str | os.PathLike[str] | None = None,
    share_cores: bool = False,
    lease_timeout_s: float = PlacementOptions().lease_timeout_s,
    max_replicas: int | None = None,
    replica_timeout_s: float = 30.0,
    autoscale: bool = False,
) -> ScoreOptions:
    """Returns what a caller asked for.

    Raises:
        ConfigError: an option is not what it must be; nothing was looked at yet.
    """
    return ScoreOptions(
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
        trace=trace,
        figures=Figures.parse(os.environ),
        placement=PlacementOptions.parse(
            devices=devices,
            hint=hint,
            precision=precision,
            share_cores=share_cores,
            lease_timeout_s=lease_timeout_s,
            max_replicas=max_replicas,
            replica_timeout_s=replica_timeout_s,
            autoscale=autoscale,
        ),
        address=address,
    )
