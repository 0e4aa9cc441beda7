"""Takes jobs from their submission to their end: cuts chunks late, sends them, copies the last, gives rows back.

May not enter: requests; who is alive (health.py); sizes and cuts (chunking.py); what is copied (backups.py).
"""

import itertools
import math
from collections.abc import Callable, Iterable

from ovray.core import chunking
from ovray.core.backups import Backups
from ovray.core.commands import CancelDispatch, Command, CommitChunk, FailJob, FinishJob, SendChunk
from ovray.core.events import FailureCause, JobSubmitted, Poison
from ovray.core.ids import JobId, ReplicaId
from ovray.core.lanes import Lane, Standing
from ovray.core.ledger import Ledger, Replica
from ovray.core.policies import Policy
from ovray.core.settings import SchedulerSettings
from ovray.core.work import Chunk, Dispatch, History, Job, Piece
from ovray.errors import InvariantError


class Jobs:
    """Owns the jobs and their uncut rows."""

    def __init__(self, ledger: Ledger, new_policy: Callable[[], Policy], settings: SchedulerSettings) -> None:
        self._ledger = ledger
        self._settings = settings
        self._lane = Lane(new_policy())
        self._backups = Backups(ledger)
        #: In order of submission; a job leaves when it is finished or has failed.
        self.running: dict[JobId, Job] = {}
        #: Before the first one, nothing is to be done: who only serves requests does not pay for it.
        self.has_had_some = False
        #: Those of ``running`` with uncut rows, in order of submission.
        self._uncut: dict[JobId, Job] = {}
        #: Gets no fresh rows while suspects wait, so that it has its hands free for them.
        self._tester: ReplicaId | None = None

    @property
    def next_alarm_s(self) -> float:
        # While rows are left to cut, idle replicas are held back from them on purpose: nothing to wake up for.
        return math.inf if self._uncut else self._backups.next_alarm_s

    def submit(self, asked: JobSubmitted) -> list[Command]:
        _check(asked)
        if asked.job in self.running:
            self._ledger.counters.needless_events += 1
            return []
        rows = sum(stop - start for start, stop in asked.ranges)
        if rows == 0:
            return [FinishJob(job=asked.job)]
        job = Job(asked=asked, rows_total=rows, rows_uncut=rows)
        job.fresh.extend(
            Piece(start=start, stop=stop, history=History()) for start, stop in asked.ranges if stop > start
        )
        if not self.has_had_some:
            self.has_had_some = True
            for replica in self._ledger.replicas.values():
                self.refresh(replica)
        self.running[asked.job] = job
        self._uncut[asked.job] = job
        return []

    def cancel(self, job_id: JobId) -> list[Command]:
        job = self.running.get(job_id)
        if job is None:
            self._ledger.counters.needless_events += 1
            return []
        return self._end(job, FailJob(job=job_id, message="cancelled by its caller"))

    def completed(self, dispatch: Dispatch, chunk: Chunk) -> list[Command]:
        """Commit a chunk: this is its first answer, since it is still in the ledger."""
        job = chunk.job
        if len(chunk.dispatches) > 1:
            job.backups_running -= len(chunk.dispatches) - 1
            if next(iter(chunk.dispatches)) != dispatch.id:
                self._ledger.counters.backups_won += 1
        self._ledger.book_completion(dispatch)
        del job.chunks[chunk]
        job.rows_done += chunk.rows
        commit = CommitChunk(
            job=job.asked.job, dispatch=dispatch.id, replica=dispatch.replica, start=chunk.start, stop=chunk.stop
        )
        commands = [commit, *self._cancel(chunk)]
        if job.rows_done == job.rows_total:
            del self.running[job.asked.job]
            commands.append(FinishJob(job=job.asked.job))
        return commands

    def failed(self, dispatch: Dispatch, chunk: Chunk, cause: FailureCause, message: str) -> list[Command]:
        """Try a chunk elsewhere, or end its job where the rows are to blame or the tries are used up."""
        self._withdraw(dispatch, chunk)
        if cause is FailureCause.INPUT:
            return self._fail(chunk, message, cause)
        chunk.history.tries += 1
        chunk.history.failed_on |= {dispatch.replica}
        if chunk.dispatches:
            return []
        if chunk.history.tries >= self._settings.max_tries:
            return self._fail(chunk, f"{message}; given up after {chunk.history.tries} tries", cause)
        self._give_back(chunk, dispatch)
        return []

    def lost(self, dispatch: Dispatch, chunk: Chunk, reason: str) -> list[Command]:
        """Give the rows of a chunk back whose replica is gone, or give them up as poison."""
        self._withdraw(dispatch, chunk)
        history = chunk.history
        if history.verdict is None:
            history.kills += 1
        else:
            history.tries += 1
        if chunk.dispatches:
            return []
        if history.tries >= self._settings.max_tries:
            message = f"{history.verdict}; then {history.tries} more that were to put them on record: {reason}"
            return self._fail(chunk, message, FailureCause.DEVICE)
        if history.verdict is None and history.kills > self._settings.max_replicas_killed:
            message = f"{history.kills} replicas died while they held these rows, the last one: {reason}"
            if chunk.job.asked.poison is Poison.FAIL:
                self._ledger.counters.poisoned += 1
                advice = "given up as poison; look at these rows or raise max_replicas_killed"
                return self._fail(chunk, f"{message}; {advice}", FailureCause.DEVICE)
            if chunk.rows == 1:
                self._ledger.counters.poisoned += 1
                history.verdict = message
        self._give_back(chunk, dispatch)
        return []

    def stalled(self, replica: Replica) -> None:
        """Let the chunks of a silent replica be copied at once."""
        for dispatch in replica.chunks.values():
            if isinstance(dispatch.work, Chunk):
                self._backups.want_copy(dispatch.work)

    def refresh(self, replica: Replica) -> None:
        """Tell the lane and the backups how a replica stands after a change."""
        if not self.has_had_some:
            return
        self._lane.place(replica, _standing(replica))
        self._backups.refresh(replica)

    def dispatch(self) -> list[Command]:
        """Send what can be sent: wanted copies and uncut rows first, then copies of the last chunks."""
        commands: list[Command] = []
        aside: list[Replica] = []
        while self._uncut:
            rows_uncut = sum(job.rows_uncut for job in self._uncut.values())
            replica = self._lane.pick(1, rows_uncut, self._ledger.now_s)
            if replica is None:
                break
            sent = self._send_copy_wanted(replica) or self._send_next(replica)
            if sent is None:
                self._lane.set_aside(replica)
                aside.append(replica)
            else:
                commands.append(sent)
                self.refresh(replica)
        for replica in aside:
            self.refresh(replica)
        if not self._uncut:
            commands.extend(self._send_backups())
        return commands

    def _send_copy_wanted(self, replica: Replica) -> SendChunk | None:
        chunk = self._backups.wanted_copy_for(replica)
        return None if chunk is None else self._send(replica, chunk)

    def _send_backups(self) -> Iterable[SendChunk]:
        while (match := self._backups.next_match()) is not None:
            replica, chunk = match
            yield self._send(replica, chunk)
            self.refresh(replica)

    def _send_next(self, replica: Replica) -> SendChunk | None:
        """Cut a chunk from the first job that has rows this replica may do."""
        self._choose_tester(replica)
        for job in self._uncut.values():
            piece = self._piece_for(job, replica)
            if piece is None:
                continue
            stop = piece.stop
            if not piece.history.kills:
                share = self._lane.policy.share(replica)
                rows = chunking.chunk_rows(job.asked, job.rows_uncut, share, replica, self._settings)
                longest = chunking.longest_rows(job.asked, replica, self._settings)
                stop = chunking.cut_at(job.asked, piece.start, piece.stop, rows, longest)
            chunk = _cut(job, piece, stop)
            if job.rows_uncut == 0:
                del self._uncut[job.asked.job]
            return self._send(replica, chunk)
        return None

    def _piece_for(self, job: Job, replica: Replica) -> Piece | None:
        is_free = not replica.chunks
        for piece in job.returned:
            if piece.history.is_suspect and not is_free:
                continue
            if not self._ledger.is_barred(piece.history, replica, self._lane.members):
                return piece
        if replica.id == self._tester and not is_free:
            return None
        return job.fresh[0] if job.fresh else None

    def _choose_tester(self, replica: Replica) -> None:
        """Have one replica run dry while suspects wait: with fresh rows to read ahead none ever would."""
        if not any(piece.history.is_suspect for job in self._uncut.values() for piece in job.returned):
            self._tester = None
        elif self._tester not in self._lane.members:
            self._tester = replica.id

    def _send(self, replica: Replica, chunk: Chunk) -> SendChunk:
        is_copy = bool(chunk.dispatches)
        dispatch = self._ledger.book(replica, chunk)
        if is_copy:
            chunk.job.backups_running += 1
            self._ledger.counters.backups_sent += 1
            self._backups.forget(chunk)
        else:
            self._backups.watch(chunk, dispatch)
        return SendChunk(
            replica=replica.id,
            dispatch=dispatch.id,
            job=chunk.job.asked.job,
            start=chunk.start,
            stop=chunk.stop,
            verdict=chunk.history.verdict,
        )

    def _withdraw(self, dispatch: Dispatch, chunk: Chunk) -> None:
        self._ledger.book_withdrawal(dispatch)
        if chunk.dispatches:
            chunk.job.backups_running -= 1
            self._backups.watch(chunk, next(iter(chunk.dispatches.values())))
        else:
            self._backups.forget(chunk)

    def _cancel(self, chunk: Chunk) -> list[Command]:
        """Withdraw every dispatch that a chunk still has."""
        self._backups.forget(chunk)
        commands: list[Command] = []
        for dispatch in list(chunk.dispatches.values()):
            self._ledger.book_withdrawal(dispatch)
            commands.append(CancelDispatch(replica=dispatch.replica, dispatch=dispatch.id))
        return commands

    def _give_back(self, chunk: Chunk, back_from: Dispatch) -> None:
        job = chunk.job
        del job.chunks[chunk]
        parts = self._settings.parts_of_suspects if chunk.history.is_suspect else 1
        job.returned.extend(
            Piece(start=start, stop=stop, history=chunk.history.copy())
            for start, stop in itertools.pairwise(chunking.even_cuts(chunk.start, chunk.stop, parts))
        )
        job.rows_uncut += chunk.rows
        self._ledger.count_retry(back_from)
        if job.asked.job not in self._uncut:
            self._uncut[job.asked.job] = job
            order = list(self.running)
            self._uncut = dict(sorted(self._uncut.items(), key=lambda item: order.index(item[0])))

    def _fail(self, chunk: Chunk, message: str, cause: FailureCause) -> list[Command]:
        failure = FailJob(
            job=chunk.job.asked.job, message=message, start=chunk.start, stop=chunk.stop, cause=cause
        )
        return self._end(chunk.job, failure)

    def _end(self, job: Job, failure: FailJob) -> list[Command]:
        """End a job before all its rows are done."""
        commands: list[Command] = []
        for chunk in job.chunks:
            commands.extend(self._cancel(chunk))
        del self.running[job.asked.job]
        self._uncut.pop(job.asked.job, None)
        commands.append(failure)
        return commands

    def check_invariants(self, members_holding_work: Iterable[ReplicaId]) -> None:
        """Raise ``InvariantError`` where rows are lost or doubled, or wait although nobody works."""
        for job in self.running.values():
            _check_rows(job)
        for idler in self._lane.idlers():
            if any(self._piece_for(job, idler) is not None for job in self._uncut.values()):
                raise InvariantError(f"{idler.id} idles while rows wait")
        if self._uncut and self._lane.members and not any(id in self._lane.members for id in members_holding_work):
            raise InvariantError("rows wait, replicas may have them, and all of those idle")


