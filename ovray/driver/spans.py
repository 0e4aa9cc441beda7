"""Makes OpenTelemetry spans of requests and chunks, where Ray's tracing is on.

Ray says so (``ray start --tracing-startup-hook``, or ``ray.init(_tracing_startup_hook=...)``); the hook has set up
where spans go.  Without it nothing of OpenTelemetry is imported.  May not enter: what a work is (works.py).
"""

import time
from typing import Any

from ray.util.tracing.tracing_helper import _is_tracing_enabled

from ovray.driver.trace import Work
from ovray.logs import run_id

_NS = 1_000_000_000


class Spans:
    """Hands works to OpenTelemetry.  Safe to use from many threads."""

    def __init__(self, model: str) -> None:
        """Uses the tracer provider that is set up.

        Args:
            model: how the model is called.
        """
        from opentelemetry import context, trace

        self._model = model
        self._trace: Any = trace
        self._context: Any = context
        self._tracer: Any = trace.get_tracer("ovray")
        self._unix_minus_driver_ns = time.time_ns() - time.monotonic_ns()

    def here(self) -> Any:
        """Returns what spans of this thread would be children of."""
        return self._context.get_current()

    def add(self, work: Work, context: Any) -> None:
        """Makes the span of a work, and one below it for each of its parts.

        Args:
            work: has ended.
            context: from ``here``, where it was asked for; ``None`` for a span with no parent.
        """
        at_ns = int(work.began_s * _NS) + self._unix_minus_driver_ns
        facts = {f"ovray.{key}": value for key, value in work.facts.items()}
        whole = self._tracer.start_span(
            f"ovray {work.name}",
            context=context,
            kind=self._trace.SpanKind.CLIENT,
            start_time=at_ns,
            attributes={
                "ovray.run": run_id(),
                "ovray.model": self._model,
                "ovray.replica": work.replica or "",
                **facts,
            },
        )
        if "error" in work.facts:
            whole.set_status(self._trace.StatusCode.ERROR, str(work.facts["error"]))
        below = self._trace.set_span_in_context(whole, context)
        for part in work.parts:
            span = self._tracer.start_span(
                f"ovray {part.name}",
                context=below,
                start_time=at_ns,
                attributes={f"ovray.{key}": value for key, value in part.facts.items()},
            )
            at_ns += int(part.seconds * _NS)
            span.end(end_time=at_ns)
        whole.end(end_time=at_ns)


def spans_if_traced(model: str) -> Spans | None:
    """Returns what makes spans, where Ray's tracing is on; this process must be connected to Ray."""
    return Spans(model) if _is_tracing_enabled() else None
