"""Scores files with a bad row of every kind: it costs itself and no other; or it ends the job, and is named.

The real engine and real files, in this process.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovray.errors import ConfigError, DataError, ReplicaError
from ovray.replica.openvino_engine import OpenVINOEngine
from ovray.scoring.on_error import ErrorOptions, OnError
from ovray.scoring.row_plan import RowOptions
from ovray.scoring.user_functions import find_function
from tests.data_builders import a_parquet_file, a_text_file, an_arrow_file
from tests.integration import models
from tests.integration.scored_here import Scoring, errors_in, score_here, scoring

pytestmark = pytest.mark.slow

RECORD = ErrorOptions(on_error=OnError.RECORD)

#: More than one batch and one chunk, and no multiple of either.
ROWS = 37
BATCH_ROWS = 8

#: Around damage, of rows as small as these.
DECODED_TOGETHER = 64
CHUNK_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Is data with bad rows."""

    path: Path
    #: Stage and a piece of the message by row.
    bad: Mapping[int, tuple[str, str]]
    rows: int = ROWS
    model: Callable[[], ov.Model] = models.a_half_model
    options: RowOptions = field(default_factory=lambda: RowOptions(batch_size=BATCH_ROWS))
    #: Bad rows whose kept columns can be had, where that is not all.
    kept_of: frozenset[int] | None = None


def vectors(rows: int = ROWS) -> list[Any]:
    return [[float(row)] * 6 for row in range(rows)]


def ids(rows: int = ROWS) -> list[int]:
    return [1000 + row for row in range(rows)]


def nulls(folder: Path) -> Case:
    values = vectors()
    values[3] = values[19] = None
    values[30][2] = None
    table = pa.table({"id": ids(), "x": pa.array(values, pa.list_(pa.float32()))})
    bad = dict.fromkeys((3, 19, 30), ("prepare", "column 'x' is null"))
    return Case(path=a_parquet_file(folder / "a.parquet", table, rows_per_group=10), bad=bad)


def nulls_in_the_first_row(folder: Path) -> Case:
    values = vectors()
    values[0] = None
    values[1] = [1.0]
    table = pa.table({"id": ids(), "x": pa.array(values, pa.list_(pa.float32()))})
    bad = {0: ("prepare", "column 'x' is null"), 1: ("prepare", "a list of 1 where")}
    return Case(path=a_parquet_file(folder / "a.parquet", table), bad=bad)


def ragged_lengths(folder: Path) -> Case:
    values = vectors()
    values[20], values[36] = values[20][:5], [*values[36], 1.0]
    table = pa.table({"id": ids(), "x": values})
    bad = {20: ("prepare", "a list of 5 where the first rows hold 6"), 36: ("prepare", "a list of 7 where")}
    return Case(path=a_parquet_file(folder / "a.parquet", table, rows_per_group=10), bad=bad)


def values_that_do_not_fit_a_cast(folder: Path) -> Case:
    values = [[row] * 6 for row in range(ROWS)]
    values[17][3] = 256
    table = pa.table({"id": ids(), "x": values})
    bad = {17: ("prepare", "column 'x' holds 256, input 'x' (u8) takes 0 to 255")}
    return Case(path=a_parquet_file(folder / "a.parquet", table), bad=bad, model=a_byte_model)


def a_corrupt_row_group(folder: Path) -> Case:
    table = pa.table({"id": ids(), "x": pa.array(vectors(), pa.list_(pa.float32()))})
    path = a_parquet_file(folder / "a.parquet", table, rows_per_group=10)
    group = pq.read_metadata(path).row_group(1)
    damage(path, group.column(1).dictionary_page_offset or group.column(1).data_page_offset, 30)
    bad = dict.fromkeys(range(10, 20), ("read", "cannot be read: "))
    return Case(path=path, bad=bad, kept_of=frozenset())


