"""Says what a job is, and in which ways another one differs: what its rows depend on, and nothing else.

Model, inputs, columns, and those options that change results.  Not: devices, hint, batch size, addresses,
timeouts, the rhythm of parts; a job may go on with others of these.  (Devices may differ in the last bits of their
numbers within one run as well; ``--precision`` is for that, and counts.)  Versions are noted for the person who
compares results, and do not count either.
May not enter: files (notes.py), what is done about a difference (taking_up.py).
"""

import json
import platform
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from ovray.logs import run_id
from ovray.replica.signature import PackedModel
from ovray.scoring.dataset import DataSet
from ovray.scoring.fingerprint import fingerprint
from ovray.scoring.records import FileRef
from ovray.scoring.row_plan import RowPlan

#: The name of the file that says what the job of a folder is.
RECORD_NAME = "_ovray.json"

#: Goes up when records of before can no longer be compared.
FORMAT = 1

#: The digest of rows that no other run can be sure to have again: equal to no other, nor to itself.
UNKNOWN = "unknown"

_VERSIONS_OF = ("ovray", "openvino", "pyarrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStamp:
    """Says which state of an input file, or which rows in memory, were meant."""

    location: str
    rows: int
    size_bytes: int
    #: ``None`` where the file system keeps no times.
    modified_ns: int | None
    #: Of a folder of pictures, so that each of them counts.
    listing: str | None = None
    #: Of rows in memory, by which another run knows them; ``UNKNOWN`` where that cannot be.
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """Says what a job is.  Equal records give equal rows."""

    #: Of ``fingerprint``.
    model: str
    inputs: tuple[InputStamp, ...]
    #: Which columns feed each input of the model, and as what, by the input's name.
    bindings: Mapping[str, str]
    #: Columns of the results and their types.
    results: Mapping[str, str]
    #: Options that change results, as text, by the name of their flag; only those that were given.
    options: Mapping[str, str]

    def to_json(self, runs: Sequence[Mapping[str, str]] = ()) -> bytes:
        """Returns the file's content; ``runs`` are those that worked on the folder, and count for nothing."""
        content = {"format": FORMAT, "job": asdict(self), "versions": versions(), "runs": list(runs)}
        return json.dumps(content, indent=1).encode() + b"\n"

    @staticmethod
    def from_json(text: bytes) -> "JobRecord":
        """Reads the content of the file.  Raises ValueError where it is none of this format."""
        try:
            content: Any = json.loads(text)
            if content["format"] != FORMAT:
                raise ValueError(f"it has format {content['format']}, this ovray knows {FORMAT}")
            job = content["job"]
            inputs = tuple(InputStamp(**stamp) for stamp in job.pop("inputs"))
            record = JobRecord(inputs=inputs, **job)
            _check_kinds(record)
            return record
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"it is damaged ({error})") from error

    @staticmethod
    def runs_in(text: bytes) -> list[dict[str, str]]:
        """Reads which runs worked on a folder, from the content of its file; none where it does not say."""
        runs: list[dict[str, str]] = json.loads(text).get("runs", [])
        return runs

    def differences(self, earlier: "JobRecord") -> list[str]:
        """Says, in words, in what this job is another than an earlier one; nothing where they are the same."""
        found = [] if self.model == earlier.model else ["the model is another one"]
        for what, before, after, none in (
            ("option", earlier.options, self.options, "not given"),
            ("what feeds input", earlier.bindings, self.bindings, "not there"),
            ("result column", earlier.results, self.results, "not there"),
        ):
            found += [
                f"{what} {name} was {before.get(name, none)} and is now {after.get(name, none)}"
                for name in sorted({*before, *after})
                if before.get(name) != after.get(name)
            ]
        return [*found, *_input_changes(earlier.inputs, self.inputs)]


def stamps_of(data: DataSet) -> tuple[InputStamp, ...]:
    """Returns which state of its files a data set was found in."""
    return tuple(
        InputStamp(
            location=file.ref.location,
            rows=file.rows,
            size_bytes=file.size_bytes,
            modified_ns=file.modified_ns,
            listing=None if file.ref.pictures is None else file.ref.pictures.digest,
        )
        for file in data.files
        if isinstance(file.ref, FileRef)
    )