def _standing(replica: Replica) -> Standing:
    if not replica.is_eligible:
        return Standing.OUT
    if any(dispatch.work.history.is_suspect for dispatch in replica.chunks.values()):
        return Standing.FULL
    # With an unknown rate a second chunk could only be as blind as the first.
    window = replica.chunk_window if replica.rate.rows_per_s is not None else 1
    return Standing.OPEN if len(replica.chunks) < window else Standing.FULL


def _cut(job: Job, piece: Piece, stop: int) -> Chunk:
    chunk = Chunk(job=job, start=piece.start, stop=stop, history=piece.history.copy())
    if stop == piece.stop:
        (job.returned if piece in job.returned else job.fresh).remove(piece)
    else:
        piece.start = stop
    job.rows_uncut -= chunk.rows
    job.chunks[chunk] = None
    return chunk


def _check(asked: JobSubmitted) -> None:
    end = 0
    for start, stop in asked.ranges:
        if not end <= start <= stop:
            raise InvariantError(f"job {asked.job}: ranges must ascend without overlap, got {asked.ranges}")
        end = stop
    if asked.min_chunk_rows < 1 or asked.max_chunk_rows < asked.min_chunk_rows:
        raise InvariantError(f"job {asked.job}: need 1 <= min_chunk_rows <= max_chunk_rows")
    if asked.cut_multiple is not None and asked.cut_multiple < 1:
        raise InvariantError(f"job {asked.job}: cut_multiple must be at least 1")
    if asked.max_chunk_s <= 0 or asked.min_chunk_s < 0 or asked.max_backups < 0:
        raise InvariantError(f"job {asked.job}: seconds and backups must not be negative")


def _check_rows(job: Job) -> None:
    pieces = [(piece.start, piece.stop) for piece in (*job.fresh, *job.returned)]
    chunks = [(chunk.start, chunk.stop) for chunk in job.chunks]
    uncut = sum(stop - start for start, stop in pieces)
    in_chunks = sum(stop - start for start, stop in chunks)
    name = f"job {job.asked.job}"
    if uncut != job.rows_uncut or uncut + in_chunks + job.rows_done != job.rows_total:
        raise InvariantError(
            f"{name}: {uncut} uncut + {in_chunks} sent + {job.rows_done} done != {job.rows_total}"
        )
    end = 0
    for start, stop in sorted(pieces + chunks):
        if start < end or stop <= start:
            raise InvariantError(f"{name}: rows {start} to {stop} are held twice, or are none")
        end = stop
    copies = sum(len(chunk.dispatches) - 1 for chunk in job.chunks)
    if copies != job.backups_running or copies > job.asked.max_backups:
        raise InvariantError(f"{name}: {copies} copies run, {job.backups_running} are counted")
    if any(not chunk.dispatches for chunk in job.chunks):
        raise InvariantError(f"{name}: a chunk is with nobody")
