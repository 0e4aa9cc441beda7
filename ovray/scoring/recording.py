"""Keeps the story of a run and writes it as a page when the run ends, well or not.

May not enter: what a page looks like (page/), how a job runs.
"""

import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import openvino as ov

from ovray.devices.records import Plan
from ovray.driver.journal import Journal
from ovray.driver.lifecycle import ReplicaSet
from ovray.driver.planning import measurement_of
from ovray.errors import ConfigError, DataError
from ovray.scoring.done_rows import count
from ovray.scoring.error_tally import ErrorTally
from ovray.scoring.files import is_url, one_line
from ovray.scoring.job_record import JobRecord, versions
from ovray.scoring.page.document import write_page
from ovray.scoring.page.facts import Ending, InputFacts, JobFacts, PageFacts
from ovray.scoring.parts import OUR_PREFIX, UNFINISHED
from ovray.scoring.taking_up import TakenUp

_SUFFIXES = (".html", ".htm")


@dataclass(slots=True, kw_only=True)
class Recording:
    """Is filled while a run goes on.  Without ``job`` and ``plan`` there is nothing to tell."""

    journal: Journal = field(default_factory=Journal)
    job: JobFacts | None = None
    plan: Plan | None = None
    replicas: ReplicaSet | None = None
    #: Of rows that were put aside.
    tally: ErrorTally | None = None

    def describe(
        self,
        model: str | os.PathLike[str] | ov.Model,
        inputs: InputFacts,
        job: JobRecord,
        rows: int,
        taken: TakenUp,
        options: Mapping[str, str],
    ) -> None:
        """Takes in what is to be done; ``model`` as the caller gave it."""
        self.job = JobFacts(
            model=model.friendly_name if isinstance(model, ov.Model) else os.fspath(model),
            inputs=inputs.names,
            files=inputs.files,
            input_bytes=inputs.size_bytes,
            output=taken.folder.name,
            rows=rows,
            resumed_rows=count(taken.done),
            bindings=job.bindings,
            results=job.results,
            options=options,
            versions=versions(),
        )


@contextmanager
def recorded(report: str | os.PathLike[str] | None, output: str | os.PathLike[str]) -> Iterator[Recording]:
    """Gives what is to be filled while the block runs, and writes the page when it ends, however it ends.

    Nothing is written where no replica was placed, or the caller can mend what went wrong: such a run has no
    story, and the page of an earlier one stays.

    Args:
        report: where the page goes; ``None`` writes none.
        output: of the run, in which a page would be taken for a stranger's file.

    Raises:
        ConfigError: a page cannot go there; before the block.
        DataError: it could not be written after all; what the block did is done.
    """
    path = None if report is None else _checked(report, output)
    recording, began, began_s = Recording(), datetime.now().astimezone(), time.monotonic()

    def write(ending: Ending, error: str = "") -> None:
        recording.journal.close()
        if path is None or recording.job is None or recording.plan is None or recording.replicas is None:
            return
        reports, failures = recording.replicas.reports, recording.replicas.failures
        facts = PageFacts(
            job=recording.job,
            began=began,
            seconds=time.monotonic() - began_s,
            host=socket.gethostname(),
            ending=ending,
            error=error,
            plan=recording.plan.with_measurements({id: measurement_of(report) for id, report in reports.items()}),
            specs=recording.replicas.specs,
            journal=recording.journal,
            failures={replica: one_line(failure) for replica, failure in failures.items()},
            errors=0 if recording.tally is None else recording.tally.count,
            first_error=""
            if recording.tally is None or recording.tally.first is None
            else recording.tally.first.text,
        )
        _write(path, write_page(facts))

    def write_after_an_error(_: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, ConfigError):
            return
        # What went wrong is said by the error under way, not by one from here.
        with suppress(OSError):
            interrupted = isinstance(error, KeyboardInterrupt)
            write(Ending.INTERRUPTED if interrupted else Ending.FAILED, "" if interrupted else str(error))

    with ExitStack() as stack:
        stack.push(write_after_an_error)
        yield recording
    try:
        write(Ending.DONE)
    except OSError as error:
        raise DataError(f"every row is done, but the report cannot be written: {one_line(error)}") from error


def _checked(report: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    typed = os.fspath(report)
    path = Path(typed).expanduser()
    if is_url(typed) or path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"--report {typed!r}: give a file on this machine whose name ends in .html")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--report {typed!r} cannot be written: its folder must exist and take files")
    refuse_among_results("--report", path, output)
    return path


def refuse_among_results(flag: str, path: Path, output: str | os.PathLike[str]) -> None:
    """Refuses a file that the next run would take for a stranger's among the results.

    Raises:
        ConfigError: it is in the folder of results, and its name is none of ovray's own.
    """
    folder = os.fspath(output)
    is_inside = not is_url(folder) and Path(folder).expanduser().resolve() == path.parent.resolve()
    if is_inside and not path.name.startswith(OUR_PREFIX):
        raise ConfigError(
            f"{flag} {os.fspath(path)!r}: the folder of results takes no other files, save names that begin with"
            f" {OUR_PREFIX}, such as {OUR_PREFIX}-{flag.strip('-')}{path.suffix}"
        )


def _write(path: Path, page: str) -> None:
    """Writes a page in one step: whoever looks meanwhile sees the earlier one, or all of it."""
    beside = path.with_name(f"{UNFINISHED}{path.name}.{uuid.uuid4().hex}")
    try:
        beside.write_bytes(page.encode("utf-8", errors="replace"))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