def a_corrupt_page(folder: Path) -> Case:
    # Rows in pages before the damage can be read, those behind it cannot.
    table = pa.table({"id": range(1000, 5000), "x": pa.array(vectors(4000), pa.list_(pa.float32()))})
    path = folder / "a.parquet"
    pq.write_table(
        table, path, row_group_size=4000, data_page_size=1000, use_dictionary=False, write_batch_size=500
    )
    column = pq.read_metadata(path).row_group(0).column(1)
    damage(path, column.data_page_offset + column.total_compressed_size * 3 // 4, 30)
    with pytest.raises((OSError, pa.ArrowException)):
        pq.read_table(path)
    first = first_unreadable(path)
    assert 2000 < first < 3999
    lost = range(first - first % DECODED_TOGETHER, 4000)
    return Case(path=path, bad=dict.fromkeys(lost, ("read", "cannot be read: ")), rows=4000, kept_of=frozenset())


def csv_lines(folder: Path) -> Case:
    lines = [f'{number},"row\n{row}",{row}' for row, number in enumerate(ids())]
    lines[2] = "1002,row"
    lines[18] = lines[18] + ",more"
    lines[25] = "1025,\udcff,25"
    lines[33] = "1033,row,n.a."
    lines[34] = "1034,row,"
    text = "id,note,x\n\n" + "\r\n".join(lines) + "\n"
    path = a_text_file(folder / "a.csv", text.encode(errors="surrogateescape"))
    bad = {
        2: ("read", "has 2 fields where the header names 3 columns"),
        18: ("read", "has 4 fields"),
        25: ("read", "is not UTF-8"),
        33: ("prepare", "column 'x' holds 'n.a.', which is no number"),
        34: ("prepare", "column 'x' holds '', which is no number"),
    }
    return Case(path=path, bad=bad, model=a_scalar_model, kept_of=frozenset({33, 34}))


def json_lines(folder: Path) -> Case:
    lines = [f'{{"id": {number}, "x": {[row] * 6}}}'.encode() for row, number in enumerate(ids())]
    lines[0] = b'{"id": 1000'
    lines[4] = b"null"
    lines[9] = b'{"id": 1009, "x": "text"}'
    lines[10] = b'{"id": 1010, "x": [1, 2, 3, 4, 5, "6"]}'
    lines[11] = b'{"id": 1011, "x": [1, 2, 3, 4, 5, null]}'
    lines[12] = b'{"id": 1012}'
    lines[13] = b'{"id": 1013, "x": "\xff"}'
    lines[14] = b'{"id": 1014, "id": 1014, "x": [1, 2, 3, 4, 5, 6]}'
    lines[15] = b'{"id": 1015, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    lines[16] = b'{"id": 1016, "x": [1, 2, 3, 4, 5, NaN]}'
    lines[17] = b'{"id": 1017, "x": [1, 2, 3, 4, 5, 6]} {}'
    lines[18] = b'{"id": 1018, "x": [1, 2, 3, 4, 5, 6], "y": "\\ud800"}'
    lines[36] = b'{"id": "1036", "x": [1, 2, 3, 4, 5, 6]}'
    path = a_text_file(folder / "a.jsonl", b"\n\n".join(lines))
    bad = {
        0: ("read", "is no JSON: "),
        4: ("read", "is no object"),
        9: ("read", "has text under the key 'x', where other lines have lists"),
        10: ("read", "has text under the key 'x', where other lines have numbers"),
        11: ("prepare", "column 'x' is null"),
        12: ("prepare", "column 'x' is null"),
        13: ("read", "is not UTF-8"),
        14: ("read", "has the key 'id' twice"),
        15: ("read", "nest deeper than"),
        16: ("read", "holds NaN, which is no JSON"),
        17: ("read", "is no JSON: "),
        18: ("read", "is not UTF-8"),
        36: ("read", "has text under the key 'id', where other lines have numbers"),
    }
    return Case(path=path, bad=bad, kept_of=frozenset({11, 12}))


def text_lines(folder: Path) -> Case:
    lines = [f"line {row}".encode() for row in range(ROWS)]
    lines[0] = lines[36] = b"\xff"
    bad = dict.fromkeys((0, 36), ("read", "is not UTF-8"))
    return Case(
        path=a_text_file(folder / "a.txt", b"\n".join(lines)),
        bad=bad,
        model=models.an_echo_model,
        kept_of=frozenset(),
    )


def a_damaged_arrow_cell(folder: Path) -> Case:
    notes = ["abc"] * ROWS
    notes[21] = "zzz"
    table = pa.table({"id": ids(), "note": notes, "x": pa.array(vectors(), pa.list_(pa.float32()))})
    path = an_arrow_file(folder / "a.arrow", table, rows_per_batch=15)
    content = path.read_bytes()
    assert content.count(b"zzz") == 1
    path.write_bytes(content.replace(b"zzz", b"\xff\xff\xff"))
    return Case(path=path, bad={21: ("read", "cannot be read: ")}, kept_of=frozenset())


def a_function_that_prepares(folder: Path) -> Case:
    table = pa.table({"id": ids(), "x": vectors()})
    bad = {
        0: ("prepare", "--preprocess "),
        13: ("prepare", "failed with ZeroDivisionError: division by zero"),
        14: ("prepare", "failed with ZeroDivisionError"),
        35: ("prepare", "'x' has rows of the shape [5], the first rows had [6]"),
    }
    options = RowOptions(batch_size=BATCH_ROWS, preprocess=find_function("--preprocess", prepare), inputs=("x",))
    return Case(path=a_parquet_file(folder / "a.parquet", table), bad=bad, options=options)


def prepare(batch: dict[str, Any]) -> dict[str, Any]:
    rows = batch["x"][:, 0]
    if set(rows.tolist()) & {0.0, 13.0, 14.0}:
        raise ZeroDivisionError("division by zero")
    return {"x": batch["x"][:, :5] if 35.0 in rows else batch["x"]}


def a_function_that_finishes(folder: Path) -> Case:
    table = pa.table({"id": ids(), "x": vectors()})
    bad = {
        7: ("finish", "--postprocess finish failed with RuntimeError: seven"),
        36: ("finish", "gave <U1 for 'half'; of zeros it gave float16"),
    }
    options = RowOptions(batch_size=BATCH_ROWS, postprocess=find_function("--postprocess", finish))
    return Case(path=a_parquet_file(folder / "a.parquet", table), bad=bad, options=options)


def finish(batch: dict[str, Any]) -> dict[str, Any]:
    rows = batch["half"][:, 0].astype(int)
    if 7 in rows:
        raise RuntimeError("seven")
    return {"half": np.array(["x"] * len(rows)) if 36 in rows else batch["half"]}


def an_inference_that_is_refused(folder: Path) -> Case:
    words = [[0, 1, 2]] * ROWS
    for row in (2, 9, 10, 36):
        words[row] = [0, 10, 2]
    table = pa.table({"id": ids(), "words": words})
    bad = dict.fromkeys((2, 9, 10, 36), ("infer", "the inference failed: Node EmbeddingBag"))
    return Case(path=a_parquet_file(folder / "a.parquet", table), bad=bad, model=a_model_of_ten_words)


def an_inference_that_is_refused_for_its_shape(folder: Path) -> Case:
    values = [[0.0] * 6 for _ in range(ROWS)]
    values[10][4] = 6.0  # seven does not divide a batch
    table = pa.table({"id": ids(), "x": values})
    bad = {10: ("infer", "the inference failed: ")}
    return Case(path=a_parquet_file(folder / "a.parquet", table), bad=bad, model=a_model_that_refuses_sevens)


def values_that_cannot_be_written(folder: Path) -> Case:
    moments = [0] * ROWS
    moments[5] = moments[22] = 2**62
    columns = {"id": ids(), "at": pa.array(moments, pa.timestamp("s")), "x": vectors()}
    bad = dict.fromkeys((5, 22), ("write", "cannot be written: "))
    return Case(path=an_arrow_file(folder / "a.arrow", pa.table(columns)), bad=bad)


def nothing_but_bad_rows(folder: Path) -> Case:
    table = pa.table({"id": ids(), "x": [[7.0] * 6] * ROWS})
    options = RowOptions(batch_size=BATCH_ROWS, postprocess=find_function("--postprocess", finish))
    bad = dict.fromkeys(range(ROWS), ("finish", "failed with RuntimeError: seven"))
    return Case(path=a_parquet_file(folder / "a.parquet", table), bad=bad, options=options)


KINDS = [
    nulls,
    nulls_in_the_first_row,
    ragged_lengths,
    values_that_do_not_fit_a_cast,
    a_corrupt_row_group,
    a_corrupt_page,
    csv_lines,
    json_lines,
    text_lines,
    a_damaged_arrow_cell,
    a_function_that_prepares,
    a_function_that_finishes,
    an_inference_that_is_refused,
    an_inference_that_is_refused_for_its_shape,
    values_that_cannot_be_written,
    nothing_but_bad_rows,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("chunk_rows", [CHUNK_ROWS, 1 << 40])
def test_a_bad_row_costs_itself_and_no_other(
    kind: Callable[[Path], Case], chunk_rows: int, tmp_path: Path
) -> None:
    case = kind(tmp_path)

    reports = score_here(case.model(), [case.path], tmp_path / "out", case.options, RECORD, chunk_rows=chunk_rows)

    errors = errors_in(tmp_path / "out")
    found = dict(zip(errors["row"].to_pylist(), errors.to_pylist(), strict=True))
    assert errors["row"].to_pylist() == sorted(case.bad)
    assert set(errors["file"].to_pylist()) == {str(case.path)}
    assert errors.schema.names[:4] == ["file", "row", "stage", "message"]
    for row, (stage, message) in case.bad.items():
        assert (found[row]["stage"], message in found[row]["message"]) == (stage, True), found[row]
        assert str(case.path) not in found[row]["message"]
    good = [row for row in range(case.rows) if row not in case.bad]
    results = pq.read_table(tmp_path / "out")
    assert results.num_rows == len(good)
    if "id" in results.schema.names:
        assert results["id"].to_pylist() == [1000 + row for row in good]
        kept_of = case.bad.keys() if case.kept_of is None else case.kept_of
        assert {row: one["id"] for row, one in found.items()} == {
            row: 1000 + row if row in kept_of else None for row in case.bad
        }
    assert sum(report.rows for report in reports) == len(good)
    assert sum(report.errors for report in reports) == len(case.bad)
    assert (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.parametrize(
    "kind",
    [
        nulls,
        nulls_in_the_first_row,
        ragged_lengths,
        values_that_do_not_fit_a_cast,
        a_function_that_prepares,
        a_function_that_finishes,
        an_inference_that_is_refused,
        an_inference_that_is_refused_for_its_shape,
    ],
    ids=lambda kind: kind.__name__,
)
def test_the_rows_beside_a_bad_one_get_what_they_get_without_it(
    kind: Callable[[Path], Case], tmp_path: Path
) -> None:
    case = kind(tmp_path)
    table = pq.read_table(case.path)
    good = table.take([row for row in range(case.rows) if row not in case.bad])
    (tmp_path / "good").mkdir()
    path = a_parquet_file(tmp_path / "good" / "a.parquet", good)

    score_here(case.model(), [case.path], tmp_path / "out", case.options, RECORD, chunk_rows=CHUNK_ROWS)
    score_here(case.model(), [path], tmp_path / "expected", case.options, RECORD)

    assert pq.read_table(tmp_path / "out").equals(pq.read_table(tmp_path / "expected"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_bad_row_that_is_not_to_be_recorded_ends_the_job_and_is_named(
    kind: Callable[[Path], Case], tmp_path: Path
) -> None:
    case = kind(tmp_path)

    with pytest.raises((DataError, ConfigError)) as raised:
        score_here(case.model(), [case.path], tmp_path / "out", case.options, ErrorOptions())

    message = str(raised.value)
    assert "\n" not in message
    if isinstance(raised.value, ConfigError):  # seen before anything is started
        return
    where = re.match(rf"{re.escape(str(case.path))}, rows? (\d+)(?: to (\d+))? \(the first is 0\): ", message)
    assert where is not None, message
    assert int(where[1]) in case.bad
    assert int(where[2] or where[1]) in case.bad
    assert list((tmp_path / "out").glob("part-*")) == []


class TestFunctionsAreTriedAgainFewTimes:
    ROWS = 1024

    def calls(self, folder: Path, bad: set[int], errors: ErrorOptions) -> list[int]:
        """Return how many rows a function was called with, each time."""
        table = pa.table({"id": range(self.ROWS), "x": [[float(row)] * 6 for row in range(self.ROWS)]})
        log = folder / "calls"

        def prepare(batch: dict[str, Any]) -> dict[str, Any]:
            rows = set(batch["x"][:, 0].astype(int).tolist())
            with log.open("a") as file:
                file.write(f"{len(rows)}\n")
            if rows & bad:
                raise ValueError("bad")
            return {"x": batch["x"]}

        options = RowOptions(preprocess=find_function("--preprocess", prepare), inputs=("x",))
        path = a_parquet_file(folder / "a.parquet", table)
        with scoring(models.a_half_model(), [path], folder / "out", options, errors) as job:
            log.unlink()  # calls for the plan
            job.run(0, self.ROWS)
        return [int(line) for line in log.read_text().split()]

    def test_a_good_chunk_is_prepared_at_once(self, tmp_path: Path) -> None:
        assert self.calls(tmp_path, set(), RECORD) == [1000, 24]

    def test_a_bad_row_takes_as_many_tries_as_halves_lead_to_it(self, tmp_path: Path) -> None:
        assert len(self.calls(tmp_path, {700}, RECORD)) <= 2 + 2 * 10


def test_a_function_that_fails_for_many_rows_and_for_none_alone_ends_the_job_unless_rows_are_recorded(
    tmp_path: Path,
) -> None:
    def prepare(batch: dict[str, Any]) -> dict[str, Any]:
        if len(batch["x"]) > 20:
            raise MemoryError("too many")
        return {"x": batch["x"]}

    path = a_parquet_file(tmp_path / "a.parquet", pa.table({"id": ids(), "x": vectors()}))
    options = RowOptions(preprocess=find_function("--preprocess", prepare), inputs=("x",))

    with pytest.raises(DataError, match=r"a\.parquet, rows 0 to 37 .* failed with MemoryError: too many"):
        score_here(models.a_half_model(), [path], tmp_path / "out", options, ErrorOptions())
    score_here(models.a_half_model(), [path], tmp_path / "out", options, RECORD)

    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == ids()
    assert not (tmp_path / "out" / "_errors").exists()


def test_rows_of_several_files_are_counted_in_their_files(tmp_path: Path) -> None:
    paths = []
    for name, number in {"a": 3, "b": 0, "c": 5}.items():
        values = vectors(10)
        values[number] = None
        table = pa.table({"x": pa.array(values, pa.list_(pa.float32()))})
        paths.append(a_parquet_file(tmp_path / f"{name}.parquet", table))

    score_here(models.a_half_model(), paths, tmp_path / "out", RowOptions(batch_size=4), RECORD, chunk_rows=12)

    errors = errors_in(tmp_path / "out")
    assert list(zip(errors["file"].to_pylist(), errors["row"].to_pylist(), strict=True)) == [
        (str(path), row) for path, row in zip(paths, (3, 0, 5), strict=True)
    ]


def test_kept_columns_of_every_kind_and_of_unlucky_names_are_in_the_errors_too(tmp_path: Path) -> None:
    values = vectors(4)
    values[2] = None
    table = pa.table(
        {
            "row": ["a", "b", "c", "d"],
            "fixed": pa.array([[1, 2]] * 4, pa.list_(pa.uint8(), 2)),
            "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(16).reshape(4, 2, 2)),
            "view": pa.array([f"{number} is longer than twelve" for number in range(4)], pa.string_view()),
            "kind": pa.array(["x", "y", "x", "y"]).dictionary_encode(),
            "struct": [{"a": number} for number in range(4)],
            "x": pa.array(values, pa.list_(pa.float32())),
        }
    )
    path = an_arrow_file(tmp_path / "a.arrow", table)

    score_here(models.a_half_model(), [path], tmp_path / "out", RowOptions(batch_size=2), RECORD)

    (error,) = errors_in(tmp_path / "out").drop(["file", "message", "stage"]).to_pylist()
    assert error == {
        "row": 2,
        "kept_row": "c",
        "fixed": [1, 2],
        "tensor": [8, 9, 10, 11],
        "view": "2 is longer than twelve",
        "kind": "x",
        "struct": {"a": 2},
    }
    assert pq.read_table(tmp_path / "out")["row"].to_pylist() == ["a", "b", "d"]


def test_a_text_that_is_no_number_is_refused_at_the_start_where_bad_rows_end_the_job(tmp_path: Path) -> None:
    case = csv_lines(tmp_path)
    case.path.write_text("id,note,x\n1,a,1\n2,b,n.a.\n")

    with pytest.raises(ConfigError, match=r"'x' \(string\) cannot become input 'x'"):
        score_here(case.model(), [case.path], tmp_path / "out", case.options, ErrorOptions())


def test_more_bad_rows_than_allowed_end_the_job(tmp_path: Path) -> None:
    case = nulls(tmp_path)
    some = ErrorOptions(on_error=OnError.RECORD, max_errors=2)
    enough = ErrorOptions(on_error=OnError.RECORD, max_errors=3)

    with pytest.raises(DataError, match=r"^3 rows could not .*more than --max-errors 2; the first is .*row 3 "):
        score_here(case.model(), [case.path], tmp_path / "out", case.options, some)
    score_here(case.model(), [case.path], tmp_path / "out", case.options, enough)

    assert errors_in(tmp_path / "out").num_rows == 3


def test_a_folder_with_bad_rows_is_carried_on_and_left_alone_when_finished(tmp_path: Path) -> None:
    case = nulls(tmp_path)
    output = tmp_path / "out"
    with scoring(case.model(), [case.path], output, case.options, RECORD) as job:
        job.run(0, 5)
        job.run(28, ROWS)
        notes = {path.name: path.read_bytes() for path in output.glob("_ovray*")}
    for name, content in notes.items():
        (output / name).write_bytes(content)

    # whatever a later run does with bad rows: those on record stay
    with scoring(case.model(), [case.path], output, case.options, ErrorOptions()) as job:
        assert (job.taken.missing, job.taken.errors) == (((5, 28),), 2)
        assert job.taken.first_error is not None
        assert "a.parquet, row 3 (the first is 0): column 'x' is null" in job.taken.first_error.text
    score_here(case.model(), [case.path], output, case.options, RECORD, chunk_rows=7)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert score_here(case.model(), [case.path], output, case.options, ErrorOptions()) == []

    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path in before} == before
    assert errors_in(output)["row"].to_pylist() == [3, 19, 30]
    assert pq.read_table(output).num_rows == ROWS - 3


def test_a_device_that_fails_at_zeros_too_is_to_blame_and_not_its_rows(tmp_path: Path) -> None:
    case = an_inference_that_is_refused(tmp_path)
    with scoring(case.model(), [case.path], tmp_path / "out", case.options, RECORD) as job:
        break_device(job)

        with pytest.raises(ReplicaError, match="so does one of zeros: the device is to blame"):
            job.run(0, ROWS)

    assert not (tmp_path / "out" / "_errors").exists()


def break_device(job: Scoring) -> None:
    """Let every inference fail from now on, as a device does that is gone: its model is another one."""
    engine = job.scorer._engine
    assert isinstance(engine, OpenVINOEngine)
    table = models._input("words", ov.Type.i32, [BATCH_ROWS, 3])
    none = ops.embedding_bag_packed_sum(np.zeros((1, 3), np.float32), ops.add(table, np.int32(99)))
    broken = ov.Core().compile_model(ov.Model([models._output("sum", none)], [table], "broken"), "CPU")
    for slot in engine._slots._idle:
        object.__setattr__(slot, "request", broken.create_infer_request())


def a_byte_model() -> ov.Model:
    """``x`` u8[?,6] in; ``same`` u8[?,6] out."""
    x = models._input("x", ov.Type.u8, [-1, 6])
    return ov.Model([models._output("same", ops.add(x, np.uint8(0)))], [x], "bytes")


def a_scalar_model() -> ov.Model:
    """``x`` f32[?,1] in; ``double`` f32[?,1] out."""
    x = models._input("x", ov.Type.f32, [-1, 1])
    return ov.Model([models._output("double", ops.multiply(x, np.float32(2)))], [x], "scalar")


def a_model_of_ten_words() -> ov.Model:
    """``words`` i32[?,3] in; ``sum`` f32[?,3] out: vectors of words, of which there are ten."""
    words = models._input("words", ov.Type.i32, [-1, 3])
    vectors = np.arange(30, dtype=np.float32).reshape(10, 3)
    return ov.Model([models._output("sum", ops.embedding_bag_packed_sum(vectors, words))], [words], "words")


def a_model_that_refuses_sevens() -> ov.Model:
    """``x`` f32[?,6] in and ``same`` out, where the highest value of a batch plus one divides its size."""
    x = models._input("x", ov.Type.f32, [-1, 6])
    most = ops.reduce_max(x, [0, 1], keep_dims=False)
    rows = ops.convert(ops.reshape(ops.add(most, np.float32(1)), np.array([1], np.int64), False), "i64")
    shaped = ops.reshape(x, ops.concat([rows, np.array([-1], np.int64)], 0), False)
    nothing = ops.multiply(ops.reduce_sum(shaped, [0, 1], keep_dims=False), np.float32(0))
    return ov.Model([models._output("same", ops.add(x, nothing))], [x], "sevens")


def damage(path: Path, at: int, size_bytes: int) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + size_bytes] = b"\xff" * size_bytes
    path.write_bytes(content)


def first_unreadable(path: Path) -> int:
    """Return how many rows can be decoded one by one."""
    rows = 0
    with pq.ParquetFile(path) as file:
        try:
            for batch in file.iter_batches(batch_size=1):
                rows += batch.num_rows
        except (OSError, pa.ArrowException):
            return rows
    raise AssertionError("nothing is damaged")
