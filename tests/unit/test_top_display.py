"""What ``ovray top`` shows of entries, on terminals of any width."""

import io

import pytest
from rich.console import Console

from ovray.cli.top import _picture
from ovray.driver.status import StatusMaker
from ovray.driver.status_board import SILENT_AFTER_S, Entry
from tests.unit.test_status import a_meter, a_reading, a_replica


def an_entry(age_s: float = 0.0) -> Entry:
    maker = StatusMaker("resnet-50", "requests")
    maker.make(a_reading(0.0, a_replica("node-a/CPU.0#0", a_meter(10))))
    broken = a_replica("node-b/GPU.0#0", a_meter(3, failed=4), state="evicted")
    status = maker.make(a_reading(2.0, a_replica("node-a/CPU.0#0", a_meter(250)), broken))
    return Entry(status=status, age_s=age_s)


def shown(width: int, *entries: Entry) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(_picture(width, entries, ()))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_wide_terminal_shows_all_of_it() -> None:
    text = "\n".join(shown(160, an_entry()))

    for part in ("resnet-50", "serves", "122", "node-a, node-b", "node-b/GPU.0#0", "evicted", "1/2"):
        assert part in text


@pytest.mark.parametrize("width", [30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
def test_no_line_is_wider_than_the_terminal_and_names_stay_whole(width: int) -> None:
    lines = shown(width, an_entry())

    assert all(len(line.rstrip()) <= width for line in lines)
    for part in ("resnet-50", "node-a/CPU.0#0", "120", "evicted"):
        assert any(part in line for line in lines) or width < 40, (width, part, lines)


def test_a_driver_that_is_not_heard_of_is_called_silent() -> None:
    assert "serves, silent 60 s" in "\n".join(shown(160, an_entry(age_s=60.0)))
    assert "silent" not in "\n".join(shown(160, an_entry(age_s=SILENT_AFTER_S / 2)))


def test_without_anything_it_says_so() -> None:
    assert shown(80) == ["no driver of this cluster serves or scores anything with ovray now"]
