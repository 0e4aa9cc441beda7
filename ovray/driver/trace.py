"""Keeps the last requests or chunks of a run, and writes them as a file that Perfetto and chrome://tracing open.

Each host is a process and each replica a track, with further ones where its work overlaps.  Only durations come
from replicas, and all moments from the driver's clock: clocks of hosts are never compared.  What is neither queue
nor work is transport, of which half is taken to lie before the work and half behind it; so what is drawn at a
replica may be off by half of the transport beside it, and by no more.

Memory is bounded: ``WORKS_KEPT`` works are kept, the last ones, and the file says how many were dropped.  May not
enter: Ray, deciding when to write.  Format: "Trace Event Format", as Chromium documents it.
"""

import itertools
import json
import math
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovray.errors import ConfigError
from ovray.logs import run_id

#: Some 400 bytes each in memory, and 1 to 2 KB in the file.
WORKS_KEPT = 20_000

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Is one stretch of a work; parts follow each other without a gap."""

    name: str
    seconds: float
    #: Where it is drawn: on the replica's track, or beside it.
    is_at_replica: bool = True
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Is one request, bundle or chunk that has ended."""

    name: str
    #: ``host/CPU.0#0``; ``None`` where none had it.
    replica: str | None
    #: On the driver's clock.
    ended_s: float
    parts: tuple[Part, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def began_s(self) -> float:
        """When it was submitted or sent."""
        return self.ended_s - sum(part.seconds for part in self.parts)


class Trace:
    """Collects works on one thread, and writes them once."""

    def __init__(self, path: str | os.PathLike[str], model: str) -> None:
        """Notes the time; ``add`` and ``write`` do the rest.

        Args:
            path: of the file.
            model: how the model is called.

        Raises:
            ConfigError: no file can be written there.
        """
        self._path = check_path(path)
        self._model = model
        #: The same moment on both clocks.
        self._began_s, self._began_unix_s = time.monotonic(), time.time()
        self._works: deque[Work] = deque(maxlen=WORKS_KEPT)
        self._added = 0

    def add(self, work: Work) -> None:
        """Takes in a work that has ended."""
        self._works.append(work)
        self._added += 1

    def write(self) -> None:
        """Writes the file in one step.  Raises OSError where that fails after all."""
        dropped = self._added - len(self._works)
        content = {
            "traceEvents": list(_events(self._works, self._began_s)),
            "displayTimeUnit": "ms",
            "otherData": {
                "run": run_id(),
                "model": self._model,
                "driver": f"{socket.gethostname()}:{os.getpid()}",
                "began_unix_s": self._began_unix_s,
                "works": self._added,
                "dropped": dropped,
                "clock": "the driver's; half of the transport is drawn before the work of a replica, half behind",
            },
        }
        beside = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}")
        try:
            beside.write_text(json.dumps(content))
            os.replace(beside, self._path)
        finally:
            beside.unlink(missing_ok=True)


def check_path(path: str | os.PathLike[str]) -> Path:
    """Returns where a trace goes.

    Raises:
        ConfigError: it cannot go there.
    """
    typed = os.fspath(path)
    found = Path(typed).expanduser()
    if found.suffix != _SUFFIX:
        raise ConfigError(f"trace {typed!r}: give a file on this machine whose name ends in {_SUFFIX}")
    if found.is_dir() or not os.access(found.parent, os.W_OK):
        raise ConfigError(f"trace {typed!r} cannot be written: its folder must exist and take files")
    return found


@dataclass(frozen=True, slots=True)
class _Stay:
    """Is the time that a work spent at its replica, without what lay before and behind."""

    begin_s: float
    work: Work
    parts: tuple[Part, ...]
    number: int

    @property
    def end_s(self) -> float:
        return self.begin_s + sum(part.seconds for part in self.parts)


