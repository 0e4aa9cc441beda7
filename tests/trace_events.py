"""Reads a trace and holds it against the Trace Event Format, as Perfetto's importer reads it.

Source: "Trace Event Format", the Chromium project; nesting of complete events: perfetto.dev/docs, "Chrome JSON".
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class TraceFile:
    """Is a valid trace, or an assertion that fails."""

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text())
        self.about: dict[str, Any] = content["otherData"]
        self.events: list[Event] = content["traceEvents"]
        assert content["displayTimeUnit"] in ("ms", "ns")
        for event in self.events:
            self._check_fields(event)
        self._check_pairs()
        self._check_nesting()
        self.processes = {
            event["pid"]: event["args"]["name"] for event in self.events if event["name"] == "process_name"
        }
        self.tracks = {
            (event["pid"], event["tid"]): event["args"]["name"]
            for event in self.events
            if event["name"] == "thread_name"
        }

    def complete(self, name: str = "") -> list[Event]:
        """Return what was drawn on tracks of replicas."""
        return [event for event in self.events if event["ph"] == "X" and name in event["name"]]

    def begun(self, name: str) -> list[Event]:
        """Return what was drawn beside the tracks."""
        return [event for event in self.events if event["ph"] == "b" and event["name"] == name]

    def _check_fields(self, event: Event) -> None:
        assert event["ph"] in ("X", "b", "e", "M"), event
        assert isinstance(event["name"], str), event
        assert event["name"], event
        assert isinstance(event["pid"], int), event
        assert isinstance(event["tid"], int), event
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index"), event
            return
        assert isinstance(event["ts"], (int, float)), event
        if event["ph"] == "X":
            assert event["dur"] >= 0, event
        else:
            assert isinstance(event["cat"], str), event
            assert "id" in event, event

    def _check_pairs(self) -> None:
        """Every asynchronous event ends once, after it began, and the innermost first."""
        open_events: dict[tuple[int, str, Any], list[Event]] = defaultdict(list)
        for event in self.events:
            key = (event["pid"], event.get("cat", ""), event.get("id"))
            if event["ph"] == "b":
                open_events[key].append(event)
            elif event["ph"] == "e":
                begun = open_events[key].pop()
                assert begun["name"] == event["name"], (begun, event)
                assert begun["ts"] <= event["ts"], (begun, event)
        assert not any(open_events.values())

    def _check_nesting(self) -> None:
        """Complete events of one track lie within each other or apart."""
        tracks: dict[tuple[int, int], list[Event]] = defaultdict(list)
        for event in self.events:
            if event["ph"] == "X":
                tracks[event["pid"], event["tid"]].append(event)
        for events in tracks.values():
            ends: list[float] = []
            for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
                end = round(event["ts"] + event["dur"], 3)
                while ends and ends[-1] <= event["ts"]:
                    ends.pop()
                assert not ends or end <= ends[-1], event
                ends.append(end)
