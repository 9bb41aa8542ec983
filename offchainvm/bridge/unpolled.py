"""Requests that were seen on chain and that no poll brought: a poll hands a task out once, and it can get lost on the way.

After a minute such a request is accepted from the chain. (celery.md, interleaving 10)
"""

from __future__ import annotations

import time
from typing import Any

from redis import Redis

from offchainvm.bridge.admission import Admission
from offchainvm.bridge.origins import Undecided
from offchainvm.errors import Unavailable
from offchainvm.jobs.pauses import FLEET, Pauses
from offchainvm.jobs.record import UnreadableRecord
from offchainvm.jobs.server import key, text
from offchainvm.jobs.store import JobStore
from offchainvm.logs import get_logger
from offchainvm.models import CompileTask, NewTask
from offchainvm.redis_calls import reaching_redis

log = get_logger()

PATIENCE_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 2.0
_AT_ONCE = 50
_LATER_SECONDS = 300.0


class Unpolled:
    """The requests that a poll should bring.

    Keys: ``ovm:monitor:CONTRACT:expected`` zset of data ids by the time they are due; ``…:task`` hash of their tasks.
    """

    def __init__(
        self, *, redis: Redis, store: JobStore, admission: Admission, contract_id: str, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._redis: Any = redis
        self._store, self._admission, self._patience_seconds = store, admission, patience_seconds
        self._expected, self._tasks = key("monitor", contract_id, "expected"), key("monitor", contract_id, "task")
        self._pauses, self._looked_at = Pauses(redis), float("-inf")

    def expect(self, task: NewTask) -> None:
        """Say that a poll should bring this task soon.

        Raises:
            Unavailable: Redis is away.
        """
        with reaching_redis(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._tasks, task.data_id, task.model_dump_json())
            pipe.zadd(self._expected, {task.data_id: time.time() + self._patience_seconds}, nx=True)
            pipe.execute()

    def admit_overdue(self) -> int:
        """Accept what no poll brought in time, unless the fleet is paused; the number of jobs made so.

        Raises:
            Unavailable: Redis is away.
        """
        if time.monotonic() - self._looked_at < _LOOK_EVERY_SECONDS:
            return 0
        self._looked_at = time.monotonic()
        if self._pauses.holds(FLEET):
            return 0
        with reaching_redis():
            overdue = self._redis.zrangebyscore(self._expected, "-inf", time.time(), start=0, num=_AT_ONCE)
        return sum(self._admit_or_put_later(text(data_id)) for data_id in overdue)

    def _admit_or_put_later(self, data_id: str) -> bool:
        try:
            return self._admit(data_id)
        except Unavailable:
            raise
        except Undecided as error:
            log.info("request waits for a decision", action="decide_task_later", data_id=data_id, reason=error.sentence)
            return False
        except Exception as error:
            # Whatever it is, it is this entry's: at the head of the line it would hold up the blocks that come after it.
            log.exception(
                "a request cannot be accepted from the chain; tried later", action="accept_later", data_id=data_id, error=str(error)
            )
            with reaching_redis():
                self._redis.zadd(self._expected, {data_id: time.time() + _LATER_SECONDS}, xx=True)
            return False

    def _admit(self, data_id: str) -> bool:
        try:
            missing = self._store.get(data_id) is None
        except UnreadableRecord:  # a newer process has it in hand
            missing = False
        with reaching_redis():
            task_text = self._redis.hget(self._tasks, data_id)
        if missing and task_text is not None:
            task = CompileTask.model_validate_json(task_text)
            log.warning("no poll brought this request: accepted from the chain", action="accept_from_chain", data_id=data_id)
            self._admission.admit(task)
        with reaching_redis(), self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(self._expected, data_id)
            pipe.hdel(self._tasks, data_id)
            pipe.execute()
        return missing
