"""``ovray demo``: scores real images with a real model on this machine and says how well that went."""

import tempfile
from pathlib import Path

from ovray.cli.placement_options import (
    AddressOption,
    DevicesOption,
    LeaseTimeoutOption,
    ShareCoresOption,
)


def demo(
    devices: DevicesOption = "MULTI",
    share_cores: ShareCoresOption = False,
    lease_timeout: LeaseTimeoutOption = 30.0,
    address: AddressOption = None,
) -> None:
    """Score 540 handwritten digits that the packaged model has never seen; print its accuracy and rows/s.

    Images: UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak), CC BY 4.0.
    """
    import pyarrow.parquet as pq

    from ovray import digits
    from ovray.cli.printing import standard_output
    from ovray.cli.progress import display
    from ovray.cli.result_table import print_report
    from ovray.driver.placement import PlacementOptions
    from ovray.scoring.options import ScoreOptions
    from ovray.scoring.score import run

    placement = PlacementOptions.parse(
        devices=devices,
        hint="THROUGHPUT",
        precision=None,
        share_cores=share_cores,
        lease_timeout_s=lease_timeout,
    )
    options = ScoreOptions(placement=placement, address=address)
    with tempfile.TemporaryDirectory(prefix="ovray-demo-") as folder:
        output = str(Path(folder, "scores"))
        with display(shown=True) as watch:
            report = run(digits.model_file(), [digits.held_out_file()], output, options, watch)
        scored = pq.read_table(output, columns=[digits.LABEL_COLUMN, digits.DIGIT_COLUMN]).to_pandas()
    right = int((scored[digits.LABEL_COLUMN] == scored[digits.DIGIT_COLUMN]).sum())
    print_report(report)
    standard_output().print(
        f"accuracy {right / len(scored):.4f}: {right} of {len(scored)} digits read as they were meant",
        highlight=False,
    )
