import csv
import gzip
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovray.scoring import text_blocks
from ovray.scoring.csv_records import first_record_end, last_record_end, open_quote
from ovray.scoring.reading import RowReader
from tests.data_builders import a_data_set, a_parquet_file, a_text_file, an_arrow_file, as_json_lines, read_all

#: What makes CSV hard, and some plain letters.
TEXTS = st.text(st.sampled_from('a1é",\r\n;\t '), max_size=6)

#: Rows of each file, rows of a row group or bytes of a block, limit, and ranges one after the other.
SHAPES = st.tuples(
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.integers(1, 5),
    st.none() | st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6),
    st.integers(1, 6),
)


#: The endings of names say how a file is written.
ENDINGS = (
    ".parquet",
    ".csv",
    ".csv.gz",
    ".jsonl",
    ".ndjson.gz",
    ".arrow",
    ".lz4.feather",
    ".arrows",
    ".npz",
    ".packed.npz",
)


@pytest.fixture(autouse=True)
def block_size_is_restored() -> Iterator[None]:
    before = text_blocks.BLOCK_BYTES
    yield
    text_blocks.BLOCK_BYTES = before


@settings(max_examples=150)
@given(shape=SHAPES, texts=st.lists(TEXTS, min_size=48, max_size=48), ending=st.sampled_from(ENDINGS))
def test_any_ranges_of_any_files_are_the_rows_of_the_files_joined(
    shape: tuple[list[int], int, int | None, list[tuple[float, float]], int], texts: list[str], ending: str
) -> None:
    # given: files whose rows are numbered through, one text of letters beside each number
    file_rows, block, limit, ranges, rows_per_batch = shape
    text_blocks.BLOCK_BYTES = 8 * block
    total = sum(file_rows)
    joined = pa.table({"n": range(total), "text": [f"t{text}" for text in texts[:total]]})
    with tempfile.TemporaryDirectory() as folder:
        start = 0
        for at, rows in enumerate(file_rows):
            write(Path(folder, f"{at}{ending}"), joined.slice(start, rows), block)
            start += rows

        # when: one reader reads them, in any order
        data = a_data_set(Path(folder), limit=limit)
        reader = RowReader(data.schema, rows_per_batch=rows_per_batch)
        wanted = [sorted((int(one * data.rows), int(other * data.rows))) for one, other in ranges]
        read = [list(reader.read(data.slices(low, high))) for low, high in [*wanted, (0, data.rows)]]
        reader.close()

    # then
    assert data.rows == min(total, limit or total)
    assert data.cheap_cuts[0] == 0
    assert data.cheap_cuts[-1] == data.rows
    assert list(data.cheap_cuts) == sorted(set(data.cheap_cuts))
    for (low, high), found in zip([*wanted, (0, data.rows)], read, strict=True):
        assert pa.Table.from_batches([rows.batch for rows in found], data.schema) == joined.slice(low, high - low)
        assert all(rows.batch.num_rows <= rows_per_batch for rows in found)


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    dtype=st.sampled_from(["u1", "<f4", ">i8", "?", "U2", "f2"]),
    order=st.sampled_from("CF"),
    cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    rows_per_batch=st.integers(1, 6),
)
def test_any_range_of_an_array_is_that_of_numpy(
    shape: list[int], dtype: str, order: str, cut: tuple[float, float], rows_per_batch: int
) -> None:
    rows = shape[0]
    low, high = sorted(int(share * rows) for share in cut)
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "a.npy"), np.asarray(array, order="F" if order == "F" else "C"))

        data = a_data_set(Path(folder, "a.npy"))
        reader = RowReader(data.schema, rows_per_batch=rows_per_batch)
        read = list(reader.read(data.slices(low, high)))
        reader.close()

    values = [value for rows_read in read for value in rows_read.batch.column("array").to_pylist()]
    assert values == array[low:high].tolist()


