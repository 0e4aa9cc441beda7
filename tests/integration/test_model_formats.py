"""Scores models of formats that OpenVINO reads beside its own and ONNX."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray

import ovray

pytestmark = [pytest.mark.ray, pytest.mark.slow]

#: One fully connected layer, ``features`` f32[1, 32] in and ``logits`` f32[1, 3] out, in the FlatBuffers of
#: TensorFlow Lite.
TFLITE = Path(__file__).parent.parent / "fixtures/dense.tflite"
WEIGHTS = (np.arange(3 * 32, dtype=np.float32).reshape(3, 32) - 48) / 64
BIAS = np.array([0.5, -0.25, 1.0], np.float32)


def test_a_tflite_file_is_a_model_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVRAY_LEASE_DIR", str(tmp_path))
    features = np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)

    with ray.init(address="local", include_dashboard=False, log_to_driver=False):
        scores = ovray.score(TFLITE, pd.DataFrame({"features": list(features)}), devices="CPU", precision="f32")

    np.testing.assert_allclose(np.stack(scores["logits"].tolist()), features @ WEIGHTS.T + BIAS, atol=1e-4)
