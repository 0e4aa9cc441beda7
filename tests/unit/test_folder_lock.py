import json
import os
import socket
from pathlib import Path

import pytest

from ovray.errors import ConfigError
from ovray.scoring.folder_lock import LOCK_NAME, hold_folder
from ovray.scoring.parts import OutputFolder, prepare_folder


def hold_and_let_go(folder: OutputFolder) -> None:
    with hold_folder(folder):
        pass


def test_a_second_driver_is_told_who_holds_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = prepare_folder("out")

    with hold_folder(folder), pytest.raises(ConfigError) as refused:
        hold_and_let_go(folder)

    message = str(refused.value)
    assert message.startswith(
        f"output 'out' is being written by pid {os.getpid()} on host {socket.gethostname()} since 2"
    )
    assert message.endswith("; nothing was started; wait until that is done, or name another folder with --output")


def test_a_folder_that_was_let_go_is_free_and_clean(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path)

    hold_and_let_go(folder)
    hold_and_let_go(folder)

    assert os.listdir(tmp_path) == []


def test_the_file_of_a_driver_that_was_killed_is_no_hindrance(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path)
    (tmp_path / LOCK_NAME).write_text(json.dumps({"host": "elsewhere", "pid": 1, "since_s": 0.0}))

    with hold_folder(folder):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_a_holder_that_has_not_signed_yet_is_no_riddle(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path)

    with hold_folder(folder):
        (tmp_path / LOCK_NAME).write_text("")
        with pytest.raises(ConfigError, match="is being written by a process that has only just begun"):
            hold_and_let_go(folder)


def test_a_forked_child_does_not_hold_the_folder(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path)
    begin, go_on = os.pipe()
    with hold_folder(folder):
        child = os.fork()
        if child == 0:
            os.read(begin, 1)
            os._exit(0)

    # when: the parent has let go, and the child lives
    hold_and_let_go(folder)

    os.write(go_on, b".")
    assert os.waitpid(child, 0)[1] == 0
    os.close(begin)
    os.close(go_on)


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "out")
    os.rmdir(tmp_path / "out")

    with pytest.raises(ConfigError, match="cannot be locked: "):
        hold_and_let_go(folder)


def test_a_url_of_a_disk_is_locked_too(tmp_path: Path) -> None:
    folder = prepare_folder(f"file://{tmp_path}")

    with hold_folder(prepare_folder(tmp_path)), pytest.raises(ConfigError, match="is being written by pid"):
        hold_and_let_go(folder)
