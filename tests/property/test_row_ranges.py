import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovray.scoring import text_blocks
from ovray.scoring.csv_records import first_record_end, last_record_end, open_quote
from ovray.scoring.reading import RowReader
from tests.data_builders import a_data_set, a_parquet_file, a_text_file

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


@pytest.fixture(autouse=True)
def block_size_is_restored() -> Iterator[None]:
    before = text_blocks.BLOCK_BYTES
    yield
    text_blocks.BLOCK_BYTES = before


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, texts=st.lists(TEXTS, min_size=48, max_size=48), as_csv=st.booleans())
def test_any_ranges_of_any_files_are_the_rows_of_the_files_joined(
    shape: tuple[list[int], int, int | None, list[tuple[float, float]], int], texts: list[str], as_csv: bool
) -> None:
    # given: files whose rows are numbered through, one text of letters beside each number
    file_rows, block, limit, ranges, rows_per_batch = shape
    text_blocks.BLOCK_BYTES = 8 * block
    total = sum(file_rows)
    joined = pa.table({"n": range(total), "text": [f"t{text}" for text in texts[:total]]})
    with tempfile.TemporaryDirectory() as folder:
        start = 0
        for at, rows in enumerate(file_rows):
            table = joined.slice(start, rows)
            start += rows
            if as_csv:
                a_text_file(Path(folder, f"{at}.csv"), as_text(table))
            else:
                a_parquet_file(Path(folder, f"{at}.parquet"), table, rows_per_group=block)

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


@settings(deadline=None)
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
