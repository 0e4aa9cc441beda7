import re
from typing import Any

import pytest

from ovray.errors import ConfigError
from ovray.replica.signature import Port
from ovray.scoring.preparation import GraphSteps, PreparedInput, choose_input
from tests.data_builders import a_model, a_port

PICTURES = a_port("image", (None, 3, 224, 224))
OPEN_PICTURES = a_port("image", (None, 3, None, None))
FEATURES = a_port("x", (None, 32))


def chosen(*ports: Port, declared: str = "", **options: Any) -> PreparedInput:
    return choose_input(a_model(*ports), [declared] * len(ports), GraphSteps.parse(**options))


def fed(prepared: PreparedInput, *ports: Port) -> tuple[int | None, ...] | None:
    return prepared.as_fed(a_model(*ports)).inputs[prepared.index].shape


def test_text_and_values_mean_the_same() -> None:
    of_text = GraphSteps.parse(resize="224x192", mean="1,2.5,3", scale="255")
    of_values = GraphSteps.parse(resize=(224, 192), mean=[1, 2.5, 3], scale=255)

    assert of_text == of_values
    assert (of_text.resize, of_text.mean, of_text.scale) == ((224, 192), (1.0, 2.5, 3.0), (255.0,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "HWC"}, "--layout 'HWC': give NHWC or NCHW"),
        ({"resize": "224"}, "--resize '224': give HEIGHTxWIDTH"),
        ({"resize": "0x4"}, "--resize '0x4': give HEIGHTxWIDTH"),
        ({"resize": (4, -1)}, "--resize (4, -1): give HEIGHTxWIDTH"),
        ({"mean": "1;2"}, "--mean '1;2': give one number"),
        ({"mean": ""}, "--mean '': give one number"),
        ({"mean": []}, "--mean []: give one number"),
        ({"scale": "nan"}, "--scale 'nan': give one number"),
        ({"scale": "1,0,1"}, "it cannot be 0"),
        ({"color": "bgr"}, "--color 'bgr': give BGR2RGB or RGB2BGR"),
    ],
)
def test_what_no_option_can_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        GraphSteps.parse(**options)


@pytest.mark.parametrize(
    ("shape", "declared", "layout"),
    [
        ((1, 3, 8, 8), "", "NCHW"),
        ((None, 1, None, None), "", "NCHW"),
        ((None, 8, 8, 3), "", "NHWC"),
        ((None, None, None, 4), "", "NHWC"),
        ((None, 3, 8, 3), "NHWC", "NHWC"),
        ((None, 7, 8, 9), "NCHW", "NCHW"),
    ],
)
def test_a_model_s_layout_is_what_it_says_or_where_its_channels_can_be(
    shape: tuple[int | None, ...], declared: str, layout: str
) -> None:
    prepared = chosen(
        a_port("x", shape), declared=declared, resize=(8, 8) if declared == "" else None, layout="NHWC"
    )

    assert (prepared.model_layout, prepared.data_layout) == (layout, "NHWC")


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"layout": "NHWC"}, (None, 224, 224, 3)),
        ({"layout": "NCHW"}, (None, 3, 224, 224)),
        ({"resize": "224x224"}, (None, 3, None, None)),
        ({"resize": "224x224", "layout": "NHWC"}, (None, None, None, 3)),
        ({"mean": 1}, (None, 3, 224, 224)),
    ],
)
def test_columns_must_fit_what_the_graph_takes_then(
    options: dict[str, Any], shape: tuple[int | None, ...]
) -> None:
    assert fed(chosen(PICTURES, **options), PICTURES) == shape


def test_of_several_inputs_the_pictures_are_meant() -> None:
    prepared = chosen(FEATURES, PICTURES, layout="NHWC", mean="1,2,3")

    assert (prepared.index, prepared.port) == (1, PICTURES)


@pytest.mark.parametrize(
    ("ports", "options", "message"),
    [
        ([FEATURES], {"resize": "8x8"}, "--resize: for inputs of pictures"),
        ([FEATURES], {"layout": "NHWC"}, "takes 'x' (f32[?,32])"),
        ([a_port("x", None)], {"color": "BGR2RGB"}, "takes 'x' (f32[...])"),
        ([FEATURES, FEATURES], {"mean": 1}, "open which of them is meant"),
        ([PICTURES, PICTURES], {"layout": "NHWC"}, "open which of them is meant"),
        ([PICTURES], {"mean": "1,2"}, "--mean: 2 values, but input 'image' (f32[?,3,224,224]) has 3 channels"),
        ([FEATURES], {"scale": [1, 2]}, "--scale: 2 values, but input 'x' (f32[?,32]) has 32 channels"),
        ([a_port("x", (None,))], {"mean": [1, 2]}, "has no channels of a known number"),
        ([PICTURES], {"resize": "192x224"}, "takes pictures of 224x224 (height x width); give --resize 224x224"),
        ([a_port("x", (1, 1, 8, 8))], {"color": "BGR2RGB"}, "for pictures of three channels"),
        ([a_port("x", (None, None, 8, 8))], {"layout": "NHWC"}, "cannot be seen"),
        ([a_port("x", (None, 3, 8, 3))], {"layout": "NHWC"}, "cannot be seen"),
        ([a_port("x", (1, 3, 8, 8), "u8")], {"mean": 1}, "make fractions, input 'x' takes u8"),
    ],
)
def test_steps_that_do_not_fit_the_model_are_refused(
    ports: list[Port], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        chosen(*ports, **options)


def test_a_size_that_the_model_leaves_open_is_free() -> None:
    assert chosen(OPEN_PICTURES, resize="10x20").steps.resize == (10, 20)


def test_one_mean_for_all_needs_no_layout() -> None:
    assert chosen(a_port("x", (None, 7, 8, 9)), mean=1, scale=2).model_layout == ""
