"""Makes pictures for tests, and says what plain OpenVINO makes of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from PIL import Image


def some_pixels(height: int = 6, width: int = 9, *, seed: int = 1) -> np.ndarray:
    """Make ``uint8[height, width, 3]`` of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def a_picture(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """Write pixels in the format that the name says; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def pictures_of_many_sizes(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Write noise of different sizes, one picture larger than 512; returns the pixels by name."""
    made = {}
    for at, name in enumerate(names):
        pixels = some_pixels(5 + 7 * at, 600 if at == 1 else 40 - at, seed=at)
        made[str(a_picture(folder / name, pixels))] = pixels
    return made


def prepared_by_openvino(
    model: ov.Model | Path, pictures: Mapping[str, np.ndarray], size: tuple[int, int], steps: Mapping[str, Any]
) -> list[dict[str, np.ndarray]]:
    """Infer pictures of any size, one by one, all steps in the graph; returns the outputs of each."""
    read = ov.Core().read_model(model) if isinstance(model, Path) else model.clone()
    read.reshape({0: [1, *read.inputs[0].partial_shape[1:]]})
    processor = ov.preprocess.PrePostProcessor(read)
    info = processor.input(0)
    tensor = info.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_spatial_dynamic_shape()
    info.model().set_layout(ov.Layout("NCHW"))
    doing = info.preprocess().convert_element_type(ov.Type.f32)
    if steps.get("color") == "RGB2BGR":
        tensor.set_color_format(ov.preprocess.ColorFormat.RGB)
        doing.convert_color(ov.preprocess.ColorFormat.BGR)
    doing.resize(ov.preprocess.ResizeAlgorithm.RESIZE_LINEAR, *size)
    if "mean" in steps:
        doing.mean(list(steps["mean"]))
    if "scale" in steps:
        doing.scale(list(steps["scale"]))
    compiled = ov.Core().compile_model(processor.build(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = []
    for pixels in pictures.values():
        results = compiled([pixels[None]], share_inputs=False)
        found.append({port.any_name: np.array(results[port]) for port in compiled.outputs})
    return found
