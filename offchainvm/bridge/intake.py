"""Polled tasks between the wire and the job record: journalled first, accepted next, forgotten when their job is settled.

The server has forgotten a task when we poll it. So its bytes are on this host's disk before anything else happens, and
stay there until the job is settled: neither a dead Redis, nor one that forgot its last second, nor kill -9 loses it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from enum import Enum

from offchainvm import metrics
from offchainvm.bridge.admission import Admission
from offchainvm.bridge.link import Link
from offchainvm.bridge.origins import Undecided
from offchainvm.errors import RejectedTask, Unavailable
from offchainvm.jobs.record import State, UnreadableRecord
from offchainvm.jobs.store import Acceptance, JobStore
from offchainvm.journal import Journal
from offchainvm.logs import get_logger
from offchainvm.models import parse_task

log = get_logger()

_KIND = "task"
_SETTLED_FOR_SECONDS = 5.0
"""A Redis that loses its last second forgets that a job is settled: its task stays this much longer."""
_SWEEP_AT_ONCE = 500
_ADOPT_EVERY_SECONDS = 30.0
_AGAIN_SECONDS = 10.0
_DECIDE_SECONDS = 2.0


class Taken(str, Enum):
    """What became of one polled body."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    LATER = "later"


@dataclass
class _Known:
    """A journalled task whose job this Redis has."""

    data_id: str
    settled: bool = False
    """Acceptance said so already; its record may be gone by now."""
    settled_since: float | None = None


class Intake:
    """The way of polled bodies into Redis. Threads may share it."""

    def __init__(self, *, journal: Journal, store: JobStore, admission: Admission) -> None:
        self._journal, self._store, self._admission = journal, store, admission
        self._known: dict[str, _Known] = {}
        self._in_hand: set[str] = set()
        self._again_at: dict[str, float] = {}
        self._run_id, self._adopted_at = "", time.monotonic()
        self._disk = Link("journal")
        self.ready = threading.Event()
        """Set while Redis is there and has every journalled task: new ones may be polled."""

    def take(self, untrusted_task: bytes) -> Taken:
        """Keep a polled body on disk, then make a job of it, or set it aside.

        Never raises for a service that is away: the body is on disk then, and ``tend`` brings it in.
        """
        key = hashlib.sha256(untrusted_task).hexdigest()[:32]
        self._in_hand.add(key)
        try:
            self._keep(key, untrusted_task)
            taken = self._bring_in(key, untrusted_task)
            metrics.TASKS_POLLED.add(outcome=taken.value)
            return taken
        finally:
            self._in_hand.discard(key)

    def missing(self) -> int:
        """Journalled tasks that are no job of this Redis, as far as is known."""
        return sum(kind == _KIND and key not in self._known for kind, key, _ in self._journal.entries())

    def tend(self) -> bool:
        """Bring in what Redis does not have: everything when it is another Redis than before, else what failed.

        Returns True where journals of processes that are gone were looked for, and no other has entries at this place.

        Raises:
            Unavailable: Redis is away; ``ready`` is cleared.
        """
        try:
            run_id = self._store.server_run_id()
            if run_id != self._run_id:
                self.ready.clear()
                self._known.clear()
            alone = self._adopt()
            self._bring_in_missing()
        except Unavailable:
            self.ready.clear()
            raise
        self._run_id = run_id
        self.ready.set()
        return alone

    def sweep(self) -> int:
        """Forget tasks whose job has been settled for some seconds; the number forgotten.

        Raises:
            Unavailable: Redis is away.
        """
        now, ended = time.monotonic(), list[str]()
        for key, known in list(self._known.items())[:_SWEEP_AT_ONCE]:
            # To the end of the line, so that every task has its turn.
            self._known.pop(key, None)
            self._known[key] = known
            if not self._is_settled(key, known):
                known.settled_since = None
            elif known.settled_since is None:
                known.settled_since = now
            elif now - known.settled_since >= _SETTLED_FOR_SECONDS:
                ended.append(key)
        self._journal.discard(ended)
        for key in ended:
            self._known.pop(key, None)
        return len(ended)

    def _keep(self, key: str, untrusted_task: bytes) -> None:
        try:
            self._journal.append(_KIND, key, untrusted_task)
            self._disk.up()
        except Unavailable as error:
            # It is ours alone now: better in Redis without a journal than nowhere.
            self._disk.down(error)

    def _bring_in(self, key: str, untrusted_task: bytes) -> Taken:
        try:
            task = parse_task(untrusted_task)
        except RejectedTask as error:
            return self._reject(key, untrusted_task, error)
        try:
            acceptance = self._admission.admit(task)
        except Unavailable:
            self.ready.clear()
            return Taken.LATER
        except Undecided as error:
            if key not in self._again_at:  # told once
                log.info("task waits in the journal for a decision", action="decide_task_later", data_id=task.data_id, reason=str(error))
            self._again_at[key] = time.monotonic() + _DECIDE_SECONDS
            return Taken.LATER
        except Exception:
            log.exception("task could not be accepted; it stays in the journal", action="accept_task_later", data_id=task.data_id)
            self._again_at[key] = time.monotonic() + _AGAIN_SECONDS
            return Taken.LATER
        self._again_at.pop(key, None)
        self._known[key] = _Known(task.data_id, settled=acceptance is Acceptance.SETTLED)
        return Taken.ACCEPTED

    def _reject(self, key: str, untrusted_task: bytes, error: RejectedTask) -> Taken:
        log.warning("task cannot be read and is set aside", action="reject_task", request_id=error.request_id, reason=error.sentence)
        try:
            # The script also queues tasks/fail, where there is a request id.
            self._store.reject(untrusted_task, error.sentence, error.request_id)
        except Unavailable:
            self.ready.clear()
            return Taken.LATER
        self._journal.discard([key])
        return Taken.REJECTED

    def _adopt(self) -> bool:
        if time.monotonic() - self._adopted_at <= _ADOPT_EVERY_SECONDS:
            return False
        self._adopted_at = time.monotonic()
        self._journal.adopt()
        return not self._journal.entries_of_others()

    def _bring_in_missing(self) -> None:
        now, brought = time.monotonic(), 0
        for kind, key, body in self._journal.entries():
            if kind != _KIND or key in self._known or key in self._in_hand or self._again_at.get(key, 0.0) > now:
                continue
            if self._bring_in(key, body) is Taken.LATER and key not in self._again_at:
                raise Unavailable("redis", "Redis went away while tasks were brought in.", remedy="Check REDIS_URL.")
            brought += 1
        if brought:
            log.info("tasks brought in from the journal", action="replay_journal", tasks=brought)

    def _is_settled(self, key: str, known: _Known) -> bool:
        try:
            job = None if known.settled else self._store.get(known.data_id)
        except UnreadableRecord:  # a newer process has it in hand; an older one must not stop at it
            return False
        if job is None and not known.settled:
            # The record is gone: forgotten, or past its retention. Acceptance knows which, by the tombstone.
            self._known.pop(key, None)
        return known.settled or (job is not None and job.state is State.SETTLED)
