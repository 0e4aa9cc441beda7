import json
import os
import socket
from pathlib import Path

import pytest

from ovray.errors import ConfigError
from ovray.scoring.folder_lock import LOCK_NAME, open_folder


def hold_and_let_go(folder: str | Path) -> None:
    with open_folder(folder):
        pass


def test_a_second_driver_is_told_who_holds_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = "out"

    with open_folder(folder), pytest.raises(ConfigError) as refused:
        hold_and_let_go(folder)

    message = str(refused.value)
    assert message.startswith(
        f"output 'out' is being written by pid {os.getpid()} on host {socket.gethostname()} since 2"
    )
    assert message.endswith("; nothing was started; wait until that is done, or name another folder with --output")


def test_a_folder_that_was_let_go_is_free_and_clean(tmp_path: Path) -> None:
    folder = tmp_path

    hold_and_let_go(folder)
    hold_and_let_go(folder)

    assert os.listdir(tmp_path) == []


def test_the_file_of_a_driver_that_was_killed_is_no_hindrance(tmp_path: Path) -> None:
    folder = tmp_path
    (tmp_path / LOCK_NAME).write_text(json.dumps({"host": "elsewhere", "pid": 1, "since_s": 0.0}))

    with open_folder(folder):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_a_holder_that_has_not_signed_yet_is_no_riddle(tmp_path: Path) -> None:
    folder = tmp_path

    with open_folder(folder):
        (tmp_path / LOCK_NAME).write_text("")
        with pytest.raises(ConfigError, match="is being written by a process that has only just begun"):
            hold_and_let_go(folder)


def test_a_child_of_a_killed_driver_does_not_hold_the_folder(tmp_path: Path) -> None:
    # given: a driver that forked while it held the folder, and ended as by a kill; its child lives
    wait, go_on = os.pipe()
    runs, say_so = os.pipe()
    driver = os.fork()
    if driver == 0:
        with open_folder(tmp_path):
            if os.fork() == 0:
                os.close(go_on)
                os.write(say_so, b"r")
                os.read(wait, 1)
            os._exit(0)
    assert os.waitpid(driver, 0)[1] == 0
    assert os.read(runs, 1) == b"r"
    os.close(runs)
    os.close(say_so)
    assert os.listdir(tmp_path) == [LOCK_NAME]

    try:
        hold_and_let_go(tmp_path)
    finally:
        os.close(go_on)  # which ends the child
        os.close(wait)


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).mkdir()

    with pytest.raises(ConfigError, match=r"cannot be locked: .*; name another folder with --output"):
        hold_and_let_go(tmp_path)


def test_folders_that_were_made_for_nothing_go_away_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_folder(tmp_path / "a" / "b"):
        raise KeyboardInterrupt

    assert os.listdir(tmp_path) == []


def test_a_url_of_a_disk_is_locked_too(tmp_path: Path) -> None:
    folder = f"file://{tmp_path}"

    with open_folder(tmp_path), pytest.raises(ConfigError, match="is being written by pid"):
        hold_and_let_go(folder)
