"""Whether somebody serves each queue."""

from __future__ import annotations

import functools

from offchainvm.errors import OffchainVMError

QUEUES = ("compile", "execute", "resolve")
_INSPECT_SECONDS = 1.5


def check_queue(queue: str) -> str:
    """A worker consumes from ``queue``."""
    workers = sorted(name for name, queues in _consumers().items() if queue in queues)
    if not workers:
        raise OffchainVMError("No worker serves this queue.", remedy=f"Start one: celery -A offchainvm worker -Q {queue}")
    return ", ".join(workers)


@functools.cache
def _consumers() -> dict[str, list[str]]:
    """The queues that each worker consumes from; asked once, since an answer costs its full time-out."""
    from offchainvm.app import app  # noqa: PLC0415 -- Celery takes half a second to import

    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=_INSPECT_SECONDS)
            replies = app.control.inspect(timeout=_INSPECT_SECONDS, connection=connection).active_queues() or {}
    except Exception as error:  # each broker has errors of its own
        raise OffchainVMError("The broker does not answer.", remedy="Check BROKER_URL (by default REDIS_URL).") from error
    return {worker: [queue["name"] for queue in queues] for worker, queues in replies.items()}
