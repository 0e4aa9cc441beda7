"""Prints what came out of a scoring job: who did how much, how fast, where the results are.

May not enter: what is shown while it runs (progress.py).
"""

from rich.table import Table

from ovray.cli.printing import standard_output
from ovray.cli.terminal import messages
from ovray.devices.cpulist import format_cpu_list
from ovray.scoring.report import ScoreReport


def print_report(report: ScoreReport) -> None:
    """Prints what came out of a job."""
    console = standard_output()
    scored = report.rows - report.resumed_rows
    if not scored:
        console.print(
            f"an earlier run had done all {report.rows:,} rows; results in {report.output}",
            markup=False,
            highlight=False,
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("replica", "device", "host", "cores", "rows", "share", "busy %"):
        table.add_column(column, justify="right" if column in ("rows", "share", "busy %") else "left")
    for replica in report.to_json()["replicas"]:
        table.add_row(
            replica["id"],
            replica["device"],
            replica["host"],
            format_cpu_list(replica["cpus"]),
            f"{replica['rows']:,}",
            f"{replica['rows'] / scored:.0%}",
            f"{min(replica['busy_s'] / max(report.run_seconds, 1e-9), 1.0):.0%}",
        )
    console.print(table)
    before = f"; an earlier run had done {report.resumed_rows:,}" if report.resumed_rows else ""
    console.print(
        f"{scored:,} rows in {report.run_seconds:.2f} s, {report.rows_per_s:,.0f} rows/s"
        f" ({report.seconds:.1f} s with start-up){before}; results in {report.output}",
        markup=False,
        highlight=False,
    )
    if report.errors:
        messages.say(f"ovray: {report.errors:,} rows could not be scored; {report.output}/_errors says why")
    for warning in report.warnings:
        messages.say(f"ovray: warning: {warning}")
