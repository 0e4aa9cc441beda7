"""Keeps every device busy with AsyncInferQueue and a callback.  Written for openvino; only the import is another.

python async_queue.py ../../ovray/digits/model.xml
"""

import sys

import numpy as np

import ovray as ov

NUMBER_OF_PICTURES = 200

core = ov.Core()
config = {ov.properties.hint.performance_mode: ov.properties.hint.PerformanceMode.THROUGHPUT}
config[ov.properties.hint.inference_precision] = ov.Type.f32
compiled_model = core.compile_model(core.read_model(sys.argv[1]), "CPU", config)
nireq = compiled_model.get_property(ov.properties.optimal_number_of_infer_requests)
assert nireq >= 1

infer_queue = ov.AsyncInferQueue(compiled_model)
classes = {}


def completion_callback(infer_request: ov.InferRequest, picture_id: int) -> None:
    scores = infer_request.get_output_tensor(0).data
    classes[picture_id] = int(np.argmax(scores))


infer_queue.set_callback(completion_callback)

shape = list(compiled_model.input(0).partial_shape.get_min_shape())[1:]
chance = np.random.default_rng(2)
for picture_id in range(NUMBER_OF_PICTURES):
    infer_queue.start_async({0: chance.random((1, *shape)) * 16}, userdata=picture_id)
infer_queue.wait_all()

print("pictures:", len(classes))
print("classes:", [classes[picture_id] for picture_id in range(20)])
