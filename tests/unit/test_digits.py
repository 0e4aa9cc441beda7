from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovray import digits

#: How often each digit occurs in the source, as its authors published it (optdigits.names, "testing set").
SOURCE_COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


@pytest.fixture(scope="module")
def held_out() -> pa.Table:
    return pq.read_table(digits.held_out_file())


def test_the_packaged_files_exist_and_are_small() -> None:
    folder = digits.model_file().parent

    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}

    assert {"model.xml", "model.bin", "held_out.parquet", "LICENSE-data.md"} <= sizes.keys()
    assert sum(sizes.values()) < 300_000


def test_the_held_out_file_has_the_columns_that_the_package_names(held_out: pa.Table) -> None:
    assert held_out.schema.names == [digits.ID_COLUMN, digits.PIXELS_COLUMN, digits.LABEL_COLUMN]
    assert held_out.schema.types == [pa.int64(), pa.list_(pa.uint8(), 64), pa.int64()]
    assert all(column.null_count == 0 for column in held_out.columns)


def test_the_held_out_file_has_row_groups_for_several_replicas() -> None:
    footer = pq.read_metadata(digits.held_out_file())

    rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]

    assert rows == [60] * 9


def test_held_out_ids_are_places_in_the_source_and_unique(held_out: pa.Table) -> None:
    ids = held_out[digits.ID_COLUMN].to_pylist()

    assert ids == sorted(set(ids))
    assert ids[0] >= 0
    assert ids[-1] < sum(SOURCE_COUNTS)


def test_held_out_pixels_count_the_ink_of_4_by_4_squares(held_out: pa.Table) -> None:
    pixels = held_out[digits.PIXELS_COLUMN].combine_chunks().flatten().to_pylist()

    assert set(pixels) == set(range(17))


def test_each_digit_is_held_out_in_the_proportion_of_the_source(held_out: pa.Table) -> None:
    counts = Counter(held_out[digits.LABEL_COLUMN].to_pylist())

    fraction = held_out.num_rows / sum(SOURCE_COUNTS)
    assert sorted(counts) == list(range(10))
    assert all(abs(counts[digit] - fraction * SOURCE_COUNTS[digit]) < 1 for digit in range(10))
