import pytest

from ovray.devices.grammar import (
    DeviceEntry,
    HostPattern,
    LabelOperator,
    LabelSelector,
    LabelTerm,
    parse,
)
from ovray.errors import ConfigError

RACK_1 = LabelSelector((LabelTerm("rack", LabelOperator.IN, ("1",)),))


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("CPU", DeviceEntry(device="CPU")),
        ("CPU.1", DeviceEntry(device="CPU", id="1")),
        ("CPU.01", DeviceEntry(device="CPU", id="1")),
        ("CPU@0-3+8-11", DeviceEntry(device="CPU", cpus=(0, 1, 2, 3, 8, 9, 10, 11))),
        ("CPU@5+1+3-3", DeviceEntry(device="CPU", cpus=(1, 3, 5))),
        ("CPU.1@4-5", DeviceEntry(device="CPU", id="1", cpus=(4, 5))),
        ("CPU*2", DeviceEntry(device="CPU", count=2)),
        ("CPU(4)", DeviceEntry(device="CPU", nireq=4)),
        ("CPU*2(4)", DeviceEntry(device="CPU", count=2, nireq=4)),
        ("GPU.0.1", DeviceEntry(device="GPU", id="0.1")),
        ("NPU", DeviceEntry(device="NPU")),
        ("-GPU", DeviceEntry(device="GPU", excluded=True)),
        ("-node-a/CPU@0", DeviceEntry(device="CPU", excluded=True, host=HostPattern("node-a"), cpus=(0,))),
        ("node-a/CPU.1", DeviceEntry(device="CPU", id="1", host=HostPattern("node-a"))),
        ("10.0.0.7/GPU", DeviceEntry(device="GPU", host=HostPattern("10.0.0.7"))),
        ("rack1-*/CPU*2", DeviceEntry(device="CPU", host=HostPattern("rack1-*"), count=2)),
        ("rack[12]-n?/CPU", DeviceEntry(device="CPU", host=HostPattern("rack[12]-n?"))),
        ("{rack=1}/CPU", DeviceEntry(device="CPU", host=RACK_1)),
        ("CPU?NUM_STREAMS=2", DeviceEntry(device="CPU", properties={"NUM_STREAMS": "2"})),
        ("CPU?CACHE_DIR=/tmp/a", DeviceEntry(device="CPU", properties={"CACHE_DIR": "/tmp/a"})),
        ("GPU?CONFIG=a%2Cb%26c", DeviceEntry(device="GPU", properties={"CONFIG": "a,b&c"})),
        (
            "SIM*8?ms=5&nireq=2&compile_s=3&jitter=0.1",
            DeviceEntry(
                device="SIM",
                count=8,
                properties={"ms": "5", "nireq": "2", "compile_s": "3", "jitter": "0.1"},
            ),
        ),
    ],
)
def test_every_form_of_an_entry_is_read(text: str, entry: DeviceEntry) -> None:
    devices = parse(text)

    assert devices.mode == ""
    assert devices.entries == (entry,)


@pytest.mark.parametrize(
    ("text", "mode", "names"),
    [
        ("MULTI", "MULTI", []),
        ("AUTO", "AUTO", []),
        (" MULTI ", "MULTI", []),
        ("MULTI:CPU,GPU", "MULTI", ["CPU", "GPU"]),
        ("AUTO:-CPU", "AUTO", ["-CPU"]),
        ("MULTI: GPU.1 , CPU(2) ", "MULTI", ["GPU.1", "CPU(2)"]),
        ("CPU.0,CPU.1", "", ["CPU.0", "CPU.1"]),
    ],
)
def test_a_mode_stands_before_the_entries_or_alone(text: str, mode: str, names: list[str]) -> None:
    devices = parse(text)

    assert devices.mode == mode
    assert [str(entry) for entry in devices.entries] == names


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("{rack=1}", {"rack": "1"}, True),
        ("{rack=1}", {"rack": "2"}, False),
        ("{rack=1}", {}, False),
        ("{rack!=1}", {"rack": "2"}, True),
        ("{rack!=1}", {}, True),
        ("{rack in (1,2)}", {"rack": "2"}, True),
        ("{rack not in (1, 2)}", {"rack": "2"}, False),
        ("{rack=1,ray.io/accelerator-type=A770}", {"rack": "1"}, False),
        ("{rack=1,ray.io/accelerator-type=A770}", {"rack": "1", "ray.io/accelerator-type": "A770"}, True),
    ],
)
def test_a_label_selector_compares_as_ray_does(selector: str, labels: dict[str, str], matches: bool) -> None:
    (entry,) = parse(f"{selector}/CPU").entries

    assert isinstance(entry.host, LabelSelector)
    assert all(term.matches(labels) for term in entry.host.terms) is matches


