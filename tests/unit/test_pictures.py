import io
import socket
import sys
from typing import Any

import numpy as np
import openvino as ov
import pyarrow as pa
import pytest
from openvino import opset13 as ops
from PIL import Image

from ovray.errors import ReplicaError
from ovray.scoring.pictures import decode, resize
from tests.pictures import some_pixels

PIXELS = some_pixels(6, 9)
GREY = PIXELS[..., 0]

#: EXIF's tag for how a camera was held.
ORIENTATION = 0x0112


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("TGA", {})),
        *(("WEBP", {"lossless": True}), ("JPEG2000", {"irreversible": False})),
    ],
)
def test_formats_that_keep_every_value_are_read_as_they_were_written(kind: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decode(encoded(PIXELS, kind, **options), 3), PIXELS)


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("AVIF", {})])
def test_lossy_formats_are_read_as_pillow_reads_them(kind: str, options: dict[str, Any]) -> None:
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    content = encoded(smooth, kind, **options)

    found = decode(content, 3)

    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert np.abs(found.astype(int) - smooth).max() < 40


def test_of_a_gif_the_first_frame_counts() -> None:
    first, second = (Image.fromarray(GREY // 2 + add) for add in (0, 100))
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=[second])

    assert np.array_equal(decode(stream.getvalue(), 1)[..., 0], GREY // 2)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb_as_pillow_converts_it(mode: str) -> None:
    picture = Image.fromarray(PIXELS).convert(mode)
    stream = io.BytesIO()
    picture.save(stream, "TIFF")

    found = decode(stream.getvalue(), 3)

    assert found.shape == (6, 9, 3)
    assert np.array_equal(found, np.asarray(picture.convert("RGB")))


def test_transparency_is_dropped_and_colours_stay() -> None:
    alpha = np.dstack([PIXELS, np.zeros_like(GREY)])

    assert np.array_equal(decode(encoded(alpha), 3), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_of_sixteen_bits_the_upper_eight_count(kind: str) -> None:
    deep = GREY.astype(np.uint16) * 256 + 77

    found = decode(encoded(deep, kind), 1)

    assert np.array_equal(found[..., 0], GREY)


def test_a_grey_input_gets_the_brightness_of_colours() -> None:
    found = decode(encoded(PIXELS), 1)

    assert found.shape == (6, 9, 1)
    assert np.abs(found[..., 0] - PIXELS @ np.array([0.299, 0.587, 0.114])).max() <= 1


@pytest.mark.parametrize("turned", range(1, 9))
def test_pictures_are_turned_as_their_camera_was_held(turned: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turned
    corner = np.zeros((6, 9, 3), np.uint8)
    corner[0, 0] = 255

    found = decode(encoded(corner, "PNG", exif=exif.tobytes()), 3)

    mirrored = {1: (0, 0), 2: (0, 8), 3: (5, 8), 4: (5, 0), 5: (0, 0), 6: (0, 5), 7: (8, 5), 8: (8, 0)}
    assert found.shape == ((9, 6, 3) if turned >= 5 else (6, 9, 3))
    assert tuple(np.argwhere(found[..., 0])[0]) == mirrored[turned]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000", "AVIF", "PPM", "TGA"])
def test_a_picture_cut_short_anywhere_is_refused_or_whole(kind: str) -> None:
    content = encoded(some_pixels(16, 16), kind)
    whole = decode(content, 3)
    refused = 0

    for size in range(0, len(content), max(1, len(content) // 50)):
        try:
            assert decode(content[:size], 3).shape == whole.shape
        except pa.ArrowInvalid:
            refused += 1

    assert refused > 20


@pytest.mark.filterwarnings("ignore")  # Pillow's own, about the damage
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
def test_a_damaged_picture_raises_nothing_else(kind: str) -> None:
    content = bytearray(encoded(some_pixels(16, 16), kind))
    chance = np.random.default_rng(3)

    for _ in range(200):
        damaged = content.copy()
        for at in chance.integers(0, len(content), 4):
            damaged[at] = chance.integers(0, 256)
        try:
            assert decode(bytes(damaged), 3).ndim == 3
        except pa.ArrowInvalid:
            continue


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_says_so(content: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid, match="it is no whole picture: "):
        decode(content, 3)


def test_values_of_no_known_range_are_refused() -> None:
    with pytest.raises(pa.ArrowInvalid, match=r"\(Pillow's mode F\) are of no known range; store 8 or 16 bits"):
        decode(encoded(GREY.astype(np.float32), "TIFF"), 3)


def test_a_picture_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)

    with pytest.raises(pa.ArrowInvalid, match="exceeds limit of 40 pixels"):
        decode(encoded(PIXELS), 3)


def test_a_host_without_pillow_is_named_and_no_row_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(PIXELS)
    monkeypatch.setitem(sys.modules, "PIL", None)  # as Python marks what cannot be imported

    with pytest.raises(ReplicaError, match=f"which is not installed on host {socket.gethostname()}: pip install"):
        decode(content, 3)


class TestResizing:
    @pytest.mark.parametrize("size", [(1, 1), (3, 3), (8, 8), (17, 501), (60, 100), (224, 224), (1500, 900)])
    @pytest.mark.parametrize("wanted", [(224, 224), (7, 31)])
    def test_numbers_are_those_of_openvino(self, size: tuple[int, int], wanted: tuple[int, int]) -> None:
        pixels = some_pixels(*size)

        found = resize(pixels, *wanted)

        assert found.dtype == np.float32
        assert np.abs(found - openvino_resize(ov.Type.f32, pixels, wanted)).max() < 1e-4
        # What lies between two whole numbers may fall to either side.
        rounded = np.abs(np.rint(found) - openvino_resize(ov.Type.u8, pixels, wanted))
        assert rounded.max() <= 1
        assert (rounded > 0).mean() < 1e-3

    def test_one_channel_and_three_go_alike(self) -> None:
        assert np.array_equal(resize(PIXELS[..., :1], 4, 5), resize(PIXELS, 4, 5)[..., :1])

    def test_a_picture_of_that_size_already_stays_as_it_is(self) -> None:
        assert np.array_equal(resize(PIXELS, 6, 9), PIXELS)


def openvino_resize(kind: ov.Type, pixels: np.ndarray, wanted: tuple[int, int]) -> np.ndarray:
    """Resize in a graph; floats are rounded nowhere."""
    x = ops.parameter(ov.PartialShape([1, *wanted, 3]), kind)
    processor = ov.preprocess.PrePostProcessor(ov.Model([ops.result(x)], [x]))
    info = processor.input(0)
    info.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_spatial_dynamic_shape()
    info.model().set_layout(ov.Layout("NHWC"))
    info.preprocess().convert_element_type(kind).resize(ov.preprocess.ResizeAlgorithm.RESIZE_LINEAR, *wanted)
    compiled = ov.Core().compile_model(processor.build(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([pixels[None]], share_inputs=False)[0][0])
