from pathlib import Path

import pyarrow as pa

from ovray.scoring.done_rows import choose, count, missing, whole
from ovray.scoring.parts import OutputFolder, PartWriter, part_name, prepare_folder

SCHEMA = pa.schema({"n": pa.int64()})


def a_part(folder: OutputFolder, start: int, stop: int) -> None:
    with PartWriter(folder, start, stop, SCHEMA) as part:
        part.write_batch(pa.RecordBatch.from_pydict({"n": range(start, stop)}, schema=SCHEMA))
        part.commit()


def test_of_nested_ranges_the_outermost_is_taken() -> None:
    assert choose([(10, 20), (0, 40), (20, 40), (40, 50)]) == ((0, 40), (40, 50))
    assert choose([(0, 60), (60, 100), (0, 100)]) == ((0, 100),)


def test_of_ranges_that_only_touch_all_are_taken() -> None:
    assert choose([(5, 9), (0, 5)]) == ((0, 5), (5, 9))


def test_of_ranges_that_overlap_the_first_is_taken() -> None:
    assert choose([(3, 9), (0, 5), (9, 10)]) == ((0, 5), (9, 10))


def test_a_range_without_rows_is_no_range() -> None:
    assert choose([(5, 5), (7, 6)]) == ()


def test_what_is_missing_lies_before_between_and_behind() -> None:
    assert missing([(2, 4), (4, 6), (8, 9)], 10) == ((0, 2), (6, 8), (9, 10))
    assert missing([], 10) == ((0, 10),)
    assert missing([(0, 10)], 10) == ()
    assert count(((0, 2), (6, 8))) == 4


def test_a_part_is_whole_when_its_footer_counts_the_rows_of_its_name(tmp_path: Path) -> None:
    # given: one that is, one renamed, one cut short, one with a footer of nonsense, one empty, one that is gone
    folder = prepare_folder(tmp_path)
    for start in (0, 10, 20, 30):
        a_part(folder, start, start + 5)
    (tmp_path / part_name(10, 15)).rename(tmp_path / part_name(10, 16))
    content = (tmp_path / part_name(20, 25)).read_bytes()
    (tmp_path / part_name(20, 25)).write_bytes(content[:-9])
    footer_length = int.from_bytes(content[-8:-4], "little")
    nonsense = content[: -8 - footer_length] + b"\xff" * footer_length + content[-8:]
    (tmp_path / part_name(30, 35)).write_bytes(nonsense)
    (tmp_path / part_name(40, 45)).touch()

    found = whole(folder, [(0, 5), (10, 16), (20, 25), (30, 35), (40, 45), (50, 55)])

    assert [part.rows for part in found] == [(0, 5)]
