"""Has the Coordinator create the task of a request that was seen on chain, once as far as that can be known."""

from __future__ import annotations

from typing import Any

from redis import Redis

from offchainvm.bridge.unpolled import Unpolled
from offchainvm.coordinator import Coordinator
from offchainvm.errors import Refused, Unauthorized
from offchainvm.jobs.record import UnreadableRecord
from offchainvm.jobs.server import key
from offchainvm.jobs.store import JobStore
from offchainvm.logs import get_logger
from offchainvm.models import ExecutionRequested, NewTask, ResourceLimits
from offchainvm.redis_calls import reaching_redis

log = get_logger()

_MARKER_SECONDS = 24 * 3600


class Announcer:
    """Announces the requests of one contract. Keys: ``ovm:monitor:CONTRACT:created:DATA_ID`` begun or done.

    Args:
        defaults: limits of a request that names none; the Coordinator takes no null.
    """

    def __init__(
        self, *, redis: Redis, store: JobStore, coordinator: Coordinator, unpolled: Unpolled, contract_id: str, defaults: ResourceLimits
    ) -> None:
        self._redis: Any = redis
        self._store, self._coordinator, self._unpolled = store, coordinator, unpolled
        self._contract_id, self._defaults = contract_id, defaults

    def announce(self, event: ExecutionRequested) -> None:
        """Record the request's input, and have its task created.

        A marker is written before and after. Found half-way (we died, or the reply was lost), the task may exist or not:
        a second one is recognised by its data id, a missing one would be lost, so it is created again.

        Raises:
            Unavailable: Redis or the Coordinator is away; Unauthorized: the token.
        """
        request, marker = event.request, key("monitor", self._contract_id, "created", event.data_id)
        self._store.record_input(event.data_id, request.input_data, event.block_height, sender_id=request.sender_id)
        with reaching_redis():
            found = self._redis.get(marker)
            if found in (b"done", "done"):
                return
            self._redis.set(marker, "begun", ex=_MARKER_SECONDS)
        if found is None or not self._has_job(event.data_id):
            self._create(
                NewTask(
                    request_id=request.request_id,
                    data_id=event.data_id,
                    code_source=request.code_source,
                    resource_limits=request.resource_limits.or_else(self._defaults),
                    input_data=request.input_data,
                )
            )
        with reaching_redis():
            self._redis.set(marker, "done", ex=_MARKER_SECONDS)

    def _has_job(self, data_id: str) -> bool:
        """Whether a poll brought the task already."""
        try:
            return self._store.get(data_id) is not None
        except UnreadableRecord:  # a newer process has it in hand
            return True

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
