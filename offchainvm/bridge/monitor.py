"""The event monitor: walks the chain's final blocks in order and has the Coordinator create a task for each request.

Nothing is skipped: a height without a block is passed only when consensus skipped it, and the cursor moves on only when all
of a block's requests are with the Coordinator. One monitor of a contract is active, the others stand by.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from offchainvm.bridge.announcer import Announcer
from offchainvm.bridge.link import Link, turns
from offchainvm.bridge.unpolled import Unpolled
from offchainvm.bridge.watch import LEASE_SECONDS, Cursor, Lag, Watch
from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.jobs.store import JobStore
from offchainvm.logs import get_logger
from offchainvm.near.blocks import NOT_YET, Block
from offchainvm.near.events import BlockEvents, MalformedEvent, requests_in
from offchainvm.near.readahead import ReadAhead

log = get_logger()

_STAND_BY_SECONDS = 3.0
_RECENT_SECONDS = 10.0
"""A block of this age is at the head of the chain, as far as somebody can tell who does not ask."""
_ASK_AGAIN_SECONDS = 5.0
_TOLD_SECONDS = 20.0
"""After so long without a word of it, the newest height is not known any more."""


@dataclass(frozen=True)
class Subject:
    """What is watched, and from where.

    ``start_height``: 0 = from the cursor, else from the newest height. ``scan_interval_seconds``: pause at the chain's head.
    """

    contract_id: str
    standard: str
    start_height: int = 0
    scan_interval_seconds: float = 1.0


class Monitor:
    """Watches one contract.

    Attributes:
        malformed: events that could not be read, since this process began; all are kept (``offchainvm jobs rejected``).
        announced: requests handed to the Coordinator since then.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        watch: Watch,
        blocks: ReadAhead,
        newest_height: Callable[[], int],
        announcer: Announcer,
        unpolled: Unpolled,
        store: JobStore,
    ) -> None:
        self._subject, self._watch, self._blocks, self._newest_height = subject, watch, blocks, newest_height
        self._announcer, self._unpolled, self._store = announcer, unpolled, store
        self.malformed, self.announced = 0, 0
        self._active = False
        self._cursor: Cursor | None = None
        self._known: Cursor | None = None
        """How far we once were: better than a new beginning, where Redis has lost everything."""
        self._unfollowed: int | None = None
        """Height of the block that the last one read did not follow."""
        self._newest, self._asked_at, self._told_at = 0, float("-inf"), float("-inf")
        # Short pauses: the lease is kept through them, and a service that asked for longer is not asked before its time.
        self._link = Link("event monitor", longest_wish_seconds=LEASE_SECONDS / 3)

    @property
    def lag(self) -> Lag | None:
        """How far this monitor is behind the chain; None while it stands by."""
        cursor = self._cursor
        if cursor is None:
            return None
        known = _is_recent(cursor) or time.monotonic() - self._told_at <= _TOLD_SECONDS
        return Lag.of(cursor, max(self._newest, cursor.height) if known else None)

    def check(self) -> None:
        """Part of this process' health.

        Raises:
            OffchainVMError: it is too far behind.
        """
        if (lag := self.lag) is not None:
            lag.check()

    def run(self, stop: threading.Event) -> None:
        """Watch until ``stop``."""
        try:
            turns(stop, self._link, self.turn)
        finally:
            self._blocks.forget()
            self._watch.release()

    def turn(self) -> float:
        """Deal with one height; the pause before the next, in seconds.

        Raises:
            Unavailable, Unauthorized, Refused: a service is away, or its settings are wrong; the cursor stays.
        """
        if not self._is_active():
            self._cursor = None
            return _STAND_BY_SECONDS
        self._unpolled.admit_overdue()
        cursor = self._cursor = self._cursor or self._loaded()
        found = self._blocks.block(cursor.height + 1, newest=self._newest_known(cursor))
        if found is NOT_YET:
            return self._subject.scan_interval_seconds
        if isinstance(found, Block) and not self._read(cursor, found):
            return 0.0
        self._move(cursor.after(found) if isinstance(found, Block) else cursor.past())
        return 0.0

    def _read(self, cursor: Cursor, block: Block) -> bool:
        """Announce the block's requests; False when another took the watch over meanwhile."""
        if cursor.block_hash and block.prev_hash != cursor.block_hash:
            self._go_back(cursor, block)
        self._unfollowed = None
        events = requests_in(block, self._subject.contract_id, self._subject.standard)
        for request in events.requests:
            if not self._watch.keep():
                return False
            self._announcer.announce(request)
            self.announced += 1
        # At the end: until then the block may be read any number of times.
        self._keep_malformed(events)
        return True

    def _go_back(self, cursor: Cursor, block: Block) -> None:
        """A height in between that was called skipped was not, or this is another chain: walk it again.

        The second time in a row, the block before may be the one that the service told wrongly.
        """
        self._blocks.forget()
        again, self._unfollowed = self._unfollowed == cursor.block_height, cursor.block_height
        self._move(self._before_its_block(cursor) if again else cursor.back())
        raise Unavailable(
            self._blocks.name,
            f"Block {block.height} does not follow block {cursor.block_height}, the last one read.",
            remedy="If this is another chain than before, set START_BLOCK_HEIGHT to begin anew.",
        )

    def _before_its_block(self, cursor: Cursor) -> Cursor:
        """Where the cursor's block has another hash now, the place before it: that one is read once more; else behind it."""
        found = self._blocks.block(cursor.block_height, newest=0)
        if not isinstance(found, Block) or found.hash == cursor.block_hash:
            return cursor.back()
        log.error("a block that was read has another hash now; it is read again", action="block_changed", height=cursor.block_height)
        return cursor.before()

    def _keep_malformed(self, events: BlockEvents) -> None:
        for position, malformed in enumerate(events.malformed):
            untrusted_log, reason = malformed.untrusted_log.encode("utf-8", "replace"), f"event: {malformed.problem}"
            if self._store.reject(untrusted_log, reason, None, token=_name(malformed, position)):
                log.error("event cannot be read", action="malformed_event", height=malformed.block_height, receipt=malformed.receipt_id)
                self.malformed += 1

    def _loaded(self) -> Cursor:
        """Where Redis says to go on; where it says nothing, where we were, or a beginning."""
        stored, start = self._watch.cursor(), self._subject.start_height
        if stored is not None and start in (0, stored.start):
            return stored
        if self._known is not None:
            return self._known
        first = start or self._ask_newest()
        log.info("the event monitor begins", action="monitor_begins", height=first, contract=self._subject.contract_id)
        return Cursor(first - 1, start=start)

    def _move(self, cursor: Cursor) -> None:
        if self._watch.move(cursor):
            self._cursor = self._known = cursor
            return
        self._cursor = None
        self._blocks.forget()
        log.warning("this monitor's cursor is not the one of redis; going on from there", action="monitor_reloads", height=cursor.height)

    def _newest_known(self, cursor: Cursor) -> int:
        """The newest height that we know of; asked for again while the last block is an old one."""
        if not _is_recent(cursor) and time.monotonic() - self._asked_at >= _ASK_AGAIN_SECONDS:
            try:
                self._ask_newest()
            except OffchainVMError as error:
                log.debug("The newest height is not known", action="newest_height_failed", error=error.sentence)
        self._newest = max(self._newest, cursor.height)
        return self._newest

    def _ask_newest(self) -> int:
        self._asked_at = time.monotonic()
        self._newest, self._told_at = self._newest_height(), time.monotonic()
        return self._newest

    def _is_active(self) -> bool:
        was, self._active = self._active, self._watch.hold()
        if was != self._active:
            text = "this event monitor is the active one" if self._active else "another event monitor took over"
            log.info(text, action="monitor_active" if self._active else "monitor_stands_by", contract=self._subject.contract_id)
        return self._active


def _is_recent(cursor: Cursor) -> bool:
    age_seconds = cursor.age_seconds
    return age_seconds is not None and age_seconds <= _RECENT_SECONDS


def _name(malformed: MalformedEvent, position: int) -> str:
    """The same for the same event: a block that is read again sets nothing aside twice."""
    return f"event-{malformed.block_height}-{malformed.receipt_id}-{position}"
