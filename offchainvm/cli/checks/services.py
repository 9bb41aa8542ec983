"""Whether the services answer that a worker keeps its jobs in and gets them from."""

from __future__ import annotations

import contextlib
import time

from redis import Redis
from redis.exceptions import ResponseError

from offchainvm.cli.checks.needs import NotLookedAt, need
from offchainvm.coordinator import Coordinator
from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.jobs.connection import connect
from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.pauses import FLEET, Pauses
from offchainvm.jobs.store import JobStore
from offchainvm.redis_calls import reaching_redis
from offchainvm.redis_url import is_readable
from offchainvm.settings import load_only
from offchainvm.times import moment

_NO_MODULE = "0" * 64
_RECENT_HOURS = 24


def check_redis() -> str:
    """Redis answers, and keeps what it is given."""
    with reaching_redis(), connect(need("redis_url").redis_url) as client:
        return _persistence(client)


def check_broker() -> str:
    """The broker keeps its messages, where it is another Redis than that of the jobs."""
    from offchainvm.broker import is_rabbitmq  # noqa: PLC0415 -- Celery takes half a second to import

    settings = need("redis_url")
    url = load_only(["broker_url"]).broker_url
    if url in ("", settings.redis_url):
        raise NotLookedAt("the Redis of REDIS_URL: see its row")
    if is_rabbitmq(url):
        raise NotLookedAt("RabbitMQ: its quorum queues are on disk; the rows of the queues say whether it answers")
    if not is_readable(url):
        raise NotLookedAt("its options are written for Celery alone; the rows of the queues say whether it answers")
    try:
        with reaching_redis(), connect(url) as client:
            return _persistence(client)
    except Unavailable as error:
        raise Unavailable(error.service, "The broker's Redis does not answer.", remedy="Check BROKER_URL, and the server's log.") from error


def _persistence(client: Redis) -> str:
    """What a Redis says of how it keeps its data.

    Raises:
        OffchainVMError: it may lose them.
    """
    version = client.info("server")["redis_version"]
    try:
        values = client.config_get("appendonly", "maxmemory-policy")
    except ResponseError:  # a hosted Redis forbids CONFIG
        return f"version {version}; its persistence cannot be read"
    if values.get("appendonly") != "yes":
        raise OffchainVMError(
            "It forgets its data when it restarts.", remedy="Set `appendonly yes` and `appendfsync everysec` on the server."
        )
    if values.get("maxmemory-policy", "noeviction") != "noeviction":
        raise OffchainVMError("It drops data when its memory is full.", remedy="Set `maxmemory-policy noeviction` on the server.")
    return f"version {version}, append-only file on"


def check_pause() -> str:
    """Nobody keeps new work out by hand."""
    with connect(need("redis_url").redis_url) as client:
        found = Pauses(client).all()
    if not found:
        return "new work is let in"
    told = [
        f"{'the fleet' if one.worker == FLEET else one.worker} since {moment(one.since)}{': ' if one.reason else ''}{one.reason}"
        for one in found
    ]
    raise OffchainVMError(f"Paused by hand: {'; '.join(told)}.", remedy="`offchainvm resume` (with --worker for one bridge).")


def check_set_aside() -> str:
    """Nothing was set aside lately: neither tasks that cannot be read, nor messages that the broker does not take."""
    since = time.time() - _RECENT_HOURS * 3600
    with connect(need("redis_url").redis_url) as client:
        tasks = sum(task.at > since for task in JobStore(client).rejected(1000))
        messages = sum(message.at > since for message in Outbox(client).aside(1000))
    if tasks or messages:
        remedies = [
            "`offchainvm jobs rejected` shows them all.",
            "Tasks: is this worker older than the Coordinator or the contract? Upgrade it." if tasks else "",
            "Messages: the bridge's log says why the broker refuses them; check BROKER_URL (by default REDIS_URL)." if messages else "",
        ]
        raise OffchainVMError(
            f"In the last {_RECENT_HOURS} hours {tasks} tasks that cannot be read and {messages} messages were set aside.",
            remedy=" ".join(filter(None, remedies)),
        )
    return f"nothing in the last {_RECENT_HOURS} hours"


def check_coordinator() -> str:
    """The Coordinator answers and takes our token."""
    settings = need("api_base_url", "api_auth_token")
    with contextlib.closing(Coordinator(settings.api_base_url, settings.api_auth_token, ca_bundle=settings.ca_bundle)) as coordinator:
        coordinator.health()
        coordinator.wasm_exists(_NO_MODULE)  # the cheapest call that needs the token
    return f"{settings.api_base_url} answers and takes the token"
