"""A driver script: a queue with a callback, as in OpenVINO, and Python's own ways to wait for answers.

    $ python examples/driver_script.py
    queue: 540 digits, accuracy 0.98
    submit: 1
    map: [1, 4, 8, 9, 1]
    one replica: ...CPU.0...

Results are matched to their inputs by what you hand over with them, here the number of the row: devices differ in
speed, so answers come in another order than questions.
"""

import pandas

import ovray as ov
from ovray import digits

images = pandas.read_parquet(digits.held_out_file())
inputs = [pixels.reshape(1, 64) for pixels in images["pixels"]]

# Every device of the cluster that RAY_ADDRESS names; without one, every device of this machine.
with ov.Core().compile_model(digits.model_file(), "MULTI") as compiled:
    read: dict[int, int] = {}
    queue = ov.AsyncInferQueue(compiled)
    queue.set_callback(lambda request, row: read.update({row: int(request.results["digit"][0])}))
    for row, pixels in enumerate(inputs):
        queue.start_async([pixels], row)
    queue.wait_all()
    right = sum(read[row] == label for row, label in enumerate(images["label"]))
    print(f"queue: {len(read)} digits, accuracy {right / len(read):.2f}")

    # A concurrent.futures.Future, ahead of all that waits, and worth nothing after half a minute.
    urgent = compiled.submit(inputs[0], priority=10, deadline_s=30)
    print("submit:", urgent.result()["digit"][0])

    # Lazy on both sides: a generator of a billion inputs will do.
    print("map:", [int(results["digit"][0]) for results in compiled.map(inputs[:5], ordered=True)])

    # Only there, whatever others have to do.
    replica = compiled.replicas[0]
    compiled.submit(inputs[0], device=replica.place).result()
    print("one replica:", replica.id, "on CPUs", replica.cpus)
