"""Feeds one model with the results of another.  Written for openvino; only the import is another.

python two_models.py ../../ovray/digits/model.xml
"""

import sys

import numpy as np

import ovray as ov

core = ov.Core()
core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})

# The first brightens pictures of any size, built by hand; the second recognises what is on them.
classifier = core.read_model(sys.argv[1])
shape = list(classifier.input(0).partial_shape.get_min_shape())[1:]
picture = ov.opset13.parameter(ov.PartialShape([-1, *shape]), ov.Type.u8, name="picture")
brighter = ov.opset13.clamp(ov.opset13.multiply(ov.opset13.convert(picture, "f32"), np.float32(1.5)), 0.0, 16.0)
brightener = ov.Model([ov.opset13.result(brighter)], [picture], "brightener")

compiled_brightener = core.compile_model(brightener, "CPU")
compiled_classifier = core.compile_model(classifier, "CPU")
first, second = compiled_brightener.create_infer_request(), compiled_classifier.create_infer_request()

chance = np.random.default_rng(5)
for number in range(5):
    pixels = chance.integers(0, 17, size=(1, *shape), dtype=np.uint8)
    first.start_async({"picture": pixels} if "picture" in compiled_brightener.input(0).names else [pixels])
    first.wait()
    second.set_input_tensor(first.get_output_tensor())
    scores = second.infer()[0]
    print(number, "brightest", float(first.get_output_tensor().data.max()), "class", int(scores.argmax()))
