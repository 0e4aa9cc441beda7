"""Tells the lines of JSON text that can be read from those that cannot, one by one, and says why.

For text in which something is wrong: the fast way is pyarrow's, which takes or refuses a text as a whole.
Pure: bytes in, bytes out.  May not enter: files.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ovray.scoring.text_blocks import LINE_BREAK, NOT_UTF8

#: Lists and objects within each other.  pyarrow's parser needs stack for each and ends the process without it:
#: ten thousands do, real data have a handful.
MAX_NESTING = 500
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

#: A string, and what it holds; no line break is in one.
STRING = re.compile(rb'"[^"\\\n]*(?:\\.[^"\\\n]*)*"')

#: What values of a key are: nothing that is known yet, ``"number"``, ``"text"``, ``"truth value"``, a list of a
#: kind, or an object's kinds by key.
Kind = Any


def split_lines(
    text: bytes, known: Mapping[str, pa.DataType], columns: Sequence[str] | None
) -> tuple[bytes, dict[int, str]]:
    """Return the lines that can be read together, and why the others cannot, by their number.

    Of values of different kinds under one key, those are right that go with ``known``, else with the first line.

    Args:
        text: Lines; blank ones do not count.
        known: Types of keys as far as they are known.
        columns: Keys whose values count; ``None`` for all.
    """
    kinds: dict[str, Kind] = {name: _kind_of(of) for name, of in known.items()}
    good: list[bytes] = []
    bad: dict[int, str] = {}
    for number, line in enumerate(line for line in text.split(LINE_BREAK) if line.strip()):
        try:
            values = _object(line)
            counted = values if columns is None else {key: values[key] for key in columns if key in values}
            kinds = _merged(kinds, counted, "")
            good.append(line)
        except _BadLineError as error:
            bad[number] = str(error)
    return b"".join(line + LINE_BREAK for line in good), bad


def nesting(text: bytes) -> int:
    """Return how deep brackets nest, taken that all that are opened are closed again; strings must be left out."""
    brackets = np.frombuffer(text.translate(None, _NO_BRACKETS), dtype=np.uint8)
    is_open = (brackets == ord("[")) | (brackets == ord("{"))
    steps = np.where(is_open, np.int8(1), np.int8(-1))
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))


class _BadLineError(Exception):
    """A line cannot be read."""


def _object(line: bytes) -> dict[str, Any]:
    """Return what a line holds; refuses all that pyarrow's parser does, or that ends its process."""
    if nesting(STRING.sub(b"", line)) > MAX_NESTING:
        raise _BadLineError(f"lists and objects nest deeper than {MAX_NESTING} levels")
    try:
        found = json.loads(
            line.decode(), strict=False, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant
        )
        json.dumps(found, ensure_ascii=False).encode()  # fails for halves of surrogate pairs
    except json.JSONDecodeError as error:
        raise _BadLineError(f"is no JSON: {error.msg} at column {error.colno}") from error
    except UnicodeError as error:
        raise _BadLineError(NOT_UTF8) from error
    if not isinstance(found, dict):
        raise _BadLineError("is no object")
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _BadLineError(f"has the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _refuse_constant(text: str) -> None:
    raise _BadLineError(f"holds {text}, which is no JSON")


def _kind_of(of: pa.DataType) -> Kind:
    kinds = pa.types
    if kinds.is_null(of):
        return None
    if kinds.is_list(of):
        return [_kind_of(of.value_type)]
    if kinds.is_struct(of):
        return {field.name: _kind_of(field.type) for field in of}
    if kinds.is_boolean(of):
        return "truth value"
    return "number" if kinds.is_integer(of) or kinds.is_floating(of) else "text"


def _merged(kind: Kind, value: Any, key: str) -> Kind:
    """Return what is known of a kind once a value of it was seen."""
    if value is None:
        return kind
    if isinstance(value, list):
        kind = [None] if kind is None else kind
        if not isinstance(kind, list):
            raise _misfit(kind, "a list", key)
        within = kind[0]
        for one in value:
            within = _merged(within, one, key)
        return [within]
    if isinstance(value, dict):
        kind = {} if kind is None else kind
        if not isinstance(kind, dict):
            raise _misfit(kind, "an object", key)
        return {**kind, **{name: _merged(kind.get(name), one, name) for name, one in value.items()}}
    found = "truth value" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
    if kind not in (None, found):
        raise _misfit(kind, found, key)
    return found


def _misfit(kind: Kind, found: str, key: str) -> _BadLineError:
    known = "lists" if isinstance(kind, list) else "objects" if isinstance(kind, dict) else f"{kind}s"
    known = "text" if kind == "text" else known
    return _BadLineError(f"has {found} under the key {key!r}, where other lines have {known}")
