"""Finds where the records of CSV text begin and end, quoted line breaks included.

Pure: bytes in, offsets out.  May not enter: files, types.
Limit: a quotation mark counts wherever it stands (RFC 4180 allows it only around a field).  A lone one inside an
unquoted field makes the line breaks after it look quoted until the next one; pairs do no harm.
"""

import numpy as np

_QUOTE = ord('"')
_LINE_FEED = ord("\n")


def last_record_end(text: bytes) -> int:
    """Return the offset just behind the last line break that ends a record; 0 if there is none.

    ``text`` must begin at the start of a record.
    """
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


def _record_ends(text: bytes) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Return the offsets behind all line breaks that an even number of quotation marks precedes."""
    octets = np.frombuffer(text, dtype=np.uint8)
    quotes = np.flatnonzero(octets == _QUOTE)
    breaks = np.flatnonzero(octets == _LINE_FEED)
    is_outside = np.searchsorted(quotes, breaks) % 2 == 0
    ends: np.ndarray[tuple[int], np.dtype[np.intp]] = breaks[is_outside] + 1
    return ends
