"""What a person reads while a job runs: speed, time left, and lines with their time where no terminal is."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console
from rich.live import Live

from ovray.cli import progress
from ovray.cli.pace import NOW_S, Pace
from ovray.cli.progress import LineDisplay, LiveDisplay
from ovray.core.ids import ReplicaId
from ovray.core.ledger import Counters, ReplicaState
from ovray.core.snapshot import ReplicaSnapshot, Snapshot
from ovray.driver.job import Progress
from ovray.errors import ReplicaError
from ovray.scoring.running import Resumed

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S.*")


def a_standing(name: str, **details: object) -> ReplicaSnapshot:
    standing = ReplicaSnapshot(
        id=ReplicaId(name),
        device="CPU.0",
        state=ReplicaState.READY,
        is_stalled=False,
        requests_outstanding=0,
        chunks_outstanding=1,
        rows_outstanding=10,
        rows_per_s=100.0,
        rows_done=250,
        busy_s=1.0,
        strikes=0,
    )
    return replace(standing, **details)  # type: ignore[arg-type]


def a_progress(
    *standings: ReplicaSnapshot,
    starting: tuple[str, ...] = (),
    counters: Counters | None = None,
    **details: object,
) -> Progress:
    snapshot = Snapshot(
        now_s=0.0,
        replicas=standings,
        jobs=(),
        requests_waiting=0,
        submitters_waiting=0,
        counters={name: getattr(counters or Counters(), name) for name in Counters.__slots__},
    )
    found = Progress(
        snapshot=snapshot,
        rows_total=1_000,
        rows_done=500,
        running_s=5.0,
        starting=tuple(ReplicaId(name) for name in starting),
    )
    return replace(found, **details)  # type: ignore[arg-type]


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(printed: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> LineDisplay:
    """Is a display that prints at every look."""
    monkeypatch.setattr(progress, "LINE_EVERY_S", ((float("inf"), 0.0),))
    return LineDisplay(Console(file=printed, width=240))


class TestPace:
    def test_now_is_the_last_minute_and_the_average_is_all_of_it(self) -> None:
        pace = Pace()
        for second in range(1, 601):
            pace.look(float(second), 100 * second if second <= 480 else 48_000 + 10 * (second - 480))

        assert pace.rows_per_s_now == pytest.approx(10.0)
        assert pace.rows_per_s == pytest.approx(49_200 / 600)
        assert pace.left_s(1_000) == pytest.approx(100.0)

    def test_while_nothing_moves_nobody_knows_when_it_ends(self) -> None:
        pace = Pace()
        pace.look(1.0, 10)
        assert pace.left_s(90) == pytest.approx(9.0)

        for second in range(2, int(NOW_S) + 3):
            pace.look(float(second), 10)

        assert pace.left_s(90) is None

    def test_before_the_first_look_there_is_no_speed(self) -> None:
        pace = Pace()

        assert (pace.rows_per_s, pace.rows_per_s_now, pace.left_s(1)) == (0.0, 0.0, None)

    def test_it_remembers_no_more_than_a_minute(self) -> None:
        pace = Pace()
        for quarter in range(4 * 3_600):
            pace.look(quarter / 4, 3 * quarter)

        assert len(pace._looks) <= 4 * NOW_S + 2


class TestLines:
    def test_each_line_has_its_time_and_says_all(self, lines: LineDisplay, printed: io.StringIO) -> None:
        counters = Counters(retries=2, backups_sent=1)

        lines.update(Resumed(rows=3_000, rows_total=4_000))
        lines.update(a_progress(a_standing("a"), starting=("b",), counters=counters, errors=7))

        told = printed.getvalue().splitlines()
        assert all(LINE.fullmatch(line) for line in told)
        assert "an earlier run had done 3,000 of 4,000 rows" in told[0]
        assert told[-1].split(" ", 2)[2] == (
            "3,500 of 4,000 rows (88%, 3,000 of them before), 100 rows/s now, 100 on average, 0:00:05 left,"
            " 1 ready, 1 starting, 7 rows put aside, 2 retries, 1 copy"
        )

    def test_what_happens_to_a_replica_is_told_once(self, lines: LineDisplay, printed: io.StringIO) -> None:
        gone = {ReplicaId("b"): ReplicaError("the process was killed")}

        for look in (
            a_progress(a_standing("a"), starting=("b", "c")),
            a_progress(a_standing("a", is_stalled=True), a_standing("b", state=ReplicaState.LOST), failures=gone),
            a_progress(a_standing("a"), a_standing("b", state=ReplicaState.LOST), failures=gone),
        ):
            lines.update(look)
            lines.update(look)

        changes = [line.split(" ", 2)[2] for line in printed.getvalue().splitlines() if " rows (" not in line]
        assert changes == ["a: ready", "a: suspected", "b: lost: the process was killed", "a: ready"]

    def test_a_rack_that_comes_up_is_one_line(self, lines: LineDisplay, printed: io.StringIO) -> None:
        lines.update(a_progress(*(a_standing(f"r{number}") for number in range(500))))

        first, *_ = printed.getvalue().splitlines()
        assert first.endswith("500 replicas are now ready")

    def test_lines_become_rarer(self, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
        now_s = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: now_s)
        display = LineDisplay(Console(file=printed, width=240))
        look = a_progress()
        while now_s < 8 * 3_600:
            now_s += 0.25
            display.update(look)

        assert 400 < len(printed.getvalue().splitlines()) < 600


class TestTerminal:
    def test_the_display_has_the_figures_and_the_replicas_that_cause_worry_first(self) -> None:
        console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
        many = [a_standing(f"r{number:02}") for number in range(30)]
        with Live(console=console, auto_refresh=False) as live:
            display = LiveDisplay(live)
            display.update(Resumed(rows=3_000, rows_total=4_000))
            display.update(a_progress(*many, a_standing("slow", is_stalled=True), starting=("late",)))
            with console.capture() as capture:
                console.print(live.renderable)

        rows = capture.get().splitlines()
        assert "3,500 of 4,000 rows (88%, 3,000 of them before), 100 rows/s now" in rows[1]
        assert rows[2].split() == ["replica", "state", "rows", "share", "rows/s"]
        assert rows[3].split() == ["slow", "suspected", "250", "50%", "100"]
        assert rows[-1].split(" ", 3)[:3] == ["and", "16", "more"]
        assert "30 ready, 1 suspected, 1 starting" in rows[-1]
