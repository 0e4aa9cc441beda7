"""Finds where the records of CSV text begin and end, quoted line breaks included.

Pure: bytes in, offsets out.  May not enter: files, types.
As pyarrow has it, a quotation mark opens a quoted field only where a field begins; elsewhere it is text.  Every
``text`` here begins at the start of a record.
"""

import re

import numpy as np
from numpy.typing import NDArray

_QUOTE = ord('"')
_LINE_FEED = ord("\n")

#: A quoted field with its doubled quotation marks, closed or not.
_QUOTED_FIELD = re.compile(rb'(?<![^,\r\n])"[^"]*(?:""[^"]*)*("|\Z)')


def last_record_end(text: bytes) -> int:
    """Return the offset just behind the last line break that ends a record; 0 if there is none."""
    if b'"' not in text:
        return text.rfind(b"\n") + 1
    ends = _record_ends(text)
    return int(ends[-1]) if len(ends) else 0


def first_record_end(text: bytes) -> int:
    """Return the offset just behind the first line break that ends a record; 0 if there is none."""
    line_end = text.find(b"\n") + 1
    if b'"' not in text[:line_end]:
        return line_end
    ends = _record_ends(text)
    return int(ends[0]) if len(ends) else 0


def split_records(text: bytes) -> list[bytes]:
    """Return the records one by one, with their line breaks; blank lines are records here."""
    starts = [0, *map(int, _record_ends(text))]
    return [text[start:stop] for start, stop in zip(starts, [*starts[1:], len(text)], strict=True) if start < stop]


def open_quote(text: bytes) -> int | None:
    """Return where a quoted field begins that never ends; ``None`` if all end."""
    if b'"' not in text:
        return None
    starts, ends = _quoted_spans(text)
    return int(starts[-1]) if len(ends) and ends[-1] > len(text) else None


def _record_ends(text: bytes) -> NDArray[np.intp]:
    starts, ends = _quoted_spans(text)
    breaks = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == _LINE_FEED)
    span = np.searchsorted(starts, breaks) - 1
    is_quoted = (span >= 0) & (breaks < ends[span]) if len(ends) else np.zeros(len(breaks), dtype=np.bool_)
    found: NDArray[np.intp] = breaks[~is_quoted] + 1
    return found


def _quoted_spans(text: bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where quoted text begins and ends; the end of a field that stays open is beyond the text.

    Counting is enough, and fast, where every other quotation mark opens: it stands where a field begins, or
    doubles the one before.  A mark inside an unquoted field (5" pipe) breaks that; then each field is looked for.
    """
    octets = np.frombuffer(text, dtype=np.uint8)
    quotes = np.flatnonzero(octets == _QUOTE)
    opening = quotes[0::2]
    before = octets[opening - 1]
    begins_field = (before == ord(",")) | (before == _LINE_FEED) | (before == ord("\r")) | (opening == 0)
    begins_field[1:] |= opening[1:] - 1 == quotes[1::2][: len(opening) - 1]
    beyond = len(text) + 1
    if begins_field.all():
        closing = np.append(quotes, beyond)[1::2] if len(quotes) % 2 else quotes[1::2]
        return opening, closing
    fields = [(field.start(), field.end() if field[1] else beyond) for field in _QUOTED_FIELD.finditer(text)]
    spans = np.array(fields, dtype=np.intp).reshape(-1, 2)
    return spans[:, 0], spans[:, 1]
