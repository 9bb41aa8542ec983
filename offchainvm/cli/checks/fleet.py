"""Whether somebody serves each queue."""

from __future__ import annotations

import functools

from offchainvm.cli.checks.needs import need
from offchainvm.errors import OffchainVMError
from offchainvm.fleet import Registry
from offchainvm.jobs.connection import connect
from offchainvm.logs import get_logger

log = get_logger()
QUEUES = ("compile", "execute", "resolve")
_INSPECT_SECONDS = 1.5


def check_queue(queue: str) -> str:
    """A worker consumes from ``queue``: it says so when it is asked, or it told the fleet's registry just now."""
    workers = sorted(name for name, queues in _consumers().items() if queue in queues) or _registered(queue)
    if not workers:
        raise OffchainVMError("No worker serves this queue.", remedy=f"Start one: celery -A offchainvm worker -Q {queue}")
    return ", ".join(workers)


def _registered(queue: str) -> list[str]:
    """Those that live: who is in the middle of a job of its only process, or short of a processor, answers too late."""
    with connect(need("redis_url").redis_url) as client:
        return [one.member.id for one in Registry(client).alive(queue)]


def _consumers() -> dict[str, list[str]]:
    """The queues that each worker consumes from.

    Raises:
        OffchainVMError: the broker does not answer.
    """
    answers = _answers()
    if isinstance(answers, OffchainVMError):
        raise answers
    return answers


@functools.cache
def _answers() -> dict[str, list[str]] | OffchainVMError:
    """Asked once, since an answer costs its full time-out, and none costs more."""
    from offchainvm.app import app  # noqa: PLC0415 -- Celery takes half a second to import

    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=_INSPECT_SECONDS)
            replies = app.control.inspect(timeout=_INSPECT_SECONDS, connection=connection).active_queues() or {}
    except Exception as error:  # each broker has errors of its own
        log.debug("The broker does not answer.", action="inspect_failed", error=type(error).__name__)
        return OffchainVMError("The broker does not answer.", remedy="Check BROKER_URL (by default REDIS_URL).")
    return {worker: [queue["name"] for queue in queues] for worker, queues in replies.items()}
