"""How bad rows come to be in a folder once, whatever happens between their file and their part."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovray.errors import ConfigError, DataError
from ovray.scoring.bad_rows import BadRows, Stage
from ovray.scoring.chunk_part import write_chunk
from ovray.scoring.done_rows import Range
from ovray.scoring.error_files import error_table, finished_errors
from ovray.scoring.error_tally import ErrorTally
from ovray.scoring.folder_lock import open_folder
from ovray.scoring.kept import KeptColumns
from ovray.scoring.new_files import NewFile, _RenamedFile
from ovray.scoring.on_error import ErrorOptions, OnError
from ovray.scoring.parts import OutputFolder, part_name
from ovray.scoring.records import FileRef, Format, Slice
from ovray.scoring.result_formats import ResultFormat
from ovray.scoring.settling import settle_folder
from ovray.scoring.taking_up import Earlier, take_up
from tests.unit.test_taking_up_folders import JOB, OTHER_JOB, ROWS, look, opened

SCHEMA = pa.schema({"n": pa.int64()})
RECORD = ErrorOptions(on_error=OnError.RECORD)


def account(start: int, stop: int, bad: Sequence[int]) -> BadRows:
    """Make account of the bad rows of a chunk, all of one file."""
    ref = FileRef(name="a.csv", location="/a.csv", format=Format.CSV)
    rows = BadRows((start, stop), [Slice(ref=ref, start=start, stop=stop, blocks=(), size_bytes=1)], RECORD)
    for row in bad:
        rows.add(row - start, row - start + 1, Stage.PREPARE, "is null")
    return rows


def write(folder: OutputFolder, rows: Range, bad: Sequence[int]) -> None:
    """Write a chunk as a replica does."""
    start, stop = rows
    kept = KeptColumns(pa.schema([]))
    good = pa.RecordBatch.from_pydict({"n": [row for row in range(start, stop) if row not in bad]}, schema=SCHEMA)
    write_chunk(folder, account(start, stop, bad), kept, good)


def write_errors_only(folder: OutputFolder, rows: Range, bad: Sequence[int]) -> None:
    """Do what a replica does that is killed before its part has its name."""
    with finished_errors(folder, rows, error_table(account(*rows, bad).table(), pa.schema([]), [])) as errors:
        errors.file.appear()


def error_files(path: Path) -> list[str]:
    return sorted(os.listdir(path / "_errors")) if (path / "_errors").exists() else []


def bad_rows(path: Path) -> list[int]:
    rows: list[int] = []
    for name in error_files(path):
        rows += pq.read_table(path / "_errors" / name)["row"].to_pylist()
    return rows


def good_rows(path: Path) -> list[int]:
    rows: list[int] = pq.read_table(path)["n"].to_pylist()
    return rows


def check(path: Path, bad: Sequence[int]) -> None:
    """Check that each row is there once, in its place."""
    assert bad_rows(path) == list(bad)
    assert good_rows(path) == [row for row in range(ROWS) if row not in bad]
    assert (path / "_SUCCESS").exists()


def test_rows_and_errors_together_are_all_rows(tmp_path: Path) -> None:
    with opened(tmp_path) as taken:
        write(taken.folder, (0, 4), [1, 3])
        write(taken.folder, (4, 6), [])
        write(taken.folder, (6, ROWS), range(6, ROWS))
        assert settle_folder(taken.folder, [(0, 4), (4, 6), (6, ROWS)], ROWS) == 2 + ROWS - 6

    check(tmp_path, [1, 3, 6, 7, 8, 9])
    assert look(tmp_path).missing == ()


def test_a_replica_killed_before_its_part_appeared_leaves_no_errors_twice(tmp_path: Path) -> None:
    # 1. a replica writes its errors and dies  2. its rows are cut anew and done by others
    with opened(tmp_path) as taken:
        write_errors_only(taken.folder, (0, ROWS), [2, 7])
        write(taken.folder, (0, 5), [2])
        write(taken.folder, (5, ROWS), [7])
        settle_folder(taken.folder, [(0, 5), (5, ROWS)], ROWS)

    check(tmp_path, [2, 7])


@pytest.mark.parametrize(("late", "counts"), [([2], [2, 3]), ([7, 8], [2, 3]), ([], [])])
def test_of_two_copies_of_a_chunk_that_find_other_rows_bad_one_counts(
    tmp_path: Path, late: list[int], counts: list[int]
) -> None:
    # 1. a copy appears whole  2. another comes later: a part without errors may replace it, a pair of files not
    with opened(tmp_path) as taken:
        write(taken.folder, (0, ROWS), [2, 3])
        write(taken.folder, (0, ROWS), late)
        assert settle_folder(taken.folder, [(0, ROWS)], ROWS) == len(counts)

    check(tmp_path, counts)


def test_copies_with_other_bad_rows_that_appear_at_once_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 1. a copy's errors appear  2. another copy wants to be faster  3. the first one's part appears
    with opened(tmp_path) as taken, ThreadPoolExecutor(max_workers=1) as thread:
        others: list[Future[None]] = []

        def appear(file: NewFile) -> None:
            appears(file)
            if not others:
                others.append(thread.submit(write, taken.folder, (0, ROWS), [7]))
                wait(others, timeout=0.3)

        appears = _RenamedFile.appear
        monkeypatch.setattr(_RenamedFile, "appear", appear)
        write(taken.folder, (0, ROWS), [2])
        others[0].result(60)
        assert settle_folder(taken.folder, [(0, ROWS)], ROWS) == 1

    check(tmp_path, [2])


def test_errors_that_a_killed_replica_left_are_replaced_by_those_of_the_next_copy(tmp_path: Path) -> None:
    with opened(tmp_path) as taken:
        write_errors_only(taken.folder, (0, ROWS), [7])
        write(taken.folder, (0, ROWS), [2])
        settle_folder(taken.folder, [(0, ROWS)], ROWS)

    check(tmp_path, [2])


def test_errors_that_a_killed_replica_left_do_not_count_beside_a_part_that_lacks_no_row(tmp_path: Path) -> None:
    with opened(tmp_path) as taken:
        write_errors_only(taken.folder, (0, ROWS), [7])
        write(taken.folder, (0, ROWS), [])
        assert settle_folder(taken.folder, [(0, ROWS)], ROWS) == 0

    check(tmp_path, [])


@pytest.mark.parametrize("result_format", ResultFormat)
def test_errors_belong_to_parts_of_every_format(tmp_path: Path, result_format: ResultFormat) -> None:
    with open_folder(tmp_path, result_format) as folder:
        with take_up(folder, JOB, ROWS, Earlier.KEEP) as taken:
            write(taken.folder, (0, 4), [1, 3])
            write_errors_only(taken.folder, (4, ROWS), [5])
        with take_up(folder, JOB, ROWS, Earlier.KEEP) as taken:
            assert (taken.done, taken.errors) == (((0, 4),), 2)
            assert error_files(tmp_path) == [part_name(0, 4)]
            write(taken.folder, (4, ROWS), [])
            assert settle_folder(taken.folder, [(0, 4), (4, ROWS)], ROWS) == 2

    assert bad_rows(tmp_path) == [1, 3]


def test_a_job_that_a_folder_of_another_refuses_leaves_its_errors(tmp_path: Path) -> None:
    with open_folder(tmp_path, ResultFormat.CSV) as folder, take_up(folder, JOB, ROWS, Earlier.KEEP) as taken:
        write(taken.folder, (0, 4), [1])

    with pytest.raises(ConfigError, match="has results of another job"), opened(tmp_path, OTHER_JOB):
        pass

    assert error_files(tmp_path) == [part_name(0, 4)]


def test_a_killed_run_s_errors_stay_with_its_parts_and_no_others(tmp_path: Path) -> None:
    # given: a folder as a killed driver leaves it
    with opened(tmp_path) as taken:
        write(taken.folder, (0, 4), [1])
        write(taken.folder, (1, 3), [2])
        write_errors_only(taken.folder, (4, ROWS), [5])
        (tmp_path / "_errors" / f".{part_name(0, 1)}.0123").touch()
        record = (tmp_path / "_ovray.json").read_bytes()
    (tmp_path / "_ovray.json").write_bytes(record)

    with opened(tmp_path) as taken:
        assert (taken.done, taken.errors) == (((0, 4),), 1)
        assert bad_rows(tmp_path) == [1]
        write(taken.folder, (4, ROWS), [5])
        settle_folder(taken.folder, [(0, 4), (4, ROWS)], ROWS)

    check(tmp_path, [1, 5])


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_a_part_whose_errors_are_gone_or_damaged_is_done_again(tmp_path: Path, damage: object) -> None:
    with opened(tmp_path) as taken:
        write(taken.folder, (0, 4), [1])
        write(taken.folder, (4, ROWS), [5])
        (name, _) = error_files(tmp_path)
        assert callable(damage)
        damage(tmp_path / "_errors" / name)
        with pytest.raises(DataError, match=r"1 parts .* are gone .* the first is part-0+-0+4\.parquet"):
            settle_folder(taken.folder, [(0, 4), (4, ROWS)], ROWS)

    with opened(tmp_path) as taken:
        assert taken.missing == ((0, 4),)
        write(taken.folder, (0, 4), [1])
        settle_folder(taken.folder, [(0, 4), (4, ROWS)], ROWS)
    check(tmp_path, [1, 5])


def test_a_part_that_cannot_be_written_takes_its_errors_with_it(tmp_path: Path) -> None:
    with opened(tmp_path) as taken:
        (tmp_path / part_name(0, ROWS)).mkdir()  # nothing can be renamed to it
        with pytest.raises(DataError, match=r"part-0+-0+10\.parquet cannot be written to"):
            write(taken.folder, (0, ROWS), [1])

        assert error_files(tmp_path) == []
        (tmp_path / part_name(0, ROWS)).rmdir()


def test_errors_of_a_run_that_lost_the_folder_do_not_appear(tmp_path: Path) -> None:
    with opened(tmp_path) as taken, take_up(taken.folder, JOB, ROWS, Earlier.KEEP):
        with pytest.raises(DataError, match="was taken over by another run"):
            write(taken.folder, (0, ROWS), [1])
        assert error_files(tmp_path) == []


def test_a_restart_deletes_the_errors_too(tmp_path: Path) -> None:
    with opened(tmp_path) as taken:
        write(taken.folder, (0, ROWS), [1])
        settle_folder(taken.folder, [(0, ROWS)], ROWS)

    with opened(tmp_path, OTHER_JOB, Earlier.DELETE) as taken:
        assert (taken.errors, taken.missing) == (0, ((0, ROWS),))
        assert not (tmp_path / "_errors").exists()


def test_a_tally_keeps_the_first_row_and_ends_a_job_with_too_many() -> None:
    tally = ErrorTally(count=0, first=None, most=3)
    tally.add(0, None)
    tally.add(2, account(10, 20, [15, 16]).first)
    tally.add(1, account(0, 10, [3]).first)

    with pytest.raises(DataError) as raised:
        tally.add(1, account(20, 30, [25]).first)

    assert str(raised.value) == (
        "4 rows could not be scored, more than --max-errors 3; the first is a.csv, row 3 (the first is 0): is"
        " null; ovray scored no further and kept what was done; mend the rows and begin anew with --restart, or"
        " give the same command with a larger --max-errors to carry on"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "skip"}, "--on-error 'skip': give raise or record"),
        ({"max_errors": 3}, "give --on-error record with it"),
        ({"on_error": "record", "max_errors": -1}, "--max-errors -1: give a whole number from 0"),
        ({"on_error": "record", "max_errors": 1.5}, "--max-errors 1.5: give a whole number"),
        ({"on_error": "record", "max_errors": True}, "--max-errors True: give a whole number"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ErrorOptions.parse(**options)  # type: ignore[arg-type]