def test_an_entry_knows_its_text_and_where_it_stood() -> None:
    devices = parse("MULTI:CPU.0, node-b/GPU(2) ,NPU")

    assert [(entry.text, entry.position) for entry in devices.entries] == [
        ("CPU.0", 6),
        ("node-b/GPU(2)", 13),
        ("NPU", 28),
    ]


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", 0, "an entry is missing; write a device (CPU, GPU, NPU and SIM), or MULTI for every device"),
        ("MULTI:", 6, "an entry is missing"),
        ("CPU,,GPU", 4, "an entry is missing"),
        ("CPU,", 4, "an entry is missing"),
        ("HETERO:CPU", 0, "'HETERO:' is not a way to combine devices; legal are MULTI: and AUTO:"),
        ("MULTI,GPU", 0, "MULTI stands before the entries"),
        ("CPU,AUTO", 4, "AUTO stands before the entries"),
        ("GPU,cpu", 4, "'cpu' is not a device; legal are CPU, GPU, NPU and SIM; did you mean CPU?"),
        ("XPU", 0, "'XPU' is not a device"),
        ("node-a/", 7, "a device is missing"),
        ("/CPU", 0, "a host is missing before the slash"),
        ("CPU.x", 3, "a number goes after the point"),
        ("CPU.0.1", 3, "CPU has no tiles"),
        ("SIM.1", 3, "SIM takes no number; SIM*8 are eight of them"),
        ("CPU@", 4, "logical CPUs go here, as in CPU@0-3+8-11"),
        ("CPU@0+", 6, "logical CPUs go here"),
        ("CPU@3-1", 4, "the range 3-1 runs backwards; write 1-3"),
        ("CPU@0-99999999", 4, "CPU 99999999 is beyond every machine"),
        ("GPU@0", 3, "GPU takes no core set"),
        ("CPU*", 4, "a count goes after '*', as in CPU*2; it is a whole number from 1 to 100000"),
        ("CPU*0", 4, "a count goes after '*'"),
        ("CPU(0)", 4, "the number of infer requests goes in parentheses"),
        ("CPU(4", 5, "a closing parenthesis goes here"),
        ("CPU(4)*2", 6, "cannot read on from here; an entry is [-][HOST/]DEVICE"),
        ("CPU GPU", 4, "cannot read on from here"),
        ("-CPU*2", 4, "an entry that leaves a device out has only [HOST/]DEVICE[.ID][@CPUS]"),
        ("CPU?", 4, "a property reads KEY=VALUE"),
        ("CPU?NUM_STREAMS", 4, "a property reads KEY=VALUE"),
        ("CPU?A=1&A=2", 8, "A is given twice"),
        ("SIM?msec=5", 4, "SIM has no setting 'msec'; legal are ms, nireq, compile_s, jitter, answer and trouble"),
        ("SIM?ms=fast", 4, "ms=fast: ms is a number from 0 up"),
        ("SIM?answer=ones", 4, "answer=ones: a simulated device answers with zeros and sum"),
        ("SIM?trouble=here", 4, "trouble=here: give the whole path of a file, such as trouble=/tmp/trouble"),
        ("SIM?nireq=0", 4, "nireq=0: nireq is a whole number from 1 up"),
        ("{rack}/CPU", 1, "a label condition reads key=value"),
        ("{rack=1/CPU", 7, "a label selector ends with '}'"),
        ("{rack=1}CPU", 8, "a slash goes between a label selector and its device"),
        ("{rack in (1,)}/CPU", 10, "the values of a label are words with commas between"),
    ],
)
def test_an_error_points_at_the_place_and_says_what_is_right_there(text: str, place: int, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)

    headline, string, caret = str(caught.value).split("\n")
    assert headline.startswith(f"device string, character {place + 1}: {says}")
    assert headline.endswith("nothing was started")
    assert string == f"  {text}"
    assert caret == f"  {' ' * place}^"
