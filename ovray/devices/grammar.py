"""Reads device strings: ``[MULTI:|AUTO:]entry,entry,...``, into frozen entries that know where they stood.

    entry  =  [-][HOST/]DEVICE[.ID][@CPUS][*COUNT][(NIREQ)][?KEY=VALUE&...]
    HOST   =  name, IPv4 address, glob (``rack1-*``), or Ray labels: ``{key=value}``, ``{key!=value}``,
              ``{key in (a,b)}``, ``{key not in (a,b)}``, several of them with commas between
    CPUS   =  ``0-3+8-11``

A comma ends an entry, except within the braces of labels.  Keys and values after ``?`` are percent-decoded, as in
a URL: a comma in a value is written ``%2C``, an ampersand ``%26``, a percent sign ``%25``.

May not enter: what a cluster has.  Who compares the entries with that: selection.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import Enum
from typing import NoReturn
from urllib.parse import quote, unquote

from ovray.devices.cpulist import format_cpu_list
from ovray.errors import ConfigError

DEVICES = ("CPU", "GPU", "NPU", "SIM")
MODES = ("MULTI", "AUTO")

#: What a simulated device understands (design.md), each with the least it may be and whether it must be whole.
SIM_SETTINGS: Mapping[str, tuple[float, type[int] | type[float]]] = {
    "ms": (0.0, float),
    "nireq": (1, int),
    "compile_s": (0.0, float),
    "jitter": (0.0, float),
}

#: And those that are words, or the path of a file.
SIM_ANSWERS = ("zeros", "sum")
SIM_WORDS = ("answer", "trouble")

#: A typing slip such as ``SIM*80000000`` should end in an error, not in a plan that fills the memory.
MAX_COUNT = 100_000


class LabelOperator(Enum):
    """Says how a label is compared; the four that Ray's label selectors have."""

    IN = "in"
    NOT_IN = "not in"


