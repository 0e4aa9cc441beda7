"""Holds the data of `ovray demo`: a small trained classifier of handwritten digits, and images it has never seen.

Paths and names only.  May not enter: any other room of ovray, openvino, ray, pyarrow, numpy; nothing is read or
computed here.  Where the files come from: examples/digits/train.py.  Source and licence: LICENSE-data.md.
"""

from importlib.resources import files
from pathlib import Path

#: Columns of the held-out file.
ID_COLUMN = "id"  # int64: the image's place in the source
PIXELS_COLUMN = "pixels"  # fixed-size list of 64 uint8, 0 to 16: the image row by row; also the model's input
LABEL_COLUMN = "label"  # int64: the digit that was written

#: Outputs of the model, which become columns of the result.
PROBABILITIES_COLUMN = "probabilities"  # float32[10]
DIGIT_COLUMN = "digit"  # int64: the most probable digit, to be held against the label


def model_file() -> Path:
    """Return the path of the trained model, an OpenVINO IR; its weights lie beside it.

    It takes ``pixels`` float32[?, 64], raw, 0 to 16, and gives ``probabilities`` float32[?, 10] and
    ``digit`` int64[?].
    """
    return _packaged("model.xml")


def held_out_file() -> Path:
    """Return the path of the images that the model was not trained on: Parquet, 540 rows in nine row groups."""
    return _packaged("held_out.parquet")


def _packaged(name: str) -> Path:
    return Path(str(files(__name__).joinpath(name)))
