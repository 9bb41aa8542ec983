"""The event monitor: walks the chain's final blocks in order and has the Coordinator create a task for each request.

Nothing is skipped: a height without a block is passed only when consensus skipped it, and the cursor moves on only when all
of a block's requests are with the Coordinator. One monitor of a contract is active, the others stand by.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import LockError
from redis.lock import Lock

from offchainvm.bridge.link import Link, turns
from offchainvm.bridge.unpolled import Unpolled
from offchainvm.coordinator import Coordinator
from offchainvm.errors import Refused, Unauthorized, Unavailable
from offchainvm.jobs.server import key, reaching_redis, text
from offchainvm.jobs.store import JobStore
from offchainvm.logs import get_logger
from offchainvm.models import ExecutionRequested, NewTask, ResourceLimits
from offchainvm.near.blocks import NOT_YET, SKIPPED, Block, BlockService
from offchainvm.near.events import requests_in

log = get_logger()

_LEASE_SECONDS = 10.0
_MOVE_CURSOR = Path(__file__).parent / "lua" / "move_cursor.lua"
_STAND_BY_SECONDS = 3.0
_MARKER_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Cursor:
    """The last height that was dealt with, and the last block among the heights up to it."""

    height: int
    block_height: int = 0
    block_hash: str = ""
    """Empty at the start: nothing to compare the next block with."""
    start: int = 0
    """START_BLOCK_HEIGHT when this cursor began: another one begins anew."""


class Monitor:
    """Watches one contract.

    Args:
        newest_height: where to begin when nothing else says so.
        defaults: limits of a request that names none; the Coordinator takes no null.
    """

    def __init__(
        self,
        *,
        redis: Redis,
        store: JobStore,
        coordinator: Coordinator,
        blocks: BlockService,
        unpolled: Unpolled,
        newest_height: Callable[[], int],
        contract_id: str,
        standard: str,
        start_height: int,
        scan_interval_seconds: float,
        defaults: ResourceLimits,
    ) -> None:
        self._redis: Any = redis
        self._store, self._coordinator, self._blocks, self._unpolled = store, coordinator, blocks, unpolled
        self._newest_height, self._contract_id, self._standard = newest_height, contract_id, standard
        self._start_height, self._scan_interval_seconds, self._defaults = start_height, scan_interval_seconds, defaults
        self._cursor: Cursor | None = None
        self._stored = ""
        self._move_cursor = self._redis.register_script(_MOVE_CURSOR.read_text())
        self._lock = Lock(redis, self._key("active"), timeout=_LEASE_SECONDS, blocking=False, thread_local=False)
        self._active = False
        self._link = Link("event monitor")

    def run(self, stop: threading.Event) -> None:
        """Watch until ``stop``."""
        turns(stop, self._link, self.turn)
        self._step_down()

    def turn(self) -> float:
        """Deal with one height; the pause before the next, in seconds.

        Raises:
            Unavailable, Unauthorized, Refused: a service is away, or its settings are wrong; the cursor stays.
        """
        with reaching_redis():
            active = self._is_active()
        if not active:
            self._cursor = None
            return _STAND_BY_SECONDS
        self._unpolled.admit_overdue()
        cursor = self._cursor or self._loaded(None)
        found = self._blocks.block(cursor.height + 1)
        if found is NOT_YET:
            self._cursor = cursor
            return self._scan_interval_seconds
        self._move(self._after(cursor, found) if isinstance(found, Block) else self._past(cursor, found))
        return 0.0

    def _past(self, cursor: Cursor, found: object) -> Cursor:
        assert found is SKIPPED  # noqa: S101 - the only other answer
        return Cursor(cursor.height + 1, cursor.block_height, cursor.block_hash, cursor.start)

    def _after(self, cursor: Cursor, block: Block) -> Cursor:
        if cursor.block_hash and block.prev_hash != cursor.block_hash:
            # A height in between that was called skipped was not, or this is another chain: walk it again.
            self._move(Cursor(cursor.block_height, cursor.block_height, cursor.block_hash, cursor.start))
            raise Unavailable(
                self._blocks.name,
                f"Block {block.height} does not follow block {cursor.block_height}, the last one read.",
                remedy="If this is another chain than before, set START_BLOCK_HEIGHT to begin anew.",
            )
        events = requests_in(block, self._contract_id, self._standard)
        for malformed in events.malformed:
            log.error("event cannot be read", action="malformed_event", height=block.height, receipt=malformed.receipt_id)
            self._store.reject(malformed.untrusted_log.encode("utf-8", "replace"), f"event: {malformed.problem}", None)
        for request in events.requests:
            self._announce(request)
        return Cursor(block.height, block.height, block.hash, cursor.start)

    def _announce(self, event: ExecutionRequested) -> None:
        """Have the Coordinator create the task, once as far as that can be known.

        A marker is written before and after. Found half-way (we died, or the reply was lost), the task may exist or not:
        a second one is recognised by its data id, a missing one would be lost, so it is created again.
        """
        request, marker = event.request, self._key("created", event.data_id)
        self._store.record_input(event.data_id, request.input_data, event.block_height)
        with reaching_redis():
            if self._redis.get(marker) in (b"done", "done"):
                return
            self._redis.set(marker, "begun", ex=_MARKER_SECONDS)
        task = NewTask(
            request_id=request.request_id,
            data_id=event.data_id,
            code_source=request.code_source,
            resource_limits=request.resource_limits.or_else(self._defaults),
            input_data=request.input_data,
        )
        self._create(task)
        with reaching_redis():
            self._redis.set(marker, "done", ex=_MARKER_SECONDS)

    def _create(self, task: NewTask) -> None:
        ids = {"data_id": task.data_id, "request_id": task.request_id}
        try:
            self._coordinator.create(task)
        except Unauthorized:
            raise
        except Refused as error:
            # The same request would be refused for ever, and hold up all that come after it.
            log.error("the Coordinator refuses a request of the chain", action="create_refused", **ids, error=error.sentence)
        else:
            log.info("request announced to the Coordinator", action="create_task", **ids)
        self._unpolled.expect(task)

    def _loaded(self, known: Cursor | None) -> Cursor:
        """Where Redis says to go on; where it says nothing, ``known``, or a beginning."""
        with reaching_redis():
            stored = self._redis.get(self._key("cursor"))
        self._stored = text(stored) if stored is not None else ""
        if stored is not None:
            cursor = Cursor(**json.loads(stored))
            if cursor.start == self._start_height:
                return cursor
        if known is not None:
            return known
        first = self._start_height or self._newest_height()
        log.info("the event monitor begins", action="monitor_begins", height=first, contract=self._contract_id)
        return Cursor(first - 1, start=self._start_height)

    def _move(self, cursor: Cursor) -> None:
        """Store the cursor, if Redis still has the one that we came from.

        A Redis that was restarted may have forgotten its last second, inputs included; its own cursor is as old as they
        are: then its way is walked again.
        """
        moved = json.dumps(asdict(cursor))
        with reaching_redis():
            if self._move_cursor(keys=[self._key("cursor")], args=[self._stored, moved]):
                self._cursor, self._stored = cursor, moved
                return
        log.warning("redis has another cursor than this monitor; going on from there", action="monitor_reloads", height=cursor.height)
        self._cursor = self._loaded(self._cursor)

    def _is_active(self) -> bool:
        was, self._active = self._active, self._holds_lease()
        if was != self._active:
            text = "this event monitor is the active one" if self._active else "another event monitor took over"
            log.info(text, action="monitor_active" if self._active else "monitor_stands_by", contract=self._contract_id)
        return self._active

    def _holds_lease(self) -> bool:
        try:
            return bool(self._lock.reacquire())
        except LockError:
            return bool(self._lock.acquire())

    def _step_down(self) -> None:
        try:
            with reaching_redis():
                if self._lock.owned():
                    self._lock.release()
        except (LockError, Unavailable):
            log.debug("the monitor's lease runs out by itself", action="monitor_steps_down")

    def _key(self, *parts: str) -> str:
        return key("monitor", self._contract_id, *parts)