def describe_job(
    model: PackedModel, inputs: tuple[InputStamp, ...], rows: RowPlan, options: Mapping[str, object]
) -> JobRecord:
    """Returns what a job is.

    Args:
        model: as replicas compile it.
        inputs: its rows.
        rows: what becomes of them.
        options: those that change results, by the name of their flag; ``None`` and empty ones were not given.
    """
    return JobRecord(
        model=fingerprint(model),
        inputs=inputs,
        bindings={
            binding.input_name: f"{', '.join(binding.columns)} as {binding.element_type}{list(binding.row_shape)}"
            for binding in rows.bindings
        },
        results=_types(rows.result_schema),
        options={flag: _text(value) for flag, value in options.items() if value not in (None, {}, ())},
    )


def _check_kinds(record: JobRecord) -> None:
    """Raises ``TypeError`` where a value is of another kind than a record's: anybody may have written the file."""
    texts: list[object] = [record.model, *(stamp.location for stamp in record.inputs)]
    for mapping in (record.bindings, record.results, record.options):
        texts += [*mapping.keys(), *mapping.values()]
    for stamp in record.inputs:
        texts += [one for one in (stamp.listing, stamp.digest) if one is not None]
        numbers = (stamp.rows, stamp.size_bytes, 0 if stamp.modified_ns is None else stamp.modified_ns)
        if not all(type(one) is int and 0 <= one < 1 << 63 for one in numbers):
            raise TypeError(f"an input has the numbers {numbers}")
    odd = [one for one in texts if not isinstance(one, str)]
    if odd:
        raise TypeError(f"{str(odd[0])[:40]} is no text")


def versions() -> dict[str, str]:
    """Returns what runs here, for the person who compares results."""
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS_OF}}


def this_run() -> dict[str, str]:
    """Says which run this is, for the person who looks for its log."""
    began = datetime.now(tz=timezone.utc).isoformat(timespec="seconds")
    return {"run": run_id(), "began": began, "host": socket.gethostname(), "ovray": version("ovray")}


def _types(schema: pa.Schema) -> dict[str, str]:
    return {field.name: f"{field.type}" + ("" if field.nullable else " not null") for field in schema}


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={value[key]}" for key in sorted(value))
    return str(value)


def _input_changes(earlier: tuple[InputStamp, ...], now: tuple[InputStamp, ...]) -> Iterator[str]:
    before, after = _by_name(earlier), _by_name(now)
    yield from (f"input {name} is no longer among them" for name in before if name not in after)
    yield from (f"input {name} was not among them" for name in after if name not in before)
    unknown = [
        name for name, stamp in after.items() if name in before and UNKNOWN in (stamp.digest, before[name].digest)
    ]
    yield from (
        f"rows of {name} cannot be recognised, so that nobody knows whether they are the same" for name in unknown
    )
    changed = [name for name in after if name in before and name not in unknown and before[name] != after[name]]
    for name in changed:
        if after[name].digest is not None:
            yield f"{name} holds other rows, or other columns are used of it"
            continue
        yield f"input {name} had {_show(before[name])} and now has {_show(after[name])}"
    if earlier != now and before.keys() == after.keys() and not (changed or unknown):
        yield "the inputs come in another order"


def _by_name(stamps: Iterable[InputStamp]) -> dict[str, InputStamp]:
    """Returns stamps by the name of their input; one that comes several times, such as a folder, has several."""
    named: dict[str, InputStamp] = {}
    for stamp in stamps:
        name = stamp.location
        while name in named:
            name += " (again)"
        named[name] = stamp
    return named


def _show(stamp: InputStamp) -> str:
    text = f"{stamp.rows:,} rows in {stamp.size_bytes:,} bytes"
    if stamp.listing is not None:
        text = f"{text}, listing {stamp.listing}"
    if stamp.modified_ns is None:
        return text
    moment = datetime.fromtimestamp(stamp.modified_ns / 1e9, tz=timezone.utc)
    return f"{text}, written {moment:%Y-%m-%d %H:%M:%S.%f} UTC"
