"""Decodes pictures and brings them to a size: bytes of a file in, an array of height x width x channels out.

What a picture is here: as a person sees it, in 8 bits.  Turned as its EXIF tag says, its first frame, RGB or grey;
transparency is dropped, a palette is looked up, of 16 bits the upper 8 count.
May not enter: files, columns.  Pillow is an extra: it is imported where it is used.
"""

import io
import socket
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ovray.errors import ReplicaError

if TYPE_CHECKING:
    from PIL import Image

#: What to decode to, by the number of channels wanted, as Pillow calls it.
MODES = {1: "L", 3: "RGB"}

#: Formats that Pillow reads with 16 bits into its mode for 32.
_SIXTEEN_BITS_IN_I = ("PNG", "PPM")

Floats = NDArray[np.float32]

#: What Pillow's decoders raise on damage, as met: it has no class of its own for that.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError)
_MORE_DAMAGE = (struct.error, zlib.error)


def decode(content: "bytes | memoryview", channels: int) -> NDArray[np.uint8]:
    """Return a picture as ``uint8[height, width, channels]``, with 1 or 3 channels.

    Raises:
        ArrowInvalid: it is damaged, of no kind that Pillow reads, or has values of no known range.
        ReplicaError: Pillow is not installed here.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ReplicaError(
            f"pictures need Pillow, which is not installed on host {socket.gethostname()}:"
            " pip install 'ovray[images]'"
        ) from error
    try:
        with Image.open(io.BytesIO(content)) as picture:
            ImageOps.exif_transpose(picture, in_place=True)
            shown: NDArray[np.uint8] = np.asarray(_in_eight_bits(picture).convert(MODES[channels]))
    except (*_DAMAGE, *_MORE_DAMAGE, Image.DecompressionBombError) as error:
        raise pa.ArrowInvalid(f"it is no whole picture: {error}") from error
    return shown.reshape(*shown.shape[:2], channels)


def resize(picture: NDArray[np.uint8], height: int, width: int) -> Floats:
    """Return ``float32[height, width, channels]`` of ``uint8[h, w, channels]``, interpolated linearly.

    The numbers are those of OpenVINO's RESIZE_LINEAR on floats, to 1e-4 of 255.  It is done here and not in the
    model's graph, because pictures differ in size, and models run with fixed shapes; and because only the pixels
    that count are touched: 12 megapixels take 1.5 ms, and 68 ms in a graph (one core, to 224x224).
    """
    channels = picture.shape[2]
    upper, lower, down = _taps(picture.shape[0], height)
    left, right, across = _taps(picture.shape[1], width)
    across = np.repeat(across, channels)

    def lines(at: NDArray[np.intp]) -> Floats:
        rows = picture.take(at, axis=0)
        near, far = (rows.take(columns, axis=1).reshape(height, -1) for columns in (left, right))
        return _between(near.astype(np.float32), far.astype(np.float32), across)

    return _between(lines(upper), lines(lower), down[:, None]).reshape(height, width, channels)


def _between(one: Floats, other: Floats, share: Floats) -> Floats:
    """Return what lies a share of the way from one to the other; both are written over, to spare memory."""
    other -= one
    other *= share
    one += other
    return one


def _taps(length: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return, for each new pixel, the two that it lies between and how far it is towards the second.

    In float32 and in this order, as OpenVINO does: else large pictures would differ in the second digit.
    """
    scale = np.float32(wanted) / np.float32(length)
    centres = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) / scale - np.float32(0.5)
    at = np.clip(centres, 0, length - 1)
    first = at.astype(np.intp)
    return first, np.minimum(first + 1, length - 1), (at - first).astype(np.float32)


def _in_eight_bits(picture: "Image.Image") -> "Image.Image":
    """Return a picture whose values Pillow converts without cutting them off."""
    from PIL import Image

    is_sixteen = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in _SIXTEEN_BITS_IN_I)
    if is_sixteen:
        values: NDArray[Any] = np.asarray(picture)
        return Image.fromarray((values >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"its values (Pillow's mode {picture.mode}) are of no known range; store 8 or 16 bits")
    return picture
