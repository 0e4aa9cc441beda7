"""``ovray.devices`` is a package and a function, in whatever order its parts are imported."""

import importlib
import inspect

import pytest

import ovray.devices
import ovray.driver.inspection
from ovray.devices.inventory import ClusterProbe


def test_the_package_is_called_as_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def devices(address: str | None, *, timeout_s: float) -> ClusterProbe:
        calls.append((address, timeout_s))
        return ClusterProbe(hosts=())

    monkeypatch.setattr(ovray.driver.inspection, "devices", devices)

    assert ovray.devices("head:6379", timeout_s=5.0) == ClusterProbe(hosts=())  # type: ignore[operator]
    assert calls == [("head:6379", 5.0)]


def test_its_signature_is_that_of_the_function() -> None:
    package = inspect.signature(ovray.devices).parameters  # type: ignore[arg-type]
    function = inspect.signature(ovray.driver.inspection.devices).parameters

    assert list(package.values()) == list(function.values())


def test_its_modules_are_found_in_every_way_of_importing() -> None:
    import ovray.devices.cpulist as by_path
    from ovray.devices import cpulist as by_name

    assert by_path is by_name is ovray.devices.cpulist is importlib.import_module("ovray.devices.cpulist")


def test_it_can_still_be_called_after_a_late_first_import_of_a_module() -> None:
    importlib.reload(importlib.import_module("ovray.devices.cpulist"))

    assert callable(ovray.devices)
