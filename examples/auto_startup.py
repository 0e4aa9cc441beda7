"""AUTO: answers come from the CPU at once, and from the accelerator when that has compiled.

    $ python examples/auto_startup.py
    AUTO:...
    ... s: the first answer, from ...CPU...
    ... s: from now on ...
    the CPU did ... rows, the accelerator ...

Without a GPU here, a simulated device (`SIM`) stands for one whose compiling takes five seconds; its answers
mean nothing.
"""

import time

import pandas

import ovray
from ovray import digits

#: A GPU that compiles for minutes is not waited for in an example.
PATIENCE_S = 60.0

has_gpu = any(row["device"].startswith("GPU") for row in ovray.devices().rows())
accelerator = "GPU" if has_gpu else "SIM?compile_s=5&ms=1"
devices = f"AUTO:{accelerator},CPU"
print(devices)

images = pandas.read_parquet(digits.held_out_file())
inputs = [pixels.reshape(1, 64) for pixels in images["pixels"]]


def rows_by_kind(compiled: ovray.CompiledModel) -> dict[str, int]:
    """Counts what was done by ``CPU`` and by the accelerator."""
    stats = compiled.stats()
    return stats.groupby(stats["device"].str.split(".").str[0])["rows_done"].sum().to_dict()


began_s = time.monotonic()
with ovray.compile_model(digits.model_file(), devices) as compiled:
    compiled(inputs[0])
    first = compiled.stats().set_index("id")["rows_done"].idxmax()
    print(f"{time.monotonic() - began_s:.1f} s: the first answer, from {first}")

    kind = accelerator.split("?")[0]
    while rows_by_kind(compiled).get(kind, 0) == 0 and time.monotonic() < began_s + PATIENCE_S:
        compiled(inputs[1])
        time.sleep(0.1)
    print(f"{time.monotonic() - began_s:.1f} s: from now on {kind}")

    before = rows_by_kind(compiled)
    for pixels in inputs:
        compiled(pixels)
    # What replicas say of themselves is half a second old at most.
    time.sleep(1.0)
    after = rows_by_kind(compiled)
print(f"the CPU did {after['CPU']} rows, the accelerator {after[kind]}")
assert after["CPU"] == before["CPU"]
