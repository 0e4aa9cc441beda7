"""What a run finds in a folder, however an earlier one ended, and what it makes of it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from ovray.errors import ConfigError, DataError, InvariantError
from ovray.scoring import error_files, fence, file_locks, notes, parts, taking_up
from ovray.scoring.done_rows import Range
from ovray.scoring.fence import FENCE_NAME
from ovray.scoring.folder_lock import LOCK_NAME, open_folder
from ovray.scoring.job_record import RECORD_NAME, InputStamp, JobRecord
from ovray.scoring.parts import OutputFolder, PartWriter, part_name
from ovray.scoring.result_formats import ResultFormat
from ovray.scoring.settling import settle_folder
from ovray.scoring.taking_up import SUCCESS_NAME, Earlier, TakenUp, take_up

SCHEMA = pa.schema({"n": pa.int64()})
ROWS = 10
STAMP = InputStamp(location="/data/a.parquet", rows=ROWS, size_bytes=1, modified_ns=None)
JOB = JobRecord(model="ab12", inputs=(STAMP,), bindings={}, results={}, options={})
OTHER_JOB = replace(JOB, model="cd34", options={"--limit": "5", "--precision": "f16"})


@contextmanager
def opened(
    path: str | Path,
    job: JobRecord = JOB,
    earlier: Earlier = Earlier.KEEP,
    result_format: ResultFormat = ResultFormat.PARQUET,
) -> Iterator[TakenUp]:
    """Hold a folder and take it up, as a run does."""
    with open_folder(path, result_format) as folder, take_up(folder, job, ROWS, earlier) as taken:
        yield taken


def write(folder: OutputFolder, *ranges: Range) -> None:
    for start, stop in ranges:
        with PartWriter(folder, start, stop, SCHEMA) as part:
            part.write_batch(pa.RecordBatch.from_pydict({"n": range(start, stop)}, schema=SCHEMA))
            part.commit()


def leave(path: Path, *ranges: Range) -> None:
    """Leave a folder as a run does that is killed after these parts."""
    with opened(path) as taken:
        write(taken.folder, *ranges)
        (path / f".{part_name(9, 10)}.0123abcd").touch()
        notes = {name: (path / name).read_bytes() for name in os.listdir(path)}
    for name, content in notes.items():
        (path / name).write_bytes(content)


def look(path: Path, job: JobRecord = JOB) -> TakenUp:
    """Take a folder up and do nothing."""
    with opened(path, job) as taken:
        return taken


def fail(path: Path, *ranges: Range) -> None:
    """Fail as a run does that cannot do more than these parts."""
    with opened(path) as taken:
        (path / f".{part_name(9, 10)}.0123abcd").touch()
        write_and_fail(taken.folder, *ranges)


def write_and_fail(folder: OutputFolder, *ranges: Range) -> None:
    write(folder, *ranges)
    raise DataError("a row is bad")


def finish(path: Path, *ranges: Range, damage: Callable[[Path], object] = lambda _: None) -> None:
    """Write and count these parts, and do harm to the last one in between."""
    with opened(path) as taken:
        write(taken.folder, *ranges)
        damage(path / part_name(*ranges[-1]))
        settle_folder(taken.folder, ranges, ROWS)


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def test_a_new_folder_lacks_every_row(tmp_path: Path) -> None:
    with opened(tmp_path / "out") as taken:
        assert (taken.done, taken.missing) == ((), ((0, ROWS),))
        assert JobRecord.from_json((tmp_path / "out" / RECORD_NAME).read_bytes()) == JOB


def test_a_run_carries_on_where_one_was_killed(tmp_path: Path) -> None:
    leave(tmp_path, (0, 3), (5, 6))
    assert {FENCE_NAME, LOCK_NAME, RECORD_NAME, f".{part_name(9, 10)}.0123abcd"} < set(names(tmp_path))

    with opened(tmp_path) as taken:
        write(taken.folder, *taken.missing)
        settle_folder(taken.folder, [*taken.done, *taken.missing], ROWS)

    assert (taken.done, taken.missing) == (((0, 3), (5, 6)), ((3, 5), (6, ROWS)))
    assert names(tmp_path) == sorted(
        [SUCCESS_NAME, RECORD_NAME, *(part_name(*one) for one in ((0, 3), (3, 5), (5, 6), (6, ROWS)))]
    )


@pytest.mark.parametrize("result_format", [ResultFormat.CSV, ResultFormat.ARROW])
def test_files_of_other_formats_are_carried_on_and_settled(tmp_path: Path, result_format: ResultFormat) -> None:
    # given: a run that was killed, one of whose parts was cut short since
    with opened(tmp_path, JOB, result_format=result_format) as taken:
        write(taken.folder, (0, 3), (5, 6), (6, 8))
        damaged = tmp_path / taken.folder.part_name(5, 6)
        damaged.write_bytes(damaged.read_bytes()[:-1])

    # when
    with opened(tmp_path, JOB, result_format=result_format) as taken:
        write(taken.folder, *taken.missing)
        write(taken.folder, (4, 6))  # of a replica that was lost
        settle_folder(taken.folder, [*taken.done, *taken.missing], ROWS)

    # then
    assert (taken.done, taken.missing) == (((0, 3), (6, 8)), ((3, 6), (8, ROWS)))
    parts_left = [taken.folder.part_name(*one) for one in ((0, 3), (3, 6), (6, 8), (8, ROWS))]
    assert names(tmp_path) == sorted([SUCCESS_NAME, RECORD_NAME, *parts_left])


def test_rows_in_files_of_another_format_are_those_of_another_job(tmp_path: Path) -> None:
    leave(tmp_path, (0, 5))
    as_csv = replace(JOB, options={"--format": "csv"})

    with (
        pytest.raises(ConfigError, match="option --format was not given and is now csv; nothing was changed"),
        opened(tmp_path, as_csv, result_format=ResultFormat.CSV),
    ):
        pass
    with opened(tmp_path, as_csv, Earlier.DELETE, ResultFormat.CSV) as taken:
        assert not list(tmp_path.glob("part-*"))
        write(taken.folder, *taken.missing)

    assert [path.name for path in tmp_path.glob("part-*")] == [part_name(0, ROWS, ResultFormat.CSV)]


def test_a_part_of_the_killed_run_cannot_appear_any_more(tmp_path: Path) -> None:
    # 1. a writer of a run has its rows  2. the run is killed and the next one takes up the folder  3. it commits
    with opened(tmp_path) as killed, take_up(killed.folder, JOB, ROWS, Earlier.KEEP) as later:
        with pytest.raises(DataError, match="was taken over by another run"):
            write(killed.folder, (0, 5))
        write(later.folder, (5, ROWS))

    assert look(tmp_path).done == ((5, ROWS),)


def test_a_finished_folder_is_left_as_it_is(tmp_path: Path) -> None:
    finish(tmp_path, (0, ROWS))
    for name in names(tmp_path):
        os.utime(tmp_path / name, ns=(0, 0))

    with opened(tmp_path) as taken:
        settle_folder(taken.folder, taken.done, ROWS)

    assert taken.missing == ()
    assert names(tmp_path) == sorted([SUCCESS_NAME, RECORD_NAME, part_name(0, ROWS)])
    assert {(tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)} == {0}


def test_a_finished_folder_that_lost_a_part_is_not_finished(tmp_path: Path) -> None:
    leave(tmp_path, (0, 5), (5, ROWS))
    (tmp_path / SUCCESS_NAME).touch()
    (tmp_path / part_name(0, 5)).unlink()

    with opened(tmp_path) as taken:
        assert taken.missing == ((0, 5),)
        assert SUCCESS_NAME not in names(tmp_path)


def test_parts_within_others_and_broken_ones_are_taken_away(tmp_path: Path) -> None:
    leave(tmp_path, (0, 4), (0, 2), (2, 4), (4, 6), (6, 8))
    (tmp_path / part_name(6, 8)).write_bytes(b"PAR1")
    (tmp_path / part_name(8, 12)).touch()

    taken = look(tmp_path)

    assert (taken.done, taken.missing) == (((0, 4), (4, 6)), ((6, ROWS),))
    assert [name for name in names(tmp_path) if name.startswith("part")] == [part_name(0, 4), part_name(4, 6)]


def test_a_broken_outer_part_leaves_the_whole_ones_within_it(tmp_path: Path) -> None:
    leave(tmp_path, (0, 4), (0, 2))
    (tmp_path / part_name(0, 4)).write_bytes(b"PAR1")

    assert look(tmp_path).done == ((0, 2),)


def test_rows_of_another_job_are_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    leave(Path("out"), (0, 5))
    before = set(names(Path("out")))

    with pytest.raises(ConfigError) as refused:
        look(Path("out"), OTHER_JOB)

    assert str(refused.value) == (
        "output 'out' has results of another job: the model is another one; option --limit was not given and is"
        " now 5; option --precision was not given and is now f16; nothing was changed; delete them and begin anew"
        " with --restart, or name another folder with --output"
    )
    assert set(names(Path("out"))) == before - {LOCK_NAME}
    assert look(Path("out")).done == ((0, 5),)


def test_rows_of_no_known_job_are_refused_and_kept(tmp_path: Path) -> None:
    leave(tmp_path, (0, 5))
    (tmp_path / RECORD_NAME).unlink()
    before = set(names(tmp_path))

    with pytest.raises(ConfigError, match=r"has results but no _ovray\.json that says of what; nothing was"):
        look(tmp_path)
    assert set(names(tmp_path)) == before - {LOCK_NAME}


def test_rows_with_a_record_that_cannot_be_read_are_refused_and_kept(tmp_path: Path) -> None:
    leave(tmp_path, (0, 5))
    (tmp_path / RECORD_NAME).write_text("{")

    with pytest.raises(ConfigError, match=r"has results of a job whose _ovray\.json cannot be read: Expecting"):
        look(tmp_path)
    assert part_name(0, 5) in names(tmp_path)


def test_a_restart_deletes_what_is_there_of_whatever_job(tmp_path: Path) -> None:
    leave(tmp_path, (0, 5), (5, ROWS))
    (tmp_path / SUCCESS_NAME).touch()

    with opened(tmp_path, OTHER_JOB, Earlier.DELETE) as taken:
        assert taken.missing == ((0, ROWS),)
        assert names(tmp_path) == [FENCE_NAME, RECORD_NAME, LOCK_NAME]
        assert JobRecord.from_json((tmp_path / RECORD_NAME).read_bytes()) == OTHER_JOB


def test_a_record_without_a_row_binds_nobody(tmp_path: Path) -> None:
    leave(tmp_path)

    with opened(tmp_path, OTHER_JOB):
        assert JobRecord.from_json((tmp_path / RECORD_NAME).read_bytes()) == OTHER_JOB


def test_a_run_that_fails_without_a_row_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a row is bad"):
        fail(tmp_path / "a" / "b")

    assert names(tmp_path) == []


def test_a_run_that_fails_keeps_its_rows_and_says_of_what(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a row is bad"):
        fail(tmp_path / "out", (0, 5))

    assert names(tmp_path / "out") == [RECORD_NAME, part_name(0, 5)]


def test_a_driver_that_comes_second_disturbs_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "out"):
        (tmp_path / "out" / f".{part_name(0, 1)}.0123abcd").touch()
        before = names(tmp_path / "out")

        with pytest.raises(ConfigError, match="is being written by pid"), opened(tmp_path / "out"):
            pass

        assert names(tmp_path / "out") == before


def test_what_the_driver_did_not_count_is_taken_away_at_the_end(tmp_path: Path) -> None:
    with opened(tmp_path) as taken:
        write(taken.folder, (0, 4), (0, ROWS), (4, ROWS))
        settle_folder(taken.folder, [(4, ROWS), (0, 4)], ROWS)

    assert names(tmp_path) == [SUCCESS_NAME, RECORD_NAME, part_name(0, 4), part_name(4, ROWS)]


def test_a_replica_that_was_given_up_and_yet_lives_adds_nothing_after_the_end(tmp_path: Path) -> None:
    # 1. a replica is given up with its rows written  2. others do them, and the job ends  3. it commits
    with opened(tmp_path) as taken:
        write(taken.folder, (0, 4), (4, ROWS))
        settle_folder(taken.folder, [(0, 4), (4, ROWS)], ROWS)

        with pytest.raises(DataError, match="was taken over"):
            write(taken.folder, (0, ROWS))

    assert names(tmp_path) == [SUCCESS_NAME, RECORD_NAME, part_name(0, 4), part_name(4, ROWS)]


def test_an_object_store_is_taken_up_and_carried_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file system that is not that of a disk is taken for an object store: no locks, no renames.
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    for room in (parts, notes, error_files, fence, file_locks):
        monkeypatch.setattr(room, "resolve", lambda _: (store, "bucket"))
    bucket = tmp_path / "bucket"
    bucket.mkdir()

    # given: a run that failed
    with pytest.raises(DataError, match="a row is bad"), opened("store://bucket") as taken:
        write_and_fail(taken.folder, (0, 4))
    assert names(bucket) == [RECORD_NAME, part_name(0, 4)]

    # when: two carry on, the second later
    with opened("store://bucket") as earlier, opened("store://bucket") as later:
        with pytest.raises(DataError, match="was taken over"):
            write(earlier.folder, *earlier.missing)
        write(later.folder, *later.missing)
        settle_folder(later.folder, [*later.done, *later.missing], ROWS)

    # then
    assert names(bucket) == [SUCCESS_NAME, RECORD_NAME, part_name(0, 4), part_name(4, ROWS)]
    with pytest.raises(ConfigError, match="has results of another job"), opened("store://bucket", OTHER_JOB):
        pass


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_a_part_that_is_gone_or_damaged_at_the_end_is_no_success(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    with pytest.raises(DataError, match=rf"1 parts of the result .* the first is {part_name(4, ROWS)};"):
        finish(tmp_path, (0, 4), (4, ROWS), damage=damage)

    assert SUCCESS_NAME not in names(tmp_path)
    assert look(tmp_path).missing == ((4, ROWS),)


@pytest.mark.parametrize("ranges", [[(0, 4)], [(0, 4), (5, ROWS)], [(0, 6), (4, ROWS)], [(0, ROWS), (0, ROWS)]])
def test_rows_that_were_counted_wrong_are_no_success(tmp_path: Path, ranges: list[Range]) -> None:
    with pytest.raises(InvariantError, match="are not the 10 rows"):
        finish(tmp_path, *ranges)

    assert SUCCESS_NAME not in names(tmp_path)


@pytest.mark.parametrize(
    ("step", "earlier"),
    [
        *((step, Earlier.KEEP) for step in ("remove_unfinished", "delete_parts")),
        *((step, Earlier.DELETE) for step in ("delete_all_parts", "write_note", "remove_unfinished")),
    ],
)
def test_a_kill_within_taking_up_leaves_no_part_beside_the_record_of_another_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, earlier: Earlier
) -> None:
    # given: rows of one job, and a run of the same or, anew, of another one
    leave(tmp_path, (0, 5))
    job = OTHER_JOB if earlier is Earlier.DELETE else JOB

    # when: it is killed at a step, so that nothing is cleaned up
    with monkeypatch.context() as patched:
        patched.setattr(taking_up, step, kill)
        patched.setattr(taking_up, "_keep_what_is_complete", lambda _: None)
        with pytest.raises(Killed), opened(tmp_path, job, earlier):
            pass

    # then: what parts there are, are beside their own record
    if part_name(0, 5) in names(tmp_path):
        assert JobRecord.from_json((tmp_path / RECORD_NAME).read_bytes()) == JOB
    with opened(tmp_path, job, earlier) as taken:
        assert taken.missing == (((5, ROWS),) if job == JOB else ((0, ROWS),))


def test_a_part_of_another_job_that_appears_at_the_last_moment_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 1. a run of another job is killed before its first part  2. the next one finds no part
    leave(tmp_path)
    with opened(tmp_path) as killed:
        folder = replace(killed.folder, fence=None)

    # 3. that part appears  4. the next run takes over
    def appear_and_take_over(name: str, location: str) -> fence.Fence:
        write(folder, (0, 5))
        return fence.take_over(name, location)

    (tmp_path / RECORD_NAME).write_bytes(JOB.to_json())
    monkeypatch.setattr(taking_up, "take_over", appear_and_take_over)

    with pytest.raises(ConfigError, match="has results of another job"):
        look(tmp_path, OTHER_JOB)
    assert part_name(0, 5) in names(tmp_path)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


def kill(*_: object) -> None:
    raise Killed
