"""Finds the input files that a caller means, and opens them: paths, folders, globs, URLs.

Order is a promise: inputs as given, the files of a folder or glob by name.  Below folders and wildcards, names
that begin with ``_`` or ``.`` are not data.  Files of other formats are passed over there, and texts beside
tables or pictures, which are notes about them.  Pictures come as folders that list them: what a listing says of
size and time is all that is asked of each.
May not enter: what the files hold.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import groupby
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs

from ovray.errors import ConfigError
from ovray.scoring.partitions import partitions_of
from ovray.scoring.records import FileRef, Format, Pictures

_WILDCARDS = frozenset("*?[")

#: How many names a message lists before it says "and N more".
_NAMES_SHOWN = 5


def find_files(inputs: Sequence[str | os.PathLike[str]]) -> tuple[FileRef, ...]:
    """Return the files that ``inputs`` mean, in the order in which their rows count.

    Raises ConfigError where an input matches nothing, cannot be looked at, or holds no file that ovray reads.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    if not inputs:
        raise ConfigError("no input was given: name at least one file, folder, glob or URL")
    return tuple(ref for given in inputs for ref in _find_one(os.fspath(given)))


def picture_of(folder: FileRef, at: int) -> FileRef:
    """Return where a picture of a listed folder is."""
    assert folder.pictures is not None
    name = folder.pictures.names[at].as_py()
    location = _join(folder.location, name)
    if is_url(folder.location):
        path, mark, options = folder.location.partition("?")
        location = _join(path, quote(name)) + mark + options
    return FileRef(
        name=_join(folder.name, name), location=location, format=folder.format, partitions=folder.partitions
    )


def open_file(ref: FileRef) -> pa.NativeFile:
    """Open a file for reading at any place.  Raises OSError or ArrowInvalid as pyarrow does."""
    filesystem, path = resolve(ref.location)
    return filesystem.open_input_file(path)


def open_stream(ref: FileRef) -> pa.NativeFile:
    """Open a file for reading from its start; unpacked, where its name ends in ``.gz``."""
    filesystem, path = resolve(ref.location)
    return filesystem.open_input_stream(path, compression="gzip" if ref.is_packed else None)


def file_info(ref: FileRef) -> pafs.FileInfo:
    """Return size and time of the last change as the file system reports them now."""
    filesystem, path = resolve(ref.location)
    return filesystem.get_file_info(path)


def resolve(location: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of an absolute path or URL, and the path within it."""
    if is_url(location):
        filesystem, path = pafs.FileSystem.from_uri(location)
        return filesystem, path
    return pafs.LocalFileSystem(), location


def is_url(text: str) -> bool:
    """Return whether this names a place by a scheme, as in ``s3://``."""
    return "://" in text


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text, for use inside a message."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


class _Place:
    """Stands for one input as typed: where it is, and how what lies below it is called in messages."""

    def __init__(self, typed: str) -> None:
        self.typed = typed
        # In a URL a question mark begins the options of the file system (s3://bucket/x?region=...).
        path, mark, options = typed.partition("?") if is_url(typed) else (typed, "", "")
        self._options = mark + options
        folder, self.pattern = _split_at_wildcard(path)
        if self.pattern and not is_url(typed) and os.path.exists(os.path.expanduser(typed)):
            folder, self.pattern = typed, ()  # a file whose own name holds a bracket
        self._shown_root = folder
        self._root = folder if is_url(folder) else os.path.abspath(os.path.expanduser(folder or "."))
        self.filesystem, self.path = resolve(self._root + self._options)

    def ref(self, path: str, known: Format) -> FileRef:
        below = path[len(self.path) :].lstrip("/")
        location = (
            _join(self._root, quote(below)) + self._options if is_url(self._root) else _join(self._root, below)
        )
        name = _join(self._shown_root, below)
        return FileRef(name=name, location=location, format=known, partitions=partitions_of(name))

    def children(self, path: str) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(path, recursive=False, allow_not_found=True)
        return sorted(self.filesystem.get_file_info(selector), key=lambda info: str(info.base_name))

    def pictures(self, folder: str, found: Sequence[pafs.FileInfo]) -> FileRef:
        """Return a ref to some pictures of one folder; to a single one, where that is what was typed."""
        listing = Pictures(
            names=pa.array([info.path[len(folder) :].lstrip("/") for info in found], pa.string()),
            sizes_bytes=pa.array([info.size for info in found], pa.int64()),
            modified_ns=pa.array([info.mtime_ns for info in found], pa.int64()),
        )
        ref = self.ref(folder, Format.PICTURE)
        is_folder = listing.names[0].as_py() != ""
        partitions = partitions_of(f"{ref.name}/") if is_folder else ref.partitions
        return replace(ref, partitions=partitions, pictures=listing)

    def files_below(self, path: str) -> Iterator[pafs.FileInfo]:
        for info in self.children(path):
            if info.base_name.startswith(("_", ".")):
                continue
            if info.type == pafs.FileType.Directory:
                yield from self.files_below(info.path)
            else:
                yield info

    def matches(self, path: str, pattern: tuple[str, ...]) -> Iterator[pafs.FileInfo]:
        """Yield the files that a pattern finds below ``path``; a folder that it ends at gives all of its files."""
        first, rest = pattern[0], pattern[1:]
        if first == "**" and rest:
            yield from self.matches(path, rest)
        for info in self.children(path):
            if not _segment_matches(info.base_name, first):
                continue
            if info.type != pafs.FileType.Directory:
                if not rest:
                    yield info
            elif first == "**" and rest:
                yield from self.matches(info.path, pattern)
            elif rest:
                yield from self.matches(info.path, rest)
            else:
                yield from self.files_below(info.path)


def _find_one(typed: str) -> list[FileRef]:
    try:
        place = _Place(typed)
        if place.pattern:
            return _only_data(place, place.matches(place.path, place.pattern), "matches no file")
        info = place.filesystem.get_file_info(place.path)
        if info.type == pafs.FileType.Directory:
            return _only_data(place, place.files_below(place.path), "is a folder without files")
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"input {typed!r} cannot be looked at: {one_line(error)}") from error
    if info.type == pafs.FileType.NotFound:
        raise ConfigError(f"input {typed!r} matches nothing: there is no such file or folder")
    known = Format.of_name(place.path)
    if known is None:
        raise ConfigError(f"input {typed!r} is of no known format: ovray goes by the name and reads {_endings()}")
    return [place.pictures(place.path, [info]) if known.is_one_row else place.ref(place.path, known)]


