"""Joins requests that are too small to be scheduled one by one, and takes their results apart again.

May not enter: threads, clocks, scheduling, transport.  A bundle is to all others one request with many rows.

A request of ten microseconds costs the driver more in scheduling and messages than the device in arithmetic.  So
requests that wait together and whose rows do not look at each other are joined, to bundles that take a replica
about a millisecond; requests that come singly, or take longer, are left as they are.  What goes wrong with a
bundle is tried again with each of its requests alone, so that one of them does not speak for the others.

Measured on two cores that others used, too, with a perceptron of 64 inputs and one row a request: 47 us of the
driver and 42 us of the replica a request before, 20 us and 5 us after.
"""

import itertools
import os
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovray.core.events import RequestSubmitted
from ovray.core.ids import ReplicaId, RequestId
from ovray.core.ledger import ReplicaState
from ovray.core.snapshot import ReplicaSnapshot, Snapshot
from ovray.driver.calls import Call, Ended
from ovray.driver.meter import Figures, RequestMeter, request_meter
from ovray.driver.small_requests import Joined, SmallRequest, joined_tensors, tell
from ovray.errors import DataError, ReplicaError
from ovray.replica.workload import ReplicaReport

#: What a bundle should take on the slowest replica: a late bundle holds up the others by no more than this.
BUNDLE_S = 0.001

#: Bytes of a bundle's inputs: copying more would cost what bundling saves.
BUNDLE_BYTES = 64 << 10

#: Inferences of a replica that count for the time of a row.
_TIMES_KEPT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRule:
    """Says which requests may be joined."""

    #: The dimension of each input, and of each output, that counts the rows.
    input_axes: tuple[int, ...]
    output_axes: tuple[int, ...]
    #: Rows of one bundle at the most.
    max_rows: int


class RowTimes:
    """Learns how long a row takes on the devices themselves.

    The scheduler's rates count the time in which a replica had work, messages included; of bundles that are too
    small for the device that is most of it, and they would stay small for ever.
    """

    def __init__(self) -> None:
        self._row_s: defaultdict[ReplicaId, deque[float]] = defaultdict(lambda: deque(maxlen=_TIMES_KEPT))

    def note(self, how: Ended) -> None:
        """Takes note of an inference that ended well."""
        if how.replica is None or how.batch_rows < 1 or how.infer_s <= 0.0:
            return
        self._row_s[how.replica].append(how.infer_s / how.batch_rows)

    def rows_per_s(self, standing: ReplicaSnapshot) -> float:
        """Says how fast a replica is, by its inferences or by its answers, whichever is more."""
        row_s = self._row_s.get(standing.id)
        # The least of them: what was disturbed says nothing of the device.
        return max(standing.rows_per_s or 0.0, 1.0 / min(row_s) if row_s else 0.0)


def bundle_rule(
    snapshot: Snapshot, reports: Mapping[ReplicaId, ReplicaReport], times: RowTimes
) -> BundleRule | None:
    """Makes the rule that suits every replica that is there; ``None`` where requests are not to be joined."""
    serving = [standing for standing in snapshot.replicas if standing.state is not ReplicaState.LOST]
    engines = [reports[standing.id].engine for standing in serving if standing.id in reports]
    verdicts = {(engine.batch.input_axes, engine.batch.output_axes) for engine in engines if engine.batch}
    if len(engines) < len(serving) or len(verdicts) != 1 or any(engine.batch is None for engine in engines):
        return None
    ((input_axes, output_axes),) = verdicts
    rows_in_time = min(map(times.rows_per_s, serving)) * BUNDLE_S
    max_rows = min(int(rows_in_time), *(engine.max_joined_rows for engine in engines))
    if input_axes is None or output_axes is None or max_rows < 2:
        return None
    return BundleRule(input_axes=input_axes, output_axes=output_axes, max_rows=max_rows)


@dataclass(slots=True, eq=False)
class _Bundle:
    rule: BundleRule
    members: list[Call]
    rows: list[int]
    submitted_s: float