@settings(max_examples=60)
@given(
    lines=st.lists(st.text(st.sampled_from("a1é;\r\t "), max_size=6), min_size=1, max_size=20),
    line_end=st.sampled_from(["\n", "\r\n"]),
    is_last_line_ended=st.booleans(),
    block=st.integers(1, 20),
)
def test_lines_of_text_are_rows(lines: list[str], line_end: str, is_last_line_ended: bool, block: int) -> None:
    # given: where a line ends with LF alone, CR before it would be taken for a part of the line's end
    lines = [line.rstrip("\r") for line in lines]
    if not is_last_line_ended:
        lines[-1] += "."
    text_blocks.BLOCK_BYTES = block
    with tempfile.TemporaryDirectory() as folder:
        text = line_end.join(lines) + (line_end if is_last_line_ended else "")
        path = a_text_file(Path(folder, "a.txt"), text)

        assert read_all(a_data_set(path)).column("text").to_pylist() == lines


@settings(max_examples=60)
@given(
    numbers=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False), min_size=1),
    nested=st.lists(st.lists(st.lists(st.integers(-9, 9), max_size=3), max_size=3), min_size=1, max_size=9),
    texts=st.lists(st.text(max_size=5), min_size=1, max_size=9),
    block=st.integers(1, 64),
)
def test_json_lines_are_read_as_python_reads_them(
    numbers: list[float | None], nested: list[list[list[int]]], texts: list[str], block: int
) -> None:
    text_blocks.BLOCK_BYTES = block
    rows = [
        {"number": number, "nested": lists, "struct": {"text": text, "deep": {text[:1] or "x": text}}}
        for number, lists, text in zip(numbers, nested, texts, strict=False)
    ]
    with tempfile.TemporaryDirectory() as folder:
        content = "".join(json.dumps(row) + "\n" for row in rows)

        read = read_all(a_data_set(a_text_file(Path(folder, "a.jsonl"), content))).to_pylist()

    # Beside a fraction every number is floating, and those beyond 2**53 are rounded; alone, whole ones are exact.
    kept = [row["number"] for row in rows]
    if any(isinstance(number, float) for number in kept):
        kept = [None if number is None else float(number) for number in kept]
    assert [row["number"] for row in read] == kept
    assert [row["nested"] for row in read] == nested[: len(rows)]
    for found, row in zip(read, rows, strict=True):
        struct = row["struct"]
        assert found["struct"]["text"] == struct["text"]
        assert {key: text for key, text in found["struct"]["deep"].items() if text is not None} == struct["deep"]


def write(path: Path, table: pa.Table, block: int) -> None:
    """Write a table in the format that the name's ending says."""
    name = path.name
    if ".csv" in name or "json" in name:
        text = as_text(table).encode() if ".csv" in name else as_json_lines(table)
        a_text_file(path, gzip.compress(text) if name.endswith(".gz") else text)
    elif path.suffix in (".arrow", ".arrows", ".feather"):
        an_arrow_file(path, table, rows_per_batch=block, compression="lz4" if "lz4" in name else None)
    elif path.suffix == ".npz":
        save = np.savez_compressed if "packed" in name else np.savez
        save(
            path, **{column: table.column(column).to_numpy() for column in ("n",)}, text=np.array(texts_of(table))
        )
    else:
        a_parquet_file(path, table, rows_per_group=block)


def texts_of(table: pa.Table) -> list[str]:
    return [str(text) for text in table.column("text").to_pylist()]


@given(
    records=st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1, max_size=8),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_records_end_where_the_csv_module_ends_them(records: list[list[str]], line_end: str) -> None:
    lines = []
    for record in records:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator=line_end).writerow(record)
        lines.append(buffer.getvalue().encode())
    text = b"".join(lines)

    assert first_record_end(text) == len(lines[0])
    assert last_record_end(text) == len(text)
    assert open_quote(text) is None
    for cut in range(len(text)):
        ends = [sum(map(len, lines[: at + 1])) for at in range(len(lines))]
        assert last_record_end(text[:cut]) == max([end for end in ends if end <= cut], default=0)


def as_text(table: pa.Table) -> str:
    """Write CSV as Python's own module does, with CRLF."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(table.column_names)
    writer.writerows(zip(*table.to_pydict().values(), strict=True))
    return buffer.getvalue()
