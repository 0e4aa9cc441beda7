import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from ovray.errors import DataError
from ovray.scoring import fence, file_locks
from ovray.scoring.fence import FENCE_NAME, Fence, take_over
from ovray.scoring.parts import PartWriter, part_name, prepare_folder

SCHEMA = pa.schema({"n": pa.int64()})


def pass_once(run: Fence) -> None:
    with run.passing():
        pass


def test_parts_of_the_run_that_took_the_folder_pass(tmp_path: Path) -> None:
    run = take_over("out", str(tmp_path))

    pass_once(run)
    pass_once(run)


def test_parts_of_an_earlier_run_do_not_pass(tmp_path: Path) -> None:
    earlier = take_over("out", str(tmp_path))
    later = take_over("out", str(tmp_path))

    with pytest.raises(DataError) as refused:
        pass_once(earlier)

    pass_once(later)
    assert str(refused.value) == (
        "output 'out' was taken over by another run of ovray; this one adds nothing more to it"
    )


def test_a_part_that_was_written_before_and_is_committed_after_leaves_nothing(tmp_path: Path) -> None:
    # 1. a writer has written all its rows
    folder = replace(prepare_folder(tmp_path), fence=take_over("out", str(tmp_path)))
    with PartWriter(folder, 0, 1, SCHEMA) as part:
        part.write_batch(pa.RecordBatch.from_pydict({"n": [0]}, schema=SCHEMA))

        # 2. the next run takes the folder over
        take_over("out", str(tmp_path))

        # 3. the writer commits
        with pytest.raises(DataError, match="was taken over"):
            part.commit()

    assert os.listdir(tmp_path) == [FENCE_NAME]


def test_a_part_of_the_run_itself_is_committed(tmp_path: Path) -> None:
    folder = replace(prepare_folder(tmp_path), fence=take_over("out", str(tmp_path)))

    with PartWriter(folder, 0, 1, SCHEMA) as part:
        part.write_batch(pa.RecordBatch.from_pydict({"n": [0]}, schema=SCHEMA))
        part.commit()

    assert sorted(os.listdir(tmp_path)) == [FENCE_NAME, part_name(0, 1)]


def test_taking_over_waits_for_a_part_that_is_just_being_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "TAKE_OVER_TIMEOUT_S", 0.0)
    monkeypatch.setattr(fence, "_PAUSE_S", 0.0)
    run = take_over("out", str(tmp_path))

    with run.passing(), pytest.raises(DataError, match="has been adding a part to output 'out' for 0 s"):
        take_over("out", str(tmp_path))

    take_over("out", str(tmp_path))


def test_nothing_passes_once_the_fence_is_remove(tmp_path: Path) -> None:
    run = take_over("out", str(tmp_path))

    run.remove()

    assert os.listdir(tmp_path) == []
    with pytest.raises(DataError, match="was taken over"):
        pass_once(run)


def test_nothing_passes_once_the_fence_is_closed(tmp_path: Path) -> None:
    run = take_over("out", str(tmp_path))

    run.close()

    with pytest.raises(DataError, match="was taken over"):
        pass_once(run)


def test_a_fence_that_is_closed_goes_away_as_well(tmp_path: Path) -> None:
    run = take_over("out", str(tmp_path))

    run.close()
    run.remove()
    run.remove()

    assert os.listdir(tmp_path) == []


def test_the_fence_of_a_later_run_stays(tmp_path: Path) -> None:
    earlier, later = take_over("out", str(tmp_path)), take_over("out", str(tmp_path))

    earlier.remove()

    pass_once(later)


def test_a_fence_stays_while_a_part_is_being_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else the next run would make a fence of its own and not wait for that part.
    monkeypatch.setattr(fence, "_REMOVE_TIMEOUT_S", 0.0)
    run = take_over("out", str(tmp_path))

    with run.passing():
        run.remove()

    assert os.listdir(tmp_path) == [FENCE_NAME]


def test_a_writer_that_opened_the_fence_of_a_run_that_is_over_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 1. a writer has opened the file  2. its run ends and the next one begins  3. the writer gets its lock
    run = take_over("out", str(tmp_path))

    def end_and_begin(descriptor: int, kind: file_locks.Kind) -> file_locks.Attempt:
        run.remove()
        take_over("out", str(tmp_path))
        return file_locks.wait_for_lock(descriptor, kind)

    monkeypatch.setattr(fence, "wait_for_lock", end_and_begin)
    with pytest.raises(DataError, match="was taken over"):
        pass_once(run)


def test_where_files_cannot_be_locked_writers_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file system that is not that of a disk is taken for an object store.
    (tmp_path / "bucket").mkdir()
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    monkeypatch.setattr(fence, "resolve", lambda location: (store, "bucket"))
    monkeypatch.setattr(file_locks, "resolve", lambda location: (store, "bucket"))
    earlier = take_over("store://bucket", "store://bucket")
    pass_once(earlier)
    later = take_over("store://bucket", "store://bucket")

    with pytest.raises(DataError, match="was taken over"):
        pass_once(earlier)
    pass_once(later)

    earlier.remove()
    pass_once(later)
    later.remove()
    assert os.listdir(tmp_path / "bucket") == []
    with pytest.raises(DataError, match="was taken over"):
        pass_once(later)
