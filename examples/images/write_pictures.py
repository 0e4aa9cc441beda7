"""Writes the handwritten digits of `ovray demo` as pictures of different sizes, one folder for each digit.

    pip install 'ovray[images]'
    python examples/images/write_pictures.py FOLDER

Source and licence of the images: ovray/digits/LICENSE-data.md.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from ovray import digits

SIDE = 8
#: Most ink that a square of the source can have; in a picture it is white.
INK_MAX, WHITE = 16, 255

#: How many pixels high and wide a square becomes: differs from picture to picture.
HEIGHTS = (3, 4, 5, 6)
WIDTHS = (2, 3, 5, 7, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write handwritten digits as pictures of different sizes.")
    parser.add_argument("folder", type=Path, help="folder for the pictures")
    folder: Path = parser.parse_args().folder

    table = pq.read_table(digits.held_out_file())
    pixels = table[digits.PIXELS_COLUMN].combine_chunks().flatten().to_numpy().reshape(-1, SIDE, SIDE)
    labels = table[digits.LABEL_COLUMN].to_pylist()
    for number, (ink, label) in enumerate(zip(pixels, labels, strict=True)):
        shades = np.rint(ink * (WHITE / INK_MAX)).astype(np.uint8)
        height, width = HEIGHTS[number % len(HEIGHTS)], WIDTHS[number % len(WIDTHS)]
        picture = folder / f"label={label}" / f"{number:03}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shades.repeat(height, axis=0).repeat(width, axis=1)).save(picture)
    print(f"wrote {len(labels)} pictures to {folder}")


if __name__ == "__main__":
    main()