class Bundles:
    """Owns the bundles that are under way."""

    def __init__(
        self, submit_alone: Callable[[Call], None], max_kills: int, left: Callable[[int, int], None]
    ) -> None:
        """Has no rule yet, and so joins nothing.

        Args:
            submit_alone: takes a request that was in a bundle and is to be tried on its own.
            max_kills: replicas that may die of one piece of work.
            left: is told the bytes and the number of small requests that have ended.
        """
        #: ``None`` joins nothing.
        self.rule: BundleRule | None = None
        self.times = RowTimes()
        self._submit_alone = submit_alone
        self._max_kills = max_kills
        self._left = left
        #: Counts what becomes of requests, those that are in no bundle, too.
        self.meter: RequestMeter = request_meter(Figures.parse(os.environ))
        self._bundle_of: dict[RequestId, _Bundle] = {}
        # Below zero, so that they are nobody else's.
        self._ids = itertools.count(-1, -1)

    def form(self, calls: Sequence[Call]) -> list[Call]:
        """Joins those that may be; returns what is to be scheduled."""
        if self.rule is None or len(calls) < 2:
            return list(calls)
        formed: list[Call] = []
        alike: dict[Hashable, list[tuple[Call, int]]] = {}
        for call in calls:
            rows = _rows(call, self.rule)
            if rows is None:
                formed.append(call)
            else:
                alike.setdefault(_key(call, self.rule), []).append((call, rows))
        for group in alike.values():
            formed += self._join(group, self.rule)
        return formed

    def form_small(
        self, requests: Sequence[SmallRequest], least: int, most: int
    ) -> tuple[list[Call], list[SmallRequest]]:
        """Joins those that may be.

        Args:
            requests: those that wait, oldest first.
            least: bundles that are needed now, of whatever size.
            most: bundles that are of use now, if they are large; the rest of the requests is better joined later,
                with others.

        Returns:
            What is to be scheduled, and what is left for later.
        """
        if len(requests) == 1:
            return [self._small_alone(request) for request in requests if not request.is_over], []
        waiting = [request for request in requests if not request.is_over]
        by_kind = {
            kind: [request for request in waiting if request.kind is kind]
            for kind in dict.fromkeys(request.kind for request in waiting)
        }
        formed: list[Call] = []
        left: list[SmallRequest] = []
        for kind, alike in by_kind.items():
            rows = None if self.rule is None else kind.rows_along(self.rule.input_axes)
            if self.rule is None or rows is None:
                formed += map(self._small_alone, alike)
                continue
            at = 0
            for count in _counts(len(alike), rows, kind.size_bytes, self.rule):
                is_large = 2 * count * rows >= self.rule.max_rows
                if len(formed) >= (most if is_large else least):
                    left += alike[at:]
                    break
                some = alike[at : at + count]
                formed.append(
                    self._small_alone(some[0]) if count == 1 else self._bundle_small(some, rows, self.rule)
                )
                at += count
        if len(by_kind) > 1:
            left.sort(key=_submission)  # whose kind was passed over is first the next time
        return formed, left

    def cancel_small(self, request: SmallRequest) -> RequestId | None:
        """Ends one that is in a bundle, unless it has ended; gives the number of one that is not."""
        if request.number is None:
            self.end_small(request, ReplicaError("cancelled by its caller"))
        return request.number

    def end_small(self, request: SmallRequest, error: Exception) -> None:
        """Ends a request with an error, unless it has ended."""
        ended = _not_inferred(error)
        if not request.is_over:
            self.meter.ended(ended)
        self._end_alone(request, ended)

    def _end_alone(self, request: SmallRequest, how: Ended) -> None:
        if request.end(how):
            self._left(request.kind.size_bytes, 1)

    def cancel(self, request: RequestId) -> bool:
        """Ends a request that is in a bundle; says whether it was in one."""
        bundle = self._bundle_of.pop(request, None)
        if bundle is None:
            return False
        member = next(member for member in bundle.members if member.asked.request == request)
        ended = _not_inferred(ReplicaError("cancelled by its caller"))
        self.meter.ended(ended)
        member.ended(ended)
        return True

    def _join(self, group: Sequence[tuple[Call, int]], rule: BundleRule) -> Iterable[Call]:
        at = 0
        while at < len(group):
            members, rows = [group[at][0]], [group[at][1]]
            size_bytes = _size_bytes(members[0])
            # Sizes that are powers of two: a device that prepares itself for each shape has few to prepare for.
            limit = min(rule.max_rows, 1 << (sum(rows for _, rows in group[at:]).bit_length() - 1))
            limit = min(limit, max(1, rows[0] * BUNDLE_BYTES // max(1, size_bytes)))
            at += 1
            while at < len(group) and sum(rows) + group[at][1] <= limit:
                members.append(group[at][0])
                rows.append(group[at][1])
                at += 1
            yield members[0] if len(members) == 1 else self._bundle(_Bundle(rule, members, rows, 0.0))

    def _small_alone(self, request: SmallRequest, *, kills: int = 0) -> Call:
        return request.alone(RequestId(next(self._ids)), partial(self._end_alone, request), kills=kills)

    def _bundle_small(self, members: Sequence[SmallRequest], rows: int, rule: BundleRule) -> Call:
        first_s = members[0].submitted_s

        def end(how: Ended) -> None:
            if how.outputs is not None:
                submitted_s = [member.submitted_s for member in members if not member.is_over]
                if submitted_s:
                    self.meter.ended_together(how, first_s, submitted_s)
                told = tell(members, Joined(how, rule.output_axes, rows, first_s), how.outputs)
                self._left(told * members[0].kind.size_bytes, told)
                return
            kills = 0 if isinstance(how.error, DataError) else 1
            for member in members:
                if not member.is_over:
                    self._submit_alone(self._small_alone(member, kills=kills))

        return Call(
            asked=RequestSubmitted(
                request=RequestId(next(self._ids)), rows=rows * len(members), kills=self._max_kills
            ),
            tensors=joined_tensors(members, rule.input_axes),
            ended=end,
            submitted_s=first_s,
            requests=len(members),
        )

    def _bundle(self, bundle: _Bundle) -> Call:
        first = bundle.members[0]
        bundle.submitted_s = first.submitted_s
        for member in bundle.members:
            self._bundle_of[member.asked.request] = bundle
        columns = zip(*(member.tensors for member in bundle.members), strict=True)
        return Call(
            asked=RequestSubmitted(
                request=RequestId(next(self._ids)),
                rows=sum(bundle.rows),
                priority=first.asked.priority,
                # The first replica that dies of it ends it, and its requests are tried one by one.
                kills=self._max_kills,
            ),
            tensors=tuple(
                np.concatenate(tensors, axis=axis)
                for tensors, axis in zip(columns, bundle.rule.input_axes, strict=True)
            ),
            ended=lambda how: self._end(bundle, how),
            submitted_s=first.submitted_s,
            requests=len(bundle.members),
        )

    def _end(self, bundle: _Bundle, how: Ended) -> None:
        outputs = None if how.outputs is None else _split(how.outputs, bundle)
        submitted_s: list[float] = []
        for number, member in enumerate(bundle.members):
            if self._bundle_of.pop(member.asked.request, None) is None:
                continue  # cancelled meanwhile
            if outputs is None:
                kills = 0 if isinstance(how.error, DataError) else 1
                self._submit_alone(replace(member, asked=replace(member.asked, kills=kills), may_be_joined=False))
                continue
            earlier_s = bundle.submitted_s - member.submitted_s
            submitted_s.append(member.submitted_s)
            member.ended(
                Ended(
                    outputs=outputs[number],
                    error=None,
                    replica=how.replica,
                    total_s=how.total_s + earlier_s,
                    queued_s=how.queued_s + earlier_s,
                    replica_queued_s=how.replica_queued_s,
                    infer_s=how.infer_s,
                    batch_rows=how.batch_rows,
                )
            )
        if submitted_s:
            self.meter.ended_together(how, bundle.submitted_s, submitted_s)


def _submission(request: SmallRequest) -> float:
    return request.submitted_s


def _counts(waiting: int, rows: int, size_bytes: int, rule: BundleRule) -> Iterator[int]:
    """Says how many go into each bundle, where so many wait that have so many rows and bytes each."""
    most = max(1, min(rule.max_rows // rows, BUNDLE_BYTES // max(1, size_bytes)))
    while waiting:
        # As in ``_join``: powers of two.
        count = 1 << (min(most, waiting).bit_length() - 1)
        yield count
        waiting -= count


def _rows(call: Call, rule: BundleRule) -> int | None:
    """Counts the rows of a request; ``None`` for one that stays alone."""
    asked = call.asked
    if not call.may_be_joined or asked.pinned_to is not None or asked.deadline_s != float("inf"):
        return None
    rows = None
    for tensor, axis in zip(call.tensors, rule.input_axes, strict=True):
        if tensor.ndim <= axis or tensor.dtype.hasobject or (rows is not None and tensor.shape[axis] != rows):
            return None
        rows = tensor.shape[axis]
    return rows or None


def _key(call: Call, rule: BundleRule) -> Hashable:
    return (
        call.asked.priority,
        *(
            (tensor.dtype.num, tensor.shape[:axis], tensor.shape[axis + 1 :])
            for tensor, axis in zip(call.tensors, rule.input_axes, strict=True)
        ),
    )


def _size_bytes(call: Call) -> int:
    return sum(tensor.nbytes for tensor in call.tensors)


def _split(outputs: Sequence[NDArray[Any]], bundle: _Bundle) -> list[tuple[NDArray[Any], ...]]:
    """Copies the rows of each request out of the outputs: who keeps one must not keep them all."""
    columns = []
    for output, axis in zip(outputs, bundle.rule.output_axes, strict=True):
        before, column, at = (slice(None),) * axis, [], 0
        for rows in bundle.rows:
            column.append(output[(*before, slice(at, at + rows))].copy())
            at += rows
        columns.append(column)
    return list(zip(*columns, strict=True))


def _not_inferred(error: Exception) -> Ended:
    return Ended(
        outputs=None,
        error=error,
        replica=None,
        total_s=0.0,
        queued_s=0.0,
        replica_queued_s=0.0,
        infer_s=0.0,
        batch_rows=0,
    )
