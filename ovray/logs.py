"""Says how ovray logs: one logger, ``ovray``, whose lines carry fields and the run's id.

A run is one process of the user's with the replicas that it starts.  A library leaves logging to its caller, so
nothing is set up unless ``OVRAY_LOG`` asks for it.  May not enter: what is logged.
"""

import json
import logging
import os
import re
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import IO, Any

from ovray.errors import ConfigError

#: Says what is logged and how: a level, ``json``, or both with a comma between.
LOG_VARIABLE = "OVRAY_LOG"

#: Gives a run an id of the caller's own, such as that of a batch system.
RUN_VARIABLE = "OVRAY_RUN_ID"

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_LEVELS = ("debug", "info", "warning", "error")

#: Where a record keeps its fields.
_FIELDS = "ovray_fields"

#: Values of ``key=value`` that need no quotes.
_PLAIN = re.compile(r"[^\s\"=]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Says how a process logs; travels to replicas."""

    run: str
    #: ``None`` leaves logging as the process has it.
    level: str | None = None
    is_json: bool = False
    #: Fields of every line.
    fields: Mapping[str, str] = field(default_factory=dict)


def read_settings(environment: Mapping[str, str]) -> LogSettings:
    """Reads ``OVRAY_LOG`` and ``OVRAY_RUN_ID``.

    Raises:
        ConfigError: one of them is none.

    Example:
        >>> read_settings({"OVRAY_LOG": "debug,json", "OVRAY_RUN_ID": "night-7"})
        LogSettings(run='night-7', level='debug', is_json=True, fields={})
    """
    run = environment.get(RUN_VARIABLE) or uuid.uuid4().hex[:12]
    if not _RUN_ID.fullmatch(run):
        raise ConfigError(
            f"{RUN_VARIABLE} is {run!r}; give up to 64 letters, digits, dots, hyphens and underscores, the first a"
            " letter or a digit, or leave it out; nothing was started"
        )
    words = [word.strip().lower() for word in environment.get(LOG_VARIABLE, "").split(",") if word.strip()]
    levels = [word for word in words if word != "json"]
    if len(levels) > 1 or not set(levels) <= set(_LEVELS):
        raise ConfigError(
            f"{LOG_VARIABLE} is {environment[LOG_VARIABLE]!r}; give one of {', '.join(_LEVELS)}, or json, or both"
            " with a comma between; nothing was started"
        )
    level = levels[0] if levels else "info" if words else None
    return LogSettings(run=run, level=level, is_json="json" in words)


class _Process:
    """Is how this process logs."""

    def __init__(self) -> None:
        self.settings: LogSettings | None = None
        self.handler: logging.Handler | None = None


_process = _Process()


def settings() -> LogSettings:
    """Returns how this process logs; reads the environment the first time.

    Raises:
        ConfigError: as ``read_settings``.
    """
    if _process.settings is None:
        _process.settings = read_settings(os.environ)
    return _process.settings


def run_id() -> str:
    """Returns the run that this process belongs to."""
    return settings().run


def set_up(stream: IO[str] | None = None) -> None:
    """Has ovray's logger write lines, if ``OVRAY_LOG`` asks for them; a second call only moves them.

    Args:
        stream: where to; ``None`` is standard error.

    Raises:
        ConfigError: as ``read_settings``.
    """
    wanted = settings()
    if wanted.level is None or (_process.handler is not None and stream is None):
        return
    logger = logging.getLogger("ovray")
    if _process.handler is not None:
        logger.removeHandler(_process.handler)
    _process.handler = logging.StreamHandler(stream or sys.stderr)
    _process.handler.setFormatter(_Lines(wanted))
    logger.addHandler(_process.handler)
    logger.setLevel(wanted.level.upper())
    # Whoever has set up the root logger, too, would have each line twice.
    logger.propagate = False


def follow(others: LogSettings) -> None:
    """Has this process log as the one that started it, under the same run."""
    _process.settings = others
    set_up()


def fields(**values: Any) -> dict[str, Any]:
    """Makes the ``extra`` of a call of a logger: fields of its line.

    Example:
        >>> fields(replica="a/CPU.0#0", seconds=1.5)
        {'ovray_fields': {'replica': 'a/CPU.0#0', 'seconds': 1.5}}
    """
    return {_FIELDS: values}


class _Lines(logging.Formatter):
    """Makes one line of a record: ``key=value`` pairs, or a JSON object."""

    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._settings = settings
        self._host = socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "run": self._settings.run,
            "host": self._host,
            "pid": record.process,
            **self._settings.fields,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if self._settings.is_json:
            return json.dumps(line, default=str)
        return " ".join(f"{key}={_as_text(value)}" for key, value in line.items())


def _as_text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
