"""Reads pages of HTML as a browser would, strictly: every element that opens must close."""

from html.parser import HTMLParser

_VOID = {"meta", "br", "hr", "img", "input", "link"}

#: Through which a page could reach for something else.
_REACHING = {"src", "href", "srcset", "action", "data", "xlink:href"}


class Page(HTMLParser):
    """Is a page that was read: its text, elements by name, and what it would load."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.reaches_for: list[str] = []
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert self._open == [], f"{self._open} are never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.reaches_for += [f"{tag} {key}={value}" for key, value in attrs if key in _REACHING]
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.reaches_for.append(tag)
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.reaches_for += [word for word in ("url(", "@import") if word in data]
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def classes(self, element: str) -> list[str]:
        """Return the class of each such element that has one."""
        return [attrs["class"] or "" for name, attrs in self.elements if name == element and "class" in attrs]
