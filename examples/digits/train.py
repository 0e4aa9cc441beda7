"""Trains the digits classifier that `ovray demo` scores, and writes the files of `ovray/digits`.

    pip install 'ovray[training]'
    python examples/digits/train.py [--output FOLDER]

Source of the images: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine
Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0.  scikit-learn carries the 1,797 images of its
test part.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
from openvino import opset13 as ops
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

SEED = 20261
HELD_OUT_ROWS = 540  # 30 %
#: Nine row groups, so that several replicas find work in this small file.
ROWS_PER_ROW_GROUP = 60

PIXELS = 64
PIXEL_MAX = 16
HIDDEN_UNITS = 64

#: OpenVINO computes in float32, scikit-learn in float64.
MAX_DIFFERENCE = 1e-5

PACKAGE_DATA = Path(__file__).resolve().parents[2] / "ovray" / "digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Holds one side of the split."""

    #: The image's place in the source, ascending: int64[N].
    ids: npt.NDArray[np.int64]
    #: Ink in each of 8 x 8 squares, row by row, 0 to 16: uint8[N, 64].
    pixels: npt.NDArray[np.uint8]
    #: The digit that was written: int64[N].
    labels: npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the digits classifier anew and write its files.")
    parser.add_argument(
        "--output", type=Path, default=PACKAGE_DATA, help="folder for the files (default: %(default)s)"
    )
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)

    training, held_out = load_split()
    classifier = train(training)
    ov.save_model(as_openvino(classifier, training.ids), folder / "model.xml", compress_to_fp16=False)
    check_same_numbers(folder / "model.xml", classifier, held_out.pixels)
    write_parquet(held_out, folder / "held_out.parquet")

    for name, part in (("training", training), ("held out", held_out)):
        accuracy = classifier.score(scaled(part.pixels), part.labels)
        print(f"{name:>8}: {len(part.ids):5,} images, accuracy {accuracy:.4f}")
    print(f"wrote model.xml, model.bin and held_out.parquet to {folder}")


def load_split() -> tuple[Part, Part]:
    """Return the training part and the held-out part, each digit in the same proportion in both."""
    source = load_digits()
    ids = np.arange(len(source.target), dtype=np.int64)
    training, held_out = train_test_split(ids, test_size=HELD_OUT_ROWS, stratify=source.target, random_state=SEED)

    def part(chosen: npt.NDArray[np.int64]) -> Part:
        chosen = np.sort(chosen)
        return Part(
            ids=chosen,
            pixels=source.data[chosen].astype(np.uint8),
            labels=source.target[chosen].astype(np.int64),
        )

    return part(training), part(held_out)


def train(training: Part) -> MLPClassifier:
    """Fit a network of 64, 64 and 10 units.  Its settings are scikit-learn's own: nothing was tuned."""
    # It converges after 357 epochs (scikit-learn 1.9.1); the default limit of 200 is too short.
    classifier = MLPClassifier(hidden_layer_sizes=(HIDDEN_UNITS,), max_iter=500, random_state=SEED)
    # One thread, so that sums are formed in the same order whatever the number of cores.
    with threadpool_limits(limits=1):
        return classifier.fit(scaled(training.pixels), training.labels)


def scaled(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return pixels as the network was trained on them, 0 to 1.  Users send raw ones: the model scales."""
    return pixels / PIXEL_MAX


def as_openvino(classifier: MLPClassifier, training_ids: npt.NDArray[np.int64]) -> ov.Model:
    """Build the network from its learnt weights.

    ``pixels`` float32[?, 64], raw, 0 to 16, gives ``probabilities`` float32[?, 10] and ``digit`` int64[?].
    """
    pixels = ops.parameter([-1, PIXELS], dtype=np.float32, name="pixels")
    # Exact: the divisor is a power of two.
    signal = ops.multiply(pixels, np.float32(1 / PIXEL_MAX), name="scaled")
    last = len(classifier.coefs_) - 1
    for layer, (weights, bias) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        weights_f32 = ops.constant(weights.astype(np.float32), name=f"weights_{layer}")
        bias_f32 = ops.constant(bias.astype(np.float32), name=f"bias_{layer}")
        product = ops.matmul(signal, weights_f32, transpose_a=False, transpose_b=False, name=f"product_{layer}")
        signal = ops.add(product, bias_f32, name=f"dense_{layer}")
        if layer < last:
            signal = ops.relu(signal, name=f"relu_{layer}")
    probabilities = ops.softmax(signal, axis=1, name="probabilities")
    best = ops.topk(signal, np.int64(1), axis=1, mode="max", sort="value", index_element_type="i64", name="best")
    digit = ops.squeeze(best.output(1), np.array([1], dtype=np.int64), name="digit")

    pixels.output(0).set_names({"pixels"})
    probabilities.output(0).set_names({"probabilities"})
    digit.output(0).set_names({"digit"})
    model = ov.Model([probabilities, digit], [pixels], "digits")
    describe_origin(model, training_ids)
    return model


def describe_origin(model: ov.Model, training_ids: npt.NDArray[np.int64]) -> None:
    """Write into the model what it was trained on, so that anyone can check that the held-out part was not."""
    for key, value in {
        "source": "https://doi.org/10.24432/C50P49",
        "trained_with": f"scikit-learn {sklearn.__version__}",
        "seed": str(SEED),
        "training_ids": " ".join(map(str, training_ids)),
    }.items():
        model.set_rt_info(value, ["digits", key])


def check_same_numbers(model_file: Path, classifier: MLPClassifier, pixels: npt.NDArray[np.uint8]) -> None:
    """End the script with an error where OpenVINO and scikit-learn do not agree."""
    # A CPU with native bfloat16 would compute in it unless asked not to.
    compiled = ov.Core().compile_model(model_file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({"pixels": pixels.astype(np.float32)}, share_inputs=False)
    expected = classifier.predict_proba(scaled(pixels))
    difference = float(np.abs(results["probabilities"] - expected).max())
    wrong_digits = int((results["digit"] != expected.argmax(axis=1)).sum())
    if difference > MAX_DIFFERENCE or wrong_digits:
        raise SystemExit(
            f"{model_file}: OpenVINO's probabilities differ from scikit-learn's by up to {difference:.1e} "
            f"(at most {MAX_DIFFERENCE:.0e} is legal) and {wrong_digits} digits differ; do not commit these files"
        )
    print(f"OpenVINO equals scikit-learn: largest difference {difference:.1e} over {len(pixels)} images")


def write_parquet(part: Part, file: Path) -> None:
    """Write ``id``, ``pixels`` and ``label``, one row an image."""
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(part.pixels.ravel()), PIXELS)
    table = pa.table({"id": part.ids, "pixels": pixels, "label": part.labels})
    pq.write_table(table, file, row_group_size=ROWS_PER_ROW_GROUP)


if __name__ == "__main__":
    main()
