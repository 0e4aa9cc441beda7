"""``ovray doctor``: arguments in, findings and an exit code out."""

from typing import Annotated

import typer
from rich.text import Text

from ovray.cli.printing import print_json, standard_output
from ovray.devices.findings import TROUBLE, Diagnosis, Status

STYLES = {Status.OK: "green", Status.INFO: "cyan", Status.WARN: "yellow", Status.FAIL: "bold red"}


def doctor(
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster; without it, a running one or one of its own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look for what goes wrong in practice, and say how to mend it.  Ends with 0 when all is well, else 1."""
    from ovray.driver import inspection  # slow: it imports ray

    diagnosis = inspection.doctor(address)
    if as_json:
        print_json({"healthy": diagnosis.is_healthy, "findings": diagnosis.rows()})
    else:
        _print(diagnosis)
    if not diagnosis.is_healthy:
        raise typer.Exit(1)


def _print(diagnosis: Diagnosis) -> None:
    console = standard_output()
    for finding in diagnosis.findings:
        status = Text(f"{finding.status.value:<5}", style=STYLES[finding.status])
        console.print(status, Text(f"{finding.host}: {finding.what} [{finding.check}]"), highlight=False)
        if finding.mend:
            console.print(Text(f"      to mend it: {finding.mend}"), highlight=False)
    troubles = sum(finding.status in TROUBLE for finding in diagnosis.findings)
    console.print("All is well." if not troubles else f"{troubles} to mend.")
