import os
import stat
from pathlib import Path

import pytest

from ovray.devices import leases
from ovray.devices.leases import CoreLeases, CoresTakenError, default_directory, whole_cores
from ovray.errors import ConfigError


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "GRACE_S", 0.0)


def _leases(directory: Path) -> CoreLeases:
    return CoreLeases(directory, sysfs_root=directory)


def _write_siblings(sysfs_root: Path, *cores: str) -> None:
    for siblings in cores:
        for cpu in siblings.split(","):
            topology = sysfs_root / f"devices/system/cpu/cpu{cpu}/topology"
            topology.mkdir(parents=True)
            (topology / "thread_siblings_list").write_text(siblings + "\n")


def test_a_taken_core_is_refused_with_its_owner_and_the_ways_out(tmp_path: Path) -> None:
    _leases(tmp_path).acquire([0, 1, 5], "ovray score resnet.xml", 0.0)

    with pytest.raises(CoresTakenError) as caught:
        _leases(tmp_path).acquire([1, 2, 5], "second", 0.0)

    message = str(caught.value)
    assert f"CPUs 1-2,5 are not all free: 1,5 by pid {os.getpid()} (ovray score resnet.xml)" in message
    assert all(way in message for way in ("--lease-timeout", "--devices CPU@", "--share-cores"))


def test_nothing_is_kept_when_one_core_is_missing(tmp_path: Path) -> None:
    with _leases(tmp_path).acquire([2], "first", 0.0):
        with pytest.raises(CoresTakenError):
            _leases(tmp_path).acquire([0, 1, 2], "second", 0.0)

        assert sorted(_leases(tmp_path).held()) == [2]


def test_released_cores_are_free_and_a_second_release_does_nothing(tmp_path: Path) -> None:
    lease = _leases(tmp_path).acquire([3], "first", 0.0)

    lease.release()
    lease.release()

    assert _leases(tmp_path).held() == {}
    _leases(tmp_path).acquire([3], "second", 0.0).release()


def test_a_lease_covers_the_smt_siblings_too(tmp_path: Path) -> None:
    _write_siblings(tmp_path, "0,4", "1,5")

    with _leases(tmp_path).acquire([0], "latency", 0.0) as lease:
        assert lease.cpus == (0, 4)
        with pytest.raises(CoresTakenError):
            _leases(tmp_path).acquire([4], "neighbour", 0.0)


def test_a_cpu_without_topology_stands_alone(tmp_path: Path) -> None:
    assert whole_cores([7], tmp_path) == {7}


def test_a_file_removed_while_it_is_held_does_not_trouble_the_release(tmp_path: Path) -> None:
    lease = _leases(tmp_path).acquire([0], "first", 0.0)
    for file in tmp_path.glob("*.lock"):
        file.unlink()

    lease.release()

    assert _leases(tmp_path).acquire([0], "second", 0.0).cpus == (0,)


def test_lock_files_can_be_opened_by_every_user_whatever_the_umask(tmp_path: Path) -> None:
    previous_umask = os.umask(0o077)
    try:
        _leases(tmp_path).acquire([0], "first", 0.0).release()
    finally:
        os.umask(previous_umask)

    files = list(tmp_path.iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o666]


@pytest.mark.parametrize("make", ["symlink", "fifo", "directory"])
def test_what_somebody_put_in_place_of_a_lock_file_is_refused(tmp_path: Path, make: str) -> None:
    path, victim = tmp_path / "ovray-cpu-0000.lock", tmp_path / "victim"
    victim.write_text("precious")
    if make == "symlink":
        path.symlink_to(victim)
    elif make == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()

    with pytest.raises(ConfigError, match="is not as ovray makes it"):
        _leases(tmp_path).acquire([0], "first", 0.0)

    assert victim.read_text() == "precious"


def test_an_owner_that_has_not_signed_yet_is_still_seen(tmp_path: Path) -> None:
    lease = _leases(tmp_path).acquire([0], "first", 0.0)
    (tmp_path / "ovray-cpu-0000.lock").write_text('{"pid": ')

    assert str(_leases(tmp_path).held()[0]) == "a process that has only just taken it"
    lease.release()


def test_the_directory_named_by_the_user_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVRAY_LEASE_DIR", str(tmp_path))

    assert default_directory() == tmp_path


def test_a_named_directory_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVRAY_LEASE_DIR", str(tmp_path / "absent"))

    with pytest.raises(ConfigError, match="install -d -m 1777"):
        default_directory()


def test_the_directory_is_one_that_every_user_may_write_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVRAY_LEASE_DIR", raising=False)

    assert stat.S_IMODE(default_directory().stat().st_mode) == 0o1777


def test_a_directory_where_no_file_can_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        _leases(tmp_path / "absent").acquire([0], "first", 0.0)
