"""Runs a ring of infer requests by hand.  Written for openvino; only the import is another.

python request_ring.py ../../ovray/digits/model.xml
"""

import sys

import numpy as np

import ovray as ov

REQUESTS, PICTURES = 4, 20

compiled_model = ov.compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
requests = [compiled_model.create_infer_request() for _ in range(REQUESTS)]
name = compiled_model.input().get_any_name()
shape = [1, *list(compiled_model.input().partial_shape.get_min_shape())[1:]]
pictures = (np.random.default_rng(3).random((PICTURES, *shape)) * 16).astype(np.float32)

finished = []
for request in requests:
    request.set_callback(finished.append, None)

results = {}
for number in range(PICTURES + REQUESTS):
    request = requests[number % REQUESTS]
    if number >= REQUESTS:
        request.wait()
        results[number - REQUESTS] = request.get_tensor(compiled_model.output(0)).data.copy()
    if number < PICTURES:
        # The request reads this array when it starts; it may be overwritten afterwards.
        request.set_tensor(name, ov.Tensor(pictures[number]))
        request.start_async(None, number)

print("finished:", len(finished), "of", PICTURES)
print("latency is known:", all(request.latency > 0 for request in requests))
print("classes:", [int(results[number].argmax()) for number in range(PICTURES)])
