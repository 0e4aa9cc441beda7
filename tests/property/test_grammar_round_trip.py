"""Any device string, written out and read again, means the same; and no text at all makes the reader stumble."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from ovray.devices.grammar import (
    DeviceEntry,
    DeviceString,
    HostPattern,
    LabelOperator,
    LabelSelector,
    LabelTerm,
    parse,
)
from ovray.errors import ConfigError

words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
label_terms = st.builds(
    LabelTerm, words, st.sampled_from(LabelOperator), st.lists(words, min_size=1, max_size=3).map(tuple)
)
hosts = st.none() | (
    st.from_regex(r"[A-Za-z0-9.*?\[\]!][A-Za-z0-9.*?\[\]!-]{0,8}", fullmatch=True).map(HostPattern)
    | st.lists(label_terms, min_size=1, max_size=3).map(tuple).map(LabelSelector)
)
numbers = st.integers(0, 300).map(str)
positive = st.none() | st.integers(1, 1000)
core_sets = st.none() | st.sets(st.integers(0, 300), min_size=1, max_size=8).map(lambda cpus: tuple(sorted(cpus)))
text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
properties = st.dictionaries(text, text, max_size=3)


@st.composite
def entries(draw: st.DrawFn) -> DeviceEntry:
    device = draw(st.sampled_from(["CPU", "GPU", "NPU", "SIM"]))
    tiles = st.tuples(numbers, numbers).map(".".join)
    ids = {"CPU": st.none() | numbers, "GPU": st.none() | numbers | tiles, "NPU": st.none() | numbers}
    entry = {
        "device": device,
        "excluded": draw(st.booleans()),
        "host": draw(hosts),
        "id": draw(ids.get(device, st.none())),
        "cpus": draw(core_sets) if device == "CPU" else None,
    }
    if not entry["excluded"]:
        entry |= {"count": draw(positive), "nireq": draw(positive)}
        entry["properties"] = draw(properties) if device != "SIM" else {"ms": "2.5", "nireq": "3"}
    return DeviceEntry(**entry)


@given(mode=st.sampled_from(["", "MULTI", "AUTO"]), entries=st.lists(entries(), min_size=1, max_size=4).map(tuple))
def test_what_is_written_out_reads_back_the_same(mode: str, entries: tuple[DeviceEntry, ...]) -> None:
    devices = DeviceString(mode=mode, entries=entries)

    assert parse(str(devices)) == devices


@given(st.text(alphabet="CPUGPSIM:,/@*()?=&{}-+.01 \n", max_size=20) | st.text(max_size=20))
def test_any_text_is_read_or_refused_with_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse(text)
