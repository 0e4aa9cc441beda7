"""Says where the time of requests and chunks went, for traces.

May not enter: Ray, where traces go (trace.py, spans.py).
"""

from ovray.driver.calls import Call, Ended
from ovray.driver.trace import Part, Work


def work_of_request(call: Call, how: Ended, now_s: float) -> Work:
    """Describes a request, or a bundle of them, that has ended."""
    name = "request" if call.requests == 1 else "requests together"
    facts = {"request": int(call.asked.request), "requests": call.requests, "rows": call.asked.rows}
    if how.error is not None:
        rest_s = max(0.0, how.total_s - how.queued_s)
        return Work(
            name=f"{name} failed",
            replica=how.replica,
            ended_s=now_s,
            parts=(_beside("queue", how.queued_s), _beside("until the error", rest_s)),
            facts={**facts, "error": f"{type(how.error).__name__}: {how.error}"},
        )
    half_s = max(0.0, how.total_s - how.queued_s - how.replica_queued_s - how.infer_s) / 2
    parts = (
        _beside("queue", how.queued_s),
        _beside("transport", half_s),
        _beside("wait at replica", how.replica_queued_s),
        Part(name="inference", seconds=how.infer_s, facts={"batch_rows": how.batch_rows}),
        _beside("transport back", half_s),
    )
    return Work(name=name, replica=how.replica, ended_s=now_s, parts=parts, facts=facts)


def _beside(name: str, seconds: float) -> Part:
    return Part(name=name, seconds=max(0.0, seconds), is_at_replica=False)
