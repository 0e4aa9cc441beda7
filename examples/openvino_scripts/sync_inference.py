"""Classifies pictures one after the other.  Written for openvino; only the import is another.

python sync_inference.py ../../ovray/digits/model.xml
"""

import sys

import numpy as np

import ovray as ov

core = ov.Core()
model = core.read_model(sys.argv[1])
print("model:", model.get_friendly_name(), "inputs:", len(model.inputs), "outputs:", len(model.outputs))

# The pictures come as bytes; the model wants floats.
ppp = ov.preprocess.PrePostProcessor(model)
ppp.input().tensor().set_element_type(ov.Type.u8)
ppp.input().preprocess().convert_element_type(ov.Type.f32)
model = ppp.build()

compiled_model = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
input_layer = compiled_model.input(0)
output_layer = compiled_model.output(0)
print("input:", input_layer.any_name, input_layer.partial_shape, input_layer.element_type)

pictures = np.random.default_rng(1).integers(
    0, 17, size=(5, 1, *list(input_layer.partial_shape.get_min_shape())[1:])
)
for number, picture in enumerate(pictures):
    scores = compiled_model([picture.astype(np.uint8)])[output_layer]
    print(number, "class", int(np.argmax(scores)), "score", f"{scores.max():.3f}")
