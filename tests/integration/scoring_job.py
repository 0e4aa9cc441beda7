"""A scoring job that is long enough to be killed in the middle, run as a person would run it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ovray import digits
from tests.waiting import DEADLINE_S, wait_until

#: Writes what each of its threads does to standard error when it is asked to by SIGUSR1.
PROGRAM = """
import faulthandler, signal
faulthandler.register(signal.SIGUSR1)
from ovray.cli.main import main
main()
"""
COMMAND = [sys.executable, "-c", PROGRAM, "score"]

#: One row at a time is slow enough to leave some seconds for kills.
ROWS_PER_INFERENCE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringJob:
    """Is one command, which can be started again and again."""

    input: Path
    output: Path
    address: str
    lease_folder: Path
    devices: str

    def start(self, *options: str) -> "subprocess.Popen[str]":
        """Start the command in a process of its own."""
        return subprocess.Popen(
            [*COMMAND, digits.model_file(), self.input, "--output", self.output, *self._options(), *options],
            env={**os.environ, "OVRAY_LEASE_DIR": str(self.lease_folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *options: str) -> dict[str, Any]:
        """Run the command to its end, which must be a good one; returns what it reports."""
        process = self.start(*options)
        printed, complained = self.wait_for_end(process)
        assert process.returncode == 0, complained
        report: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return report

    def wait_for_end(self, process: "subprocess.Popen[str]") -> tuple[str, str]:
        """Wait until the command has ended, for as long as parts come; returns what it printed and complained."""
        there = -1
        while len(self.parts()) > there:
            there = len(self.parts())
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=DEADLINE_S)
        raise AssertionError(f"no part after the first {there} for {DEADLINE_S:g} s:\n{_end_stuck(process)}")

    def parts(self) -> list[str]:
        """Return the names of the parts that are there now."""
        return sorted(path.name for path in self.output.glob("part-*"))

    def wait_for_parts(self, process: "subprocess.Popen[str]", wanted: int, *, for_s: float = DEADLINE_S) -> None:
        """Wait until the folder holds so many parts, the command has ended, or the time is over."""
        wait_until(
            lambda: process.poll() is not None or len(self.parts()) >= wanted, timeout_s=for_s, poll_s=0.002
        )

    def rows(self) -> pa.Table:
        """Return all that the folder holds, in the order of parts."""
        return pq.read_table(self.output)

    def _options(self) -> list[str]:
        return [
            *("--address", self.address, "--devices", self.devices, "--json"),
            *("--batch-size", str(ROWS_PER_INFERENCE), "--commit-every", "0.05"),
        ]


def _end_stuck(process: "subprocess.Popen[str]") -> str:
    """End a command that does not end by itself; returns what it said and what its threads did."""
    process.send_signal(signal.SIGUSR1)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=5)
    process.kill()
    return "".join(process.communicate(timeout=DEADLINE_S))


def write_numbered_digits(path: Path, *, rows: int) -> None:
    """Write the packaged images again and again, each row with a number of its own."""
    held_out = pq.read_table(digits.held_out_file())
    copies = -(-rows // held_out.num_rows)
    table = pa.concat_tables([held_out] * copies).slice(0, rows)
    pq.write_table(table.append_column("number", pa.array(range(rows))), path, row_group_size=4096)
