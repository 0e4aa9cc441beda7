"""Answers single requests as fast as the hardware allows: a replica on the cores and memory of each NUMA node.

    $ python examples/latency_on_numa_nodes.py
    id  numa_node  cpus  streams
    ...
    p50 ... ms, p99 ... ms one at a time; each node answered

LATENCY is one stream on a node's physical cores, no hyperthreads, and no batches. A machine of two sockets
answers two requests at once in the time of one.
"""

import time

import numpy as np
import pandas

import ovray
from ovray import digits

REQUESTS = 200

# Where replicas will run, before anything is started.
plan = ovray.plan(devices="CPU", hint="LATENCY").to_pandas()
print(plan[["id", "numa_node", "cpus", "streams"]].to_string(index=False))

images = pandas.read_parquet(digits.held_out_file())
inputs = [pixels.reshape(1, 64) for pixels in images["pixels"]]

with ovray.compile_model(digits.model_file(), "CPU", {"PERFORMANCE_HINT": "LATENCY"}) as compiled:
    # The first replica that is ready serves; the measurement waits for all.
    while any(replica.state == "starting" for replica in compiled.replicas):
        time.sleep(0.1)
    times_ms = []
    for pixels in inputs[:REQUESTS]:
        began_s = time.perf_counter()
        compiled(pixels)
        times_ms.append((time.perf_counter() - began_s) * 1000)
    # Requests in parallel, one for each node, are answered by all of them.
    for replica in compiled.replicas:
        compiled.submit(inputs[0], device=replica.place).result()
p50_ms, p99_ms = np.percentile(times_ms, [50, 99])
print(f"p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms one at a time; each node answered")
