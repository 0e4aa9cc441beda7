"""Infers batches of any size with one compiled model.  Written for openvino; only the import is another.

python dynamic_shapes.py ../../ovray/digits/model.xml
"""

import sys

import numpy as np

import ovray as ov

core = ov.Core()
model = core.read_model(sys.argv[1])
shape = list(model.input(0).partial_shape.get_min_shape())[1:]
model.reshape([ov.Dimension(1, 64), *shape])
print("reshaped to", model.input(0).partial_shape)

compiled_model = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
infer_request = compiled_model.create_infer_request()
chance = np.random.default_rng(4)
for batch in (1, 7, 64, 2):
    results = infer_request.infer({compiled_model.input(0): chance.random((batch, *shape), dtype=np.float32) * 16})
    scores = results[compiled_model.output(0)]
    print("batch", batch, "output", scores.shape, "classes", np.argmax(scores, axis=1)[:5].tolist())

try:
    infer_request.infer(np.zeros((65, *shape), np.float32))
except RuntimeError:
    print("a batch of 65 was refused")
print("and the request goes on:", infer_request.infer(np.zeros((3, *shape), np.float32))[0].shape)
