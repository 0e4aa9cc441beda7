"""Two models at once, each on devices of its own, so that neither waits for the other.

    $ python examples/models_side_by_side.py
    reader on ...
    inker on ...
    540 digits; ink between ... and ...

Named cores (`CPU@0`) are leased: no other job of ovray's on this host gets them. With a GPU, give it to one model
(`GPU`) and the CPU to the other.
"""

import numpy as np
import openvino.opset13 as ops
import pandas

import ovray as ov
from ovray import digits


def ink_model() -> ov.Model:
    """Makes a model that says how much ink is on a picture: ``pixels`` f32[?,64] in, ``ink`` f32[?] out."""
    pixels = ops.parameter([-1, 64], np.float32, name="pixels")
    ink = ops.reduce_sum(pixels, ops.constant(np.int64(1)))
    ink.output(0).set_names({"ink"})
    return ov.Model([ink], [pixels], "ink")


# Cores, not CPUs: two hyperthreads of one core would be in each other's way.
host = ov.devices().hosts[0]
first, *others = [core.cpus[0] for core in host.topology.cores]
if others:
    where = [{"device_name": f"{host.name}/CPU@{cpu}"} for cpu in (first, others[0])]
else:
    # A single core has to do for both.
    where = [{"device_name": "CPU", "share_cores": True}] * 2

images = pandas.read_parquet(digits.held_out_file())
inputs = [pixels.reshape(1, 64) for pixels in images["pixels"]]
with (
    ov.compile_model(digits.model_file(), **where[0]) as reader,
    ov.compile_model(ink_model(), **where[1]) as inker,
):
    print("reader on", reader.replicas[0].id, "CPUs", reader.replicas[0].cpus)
    print("inker on", inker.replicas[0].id, "CPUs", inker.replicas[0].cpus)
    both = [(reader.submit(pixels), inker.submit(pixels)) for pixels in inputs]
    read = [int(reading.result()["digit"][0]) for reading, _ in both]
    ink = [float(inking.result()["ink"][0]) for _, inking in both]
print(f"{len(read)} digits; ink between {min(ink):.0f} and {max(ink):.0f}")