def _events(works: Iterable[Work], origin_s: float) -> Iterator[dict[str, Any]]:
    places = _Places()
    stays: list[_Stay] = []
    for number, work in enumerate(sorted(works, key=lambda work: work.began_s)):
        at_s = work.began_s - origin_s
        pid = places.process(work.replica)
        beside = {"cat": "ovray", "id": number}
        yield {**_event("b", work.name, pid, 0, at_s), **beside, "args": dict(work.facts)}
        parts = [part for part in work.parts if part.is_at_replica]
        if parts and work.replica is not None:
            before = itertools.takewhile(lambda part: not part.is_at_replica, work.parts)
            begin_s = at_s + sum(part.seconds for part in before)
            stays.append(_Stay(begin_s, work, tuple(parts), number))
        for part in work.parts:
            yield {**_event("b", part.name, pid, 0, at_s), **beside, "args": dict(part.facts)}
            at_s += part.seconds
            yield {**_event("e", part.name, pid, 0, at_s), **beside}
        yield {**_event("e", work.name, pid, 0, at_s), **beside}
    yield from _at_replicas(stays, places)
    yield from places.names()


def _at_replicas(stays: Iterable[_Stay], places: "_Places") -> Iterator[dict[str, Any]]:
    #: Requests that were joined come back with the time of the one inference that they had, to the last bit.
    joined_until_s: dict[tuple[str | None, float], float] = {}
    for stay in sorted(stays, key=lambda stay: stay.begin_s):
        replica, seconds = stay.work.replica, stay.parts[0].seconds
        if len(stay.parts) == 1 and stay.begin_s < joined_until_s.get((replica, seconds), -math.inf):
            continue
        joined_until_s[replica, seconds] = stay.end_s
        assert replica is not None
        place = (places.process(replica), places.track(replica, stay.begin_s, stay.end_s))
        args = {"work": stay.number, **stay.work.facts}
        if len(stay.parts) > 1:
            yield _span(stay.work.name, place, stay.begin_s, stay.end_s, args)
        at_s = stay.begin_s
        for part in stay.parts:
            yield _span(part.name, place, at_s, at_s + part.seconds, {**args, **part.facts})
            at_s += part.seconds


def _span(name: str, place: tuple[int, int], begin_s: float, end_s: float, args: dict[str, Any]) -> dict[str, Any]:
    # The ends are rounded, and not the duration: what lies within another shall do so in the file, too.
    duration_us = round(_us(end_s) - _us(begin_s), 3)
    return {**_event("X", name, *place, begin_s), "dur": duration_us, "args": args}


def _event(phase: str, name: str, pid: int, tid: int, at_s: float) -> dict[str, Any]:
    return {"ph": phase, "name": name, "pid": pid, "tid": tid, "ts": _us(at_s)}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)


class _Places:
    """Numbers processes and tracks; spans of a track follow each other and never overlap."""

    def __init__(self) -> None:
        self._processes: dict[str, int] = {}
        #: Of each replica, for each of its tracks: the number, and up to when it is taken.
        self._tracks: dict[str, list[tuple[int, float]]] = {}
        self._next = 1

    def process(self, replica: str | None) -> int:
        host = "no replica" if replica is None else replica.partition("/")[0]
        return self._processes.setdefault(host, len(self._processes) + 1)

    def track(self, replica: str, begin_s: float, end_s: float) -> int:
        tracks = self._tracks.setdefault(replica, [])
        for index, (number, taken_s) in enumerate(tracks):
            if _us(taken_s) <= _us(begin_s):
                tracks[index] = (number, end_s)
                return number
        tracks.append((self._next, end_s))
        self._next += 1
        return tracks[-1][0]

    def names(self) -> Iterator[dict[str, Any]]:
        for host, pid in self._processes.items():
            yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": host}}
        for replica, tracks in self._tracks.items():
            for index, (number, _) in enumerate(tracks):
                name = replica if index == 0 else f"{replica} ({index + 1})"
                place = {"pid": self.process(replica), "tid": number}
                yield {"ph": "M", "name": "thread_name", **place, "args": {"name": name}}
                yield {"ph": "M", "name": "thread_sort_index", **place, "args": {"sort_index": number}}