def _only_data(place: _Place, infos: Iterable[pafs.FileInfo], if_none: str) -> list[FileRef]:
    found = dict(sorted({info.path: info for info in infos}.items()))
    if not found:
        raise ConfigError(f"input {place.typed!r} {if_none} (names that begin with '_' or '.' are not data)")
    formats = {path: known for path in found if (known := Format.of_name(path)) is not None}
    if not formats:
        names = [path.rsplit("/", 1)[-1] for path in found]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        raise ConfigError(
            f"input {place.typed!r} holds no file that ovray reads ({_endings()});"
            f" there is: {', '.join(names[:_NAMES_SHOWN])}{more}"
        )
    pictures = [found[path] for path, known in formats.items() if known.is_one_row]
    tables = [path for path, known in formats.items() if not known.is_one_row and known is not Format.TEXT]
    if pictures and tables:
        shown = [path.rsplit("/", 1)[-1] for path in (tables[0], pictures[0].path)]
        raise ConfigError(
            f"input {place.typed!r} holds tables and pictures, such as {shown[0]} and {shown[1]}, and it is open"
            " which are meant; name one kind, as in 'FOLDER/**/*.jpg'"
        )
    if pictures:
        return [place.pictures(folder, list(some)) for folder, some in groupby(pictures, _folder_of)]
    return [place.ref(path, formats[path]) for path in tables or formats]


def _folder_of(info: pafs.FileInfo) -> str:
    folder: str = info.path.rpartition("/")[0]
    return folder


def _split_at_wildcard(typed: str) -> tuple[str, tuple[str, ...]]:
    """Part ``a/b*/c`` into the folder ``a`` and the pattern ``("b*", "c")``; no pattern without wildcards."""
    scheme, separator, rest = typed.partition("://") if is_url(typed) else ("", "", typed)
    segments = rest.split("/")
    for at, segment in enumerate(segments):
        if _WILDCARDS & set(segment):
            folder = "/".join(segments[:at]) or ("/" if at else "")
            return scheme + separator + folder, tuple(part for part in segments[at:] if part)
    return typed, ()


def _segment_matches(name: str, pattern: str) -> bool:
    is_hidden_from_wildcards = name[:1] in ("_", ".") and name[:1] != pattern[:1]
    return not is_hidden_from_wildcards and fnmatchcase(name, pattern)


def _join(root: str, below: str) -> str:
    if not below:
        return root
    return f"{root}{'' if not root or root.endswith('/') else '/'}{below}"


def _endings() -> str:
    return ", ".join(ending for known in Format for ending in known.endings)
