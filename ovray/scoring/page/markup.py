"""Makes HTML and SVG of values: whatever is not markup yet is escaped, so that no name can break a page.

May not enter: what a page shows.
"""

import html
import re
from collections.abc import Iterable, Sequence

#: A name and a secret within a URL, such as ``s3://KEY:SECRET@bucket/``.
_CREDENTIALS = re.compile(r"(\w+://)[^/@\s]+@")

#: What HTML cannot say.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")

Value = str | int | float | None


class Markup(str):
    """Is HTML as it stands; any other text is escaped where it meets some."""

    __slots__ = ()


def tag(name: str, *children: Value, **attributes: Value) -> Markup:
    """Returns an element.

    Args:
        name: of the element.
        children: texts, numbers and elements; ``None`` is left out.
        attributes: by name, ``class_`` for ``class``, ``text_anchor`` for ``text-anchor``; ``None`` is left out.

    Example:
        >>> tag("a", "1 < 2", class_="fact")
        '<a class="fact">1 &lt; 2</a>'
    """
    inside = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{inside}>{joined(children)}</{name}>")


def joined(parts: Iterable[Value]) -> Markup:
    """Returns parts one after the other, texts escaped."""
    return Markup("".join(_escaped(part) for part in parts if part is not None))


def table(heads: Sequence[str], rows: Iterable[Sequence[Value]], *, numbers: Iterable[str] = ()) -> Markup:
    """Returns a table, which scrolls where it is wider than the page; columns in ``numbers`` are flush right."""
    kinds = ["number" if head in set(numbers) else None for head in heads]
    head = tag("tr", *(tag("th", text, class_=kind) for text, kind in zip(heads, kinds, strict=True)))
    body = (
        tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in rows
    )
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def _escaped(value: Value) -> str:
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", _CREDENTIALS.sub(r"\1***@", str(value))))