@dataclass(frozen=True, slots=True)
class LabelTerm:
    """One condition of a label selector; ``=`` is IN with one value, ``!=`` is NOT_IN with one value."""

    key: str
    operator: LabelOperator
    values: tuple[str, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tells whether a node with these labels is meant; a node without the key is not in any set of values."""
        return (labels.get(self.key) in self.values) is (self.operator is LabelOperator.IN)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.operator is LabelOperator.IN else '!='}{self.values[0]}"
        return f"{self.key} {self.operator.value} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A host name, an address or a glob over both."""

    glob: str

    def __str__(self) -> str:
        return self.glob


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Conditions on a node's Ray labels, all of which must hold."""

    terms: tuple[LabelTerm, ...]

    def __str__(self) -> str:
        return "{" + ",".join(map(str, self.terms)) + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEntry:
    """One item of a device string."""

    device: str
    excluded: bool = False
    #: ``None`` means every host.
    host: HostPattern | LabelSelector | None = None
    #: ``1`` of ``CPU.1``, ``0.1`` of ``GPU.0.1``.
    id: str | None = None
    #: Logical CPUs after ``@``, ascending.
    cpus: tuple[int, ...] | None = None
    #: ``None`` where the entry does not say; the same as 1.
    count: int | None = None
    nireq: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    #: The entry as it was written and where it began, for messages.
    text: str = field(default="", compare=False)
    position: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """Returns ``CPU.1``, ``GPU.0.1``, ``SIM``."""
        return self.device if self.id is None else f"{self.device}.{self.id}"

    def __str__(self) -> str:
        return "".join(self._parts())

    def _parts(self) -> Iterator[str]:
        yield "-" if self.excluded else ""
        yield "" if self.host is None else f"{self.host}/"
        yield self.name
        yield "" if self.cpus is None else f"@{format_cpu_list(self.cpus).replace(',', '+')}"
        yield "" if self.count is None else f"*{self.count}"
        yield "" if self.nireq is None else f"({self.nireq})"
        pairs = "&".join(f"{quote(key)}={quote(value, safe=_SAFE)}" for key, value in self.properties.items())
        yield f"?{pairs}" if pairs else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceString:
    """A whole device string.  No entry that is not excluded means every device of the cluster."""

    #: ``MULTI``, ``AUTO`` or the empty string.
    mode: str = ""
    entries: tuple[DeviceEntry, ...] = ()
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        entries = ",".join(map(str, self.entries))
        return f"{self.mode}:{entries}" if self.mode and entries else self.mode or entries

    def error(self, message: str, entry: DeviceEntry, offset: int = 0) -> ConfigError:
        """Returns a ConfigError that points at an entry, or at a place ``offset`` characters into it."""
        return ConfigError(_pointed(message, self.text, entry.position + offset))


_SAFE = "/:._-+*()"
_ID = re.compile(r"\.([0-9]+(?:\.[0-9]+)?)")
_WORD = re.compile(r"[A-Za-z_]+")
_NUMBER = re.compile(r"[0-9]+")
_CPU_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
#: A host ends at the first slash, unless something before it cannot be part of a name or a glob: the slash of
#: ``CPU?CACHE_DIR=/tmp`` belongs to a property.
_HOST = re.compile(r"([A-Za-z0-9_.*?\[\]!-]+)/")
_LABEL = re.compile(
    r"""\s*(?P<key>[A-Za-z0-9][A-Za-z0-9._/-]*)\s*
        (?: (?P<equal>!?=)\s*(?P<value>[A-Za-z0-9][A-Za-z0-9._-]*)
          | (?P<set>(?:not\s+)?in)\s*\((?P<values>[^()]*)\) )\s*""",
    re.VERBOSE,
)
_MODE = re.compile(r"([A-Za-z_]+)\s*(:|$)")
_PROPERTY = re.compile(r"[^&,]*")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def parse(text: str) -> DeviceString:
    """Reads a device string.

    Args:
        text: such as ``MULTI:GPU,CPU*2``; white space around entries does not count.

    Raises:
        ConfigError: the string is not one; the message shows the place and says what would be right there.
    """
    return _Reader(text).read()


class _Reader:
    """Reads one device string from left to right; ``at`` is the place that is read next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def read(self) -> DeviceString:
        mode = self._mode()
        if mode and self.text.strip() == mode:
            return DeviceString(mode=mode, text=self.text)
        entries = [self._entry()]
        while self._take(","):
            entries.append(self._entry())
        return DeviceString(mode=mode, entries=tuple(entries), text=self.text)

    def _mode(self) -> str:
        self._skip_space()
        found = _MODE.match(self.text, self.at)
        if not found or (not found[2] and found[1] not in MODES):
            return ""
        if found[1] not in MODES:
            self._fail(f"'{found[1]}:' is not a way to combine devices; legal are {_listed(MODES, ':')}")
        self.at = found.end()
        return found[1]

    def _entry(self) -> DeviceEntry:
        self._skip_space()
        start = self.at
        if start == len(self.text) or self.text[start] == ",":
            self._fail(f"an entry is missing; write a device ({_listed(DEVICES)}), or MULTI for every device")
        excluded = self._take("-")
        host = self._host()
        device = self._device()
        entry = DeviceEntry(
            excluded=excluded,
            host=host,
            device=device,
            id=self._id(device),
            cpus=self._cpus(device),
            position=start,
        )
        if not excluded:
            entry = replace(entry, count=self._count(), nireq=self._nireq(), properties=self._properties(device))
        elif self.text[self.at : self.at + 1] in ("*", "(", "?"):
            self._fail("an entry that leaves a device out has only [HOST/]DEVICE[.ID][@CPUS] after its minus")
        end = self.at
        self._skip_space()
        if self.at < len(self.text) and self.text[self.at] != ",":
            self._fail(
                "cannot read on from here; an entry is [-][HOST/]DEVICE[.ID][@CPUS][*COUNT][(NIREQ)]"
                "[?KEY=VALUE&...], in this order, and a comma goes between entries"
            )
        return replace(entry, text=self.text[start:end].rstrip())

    def _host(self) -> HostPattern | LabelSelector | None:
        if self._take("{"):
            return self._labels()
        if found := _HOST.match(self.text, self.at):
            self.at = found.end()
            return HostPattern(found[1])
        if self.text.startswith("/", self.at):
            self._fail("a host is missing before the slash; write a name, an address, a glob or {label=value}")
        return None

    def _labels(self) -> LabelSelector:
        terms = [self._label()]
        while self._take(","):
            terms.append(self._label())
        if not self._take("}"):
            self._fail("a label selector ends with '}'; its conditions read key=value, with commas between")
        if not self._take("/"):
            self._fail("a slash goes between a label selector and its device: {key=value}/CPU")
        return LabelSelector(tuple(terms))

    def _label(self) -> LabelTerm:
        found = _LABEL.match(self.text, self.at)
        if not found:
            self._fail("a label condition reads key=value, key!=value, key in (a,b) or key not in (a,b)")
        if found["equal"]:
            operator = LabelOperator.IN if found["equal"] == "=" else LabelOperator.NOT_IN
            values = [found["value"]]
        else:
            operator = LabelOperator.IN if found["set"] == "in" else LabelOperator.NOT_IN
            values = [value.strip() for value in found["values"].split(",")]
            if not all(map(_LABEL_VALUE.fullmatch, values)):
                self.at = found.start("values")
                self._fail("the values of a label are words with commas between: key in (a,b)")
        self.at = found.end()
        return LabelTerm(found["key"], operator, tuple(values))

    def _device(self) -> str:
        found = _WORD.match(self.text, self.at)
        word = found[0] if found else ""
        if word in MODES:
            self._fail(f"{word} stands before the entries: {word}:CPU,GPU; alone it means every device")
        if word not in DEVICES:
            near = get_close_matches(word.upper(), DEVICES, n=1)
            problem = f"{word!r} is not a device" if word else "a device is missing"
            meant = f"; did you mean {near[0]}?" if near else ""
            self._fail(f"{problem}; legal are {_listed(DEVICES)}{meant}")
        self.at += len(word)
        return word

    def _id(self, device: str) -> str | None:
        if not self.text.startswith(".", self.at):
            return None
        found = _ID.match(self.text, self.at)
        if not found:
            self._fail("a number goes after the point: CPU.1 is NUMA node 1, GPU.0 a GPU, GPU.0.1 its second tile")
        if device == "SIM":
            self._fail("SIM takes no number; SIM*8 are eight of them")
        if "." in found[1] and device != "GPU":
            self._fail(f"{device} has no tiles; only a GPU is written with two numbers (GPU.0.1)")
        self.at = found.end()
        return ".".join(str(int(number)) for number in found[1].split("."))

    def _cpus(self, device: str) -> tuple[int, ...] | None:
        if not self.text.startswith("@", self.at):
            return None
        if device != "CPU":
            self._fail(f"{device} takes no core set; only CPU does (CPU@0-3+8-11)")
        self.at += 1
        cpus = self._cpu_range()
        while self._take("+"):
            cpus |= self._cpu_range()
        return tuple(sorted(cpus))

    def _cpu_range(self) -> set[int]:
        found = _CPU_RANGE.match(self.text, self.at)
        if not found:
            self._fail("logical CPUs go here, as in CPU@0-3+8-11")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            self._fail(f"the range {found[0]} runs backwards; write {last}-{first}")
        if last >= MAX_COUNT:
            self._fail(f"CPU {last} is beyond every machine that ovray knows of")
        self.at = found.end()
        return set(range(first, last + 1))

    def _count(self) -> int | None:
        if not self.text.startswith("*", self.at):
            return None
        self.at += 1
        return self._positive("a count goes after '*', as in CPU*2")

    def _nireq(self) -> int | None:
        if not self.text.startswith("(", self.at):
            return None
        self.at += 1
        nireq = self._positive("the number of infer requests goes in parentheses, as in CPU(4)")
        if not self._take(")"):
            self._fail("a closing parenthesis goes here, as in CPU(4)")
        return nireq

    def _positive(self, what: str) -> int:
        found = _NUMBER.match(self.text, self.at)
        if not found or not 1 <= int(found[0]) <= MAX_COUNT:
            self._fail(f"{what}; it is a whole number from 1 to {MAX_COUNT}")
        self.at = found.end()
        return int(found[0])

    def _properties(self, device: str) -> dict[str, str]:
        if not self.text.startswith("?", self.at):
            return {}
        properties: dict[str, str] = {}
        while self._take("&" if properties else "?"):
            start = self.at
            key, value = self._property(device)
            if key in properties:
                self.at = start
                self._fail(f"{key} is given twice")
            properties[key] = value
        return properties

    def _property(self, device: str) -> tuple[str, str]:
        found = _PROPERTY.match(self.text, self.at)
        assert found  # the pattern matches the empty string
        key, equals, value = found[0].rstrip().partition("=")
        if not equals or not key or not value:
            self._fail(
                "a property reads KEY=VALUE, as in CPU?NUM_STREAMS=2&CACHE_DIR=/tmp; a comma in a value is %2C"
            )
        key, value = unquote(key), unquote(value)
        if device == "SIM":
            self._check_sim_setting(key, value)
        self.at = found.end()
        return key, value

    def _check_sim_setting(self, key: str, value: str) -> None:
        if key == "answer" and value not in SIM_ANSWERS:
            self._fail(f"answer={value}: a simulated device answers with {_listed(SIM_ANSWERS)}")
        if key == "trouble" and not value.startswith("/"):
            self._fail(f"trouble={value}: give the whole path of a file, such as trouble=/tmp/trouble")
        if key in SIM_WORDS:
            return
        if key not in SIM_SETTINGS:
            self._fail(f"SIM has no setting {key!r}; legal are {_listed((*SIM_SETTINGS, *SIM_WORDS))}")
        least, kind = SIM_SETTINGS[key]
        whole = kind is int
        pattern = r"[0-9]+" if whole else r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?"
        if not re.fullmatch(pattern, value) or float(value) < least:
            self._fail(f"{key}={value}: {key} is a {'whole ' if whole else ''}number from {least:g} up")

    def _take(self, mark: str) -> bool:
        if mark == ",":
            self._skip_space()
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def _skip_space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _fail(self, message: str) -> NoReturn:
        raise ConfigError(_pointed(message, self.text, self.at))


def _pointed(message: str, text: str, offset: int) -> str:
    """Returns the message under the string, with a caret where it is meant."""
    return f"device string, character {offset + 1}: {message}; nothing was started\n  {text}\n  {' ' * offset}^"


def _listed(words: tuple[str, ...], suffix: str = "") -> str:
    return f"{', '.join(word + suffix for word in words[:-1])} and {words[-1]}{suffix}"
