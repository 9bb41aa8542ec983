"""What this house knows of Celery's brokers: Redis, and RabbitMQ for those who outgrow it. BROKER_URL alone decides.

Both classes lean on private names of kombu (``qos._delivered``, ``Channel._connparams``): its version is bounded for them.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from celery import bootsteps
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.entity import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as redis_transport
from redis.exceptions import ConnectionError as RedisConnectionError

from offchainvm import health, logs
from offchainvm.jobs.connection import sentinel_options
from offchainvm.redis_url import SentinelUrl

log = logs.get_logger()

VISIBILITY_TIMEOUT_SECONDS = 30
"""On Redis a message unacknowledged for this long goes back to its queue. Short: VisibilityStep renews what a living worker holds."""


def is_rabbitmq(url: str) -> bool:
    """Whether a broker's URL names RabbitMQ; else it is Redis, in one of its forms."""
    return url.startswith(("amqp://", "amqps://"))


def celery_url(url: str) -> str:
    """A broker's URL as kombu writes it; those of RabbitMQ and of one Redis server are the same for everybody."""
    if url.startswith("unix://"):
        return url.replace("unix://", "redis+socket://", 1)
    sentinels = SentinelUrl.parse(url)
    if sentinels is None:
        return url
    login = f"{quote(sentinels.username or '', safe='')}:{quote(sentinels.password, safe='')}@" if sentinels.password else ""
    return ";".join(f"sentinel://{login}{host}:{port}/{sentinels.db}" for host, port in sentinels.hosts)


def transport_options(url: str) -> dict[str, Any]:
    """``broker_transport_options`` for the broker at ``url``."""
    if is_rabbitmq(url):
        # An entry of the outbox is done when the broker has the message, not when it was sent.
        return {"confirm_publish": True}
    sentinels = SentinelUrl.parse(url)
    return {
        **({"master_name": sentinels.service, "sentinel_kwargs": sentinel_options()} if sentinels else {}),
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        # Without these two the sweep of unacknowledged messages runs every 100 s only.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "socket_keepalive": True,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
    }


def queue(name: str, url: str) -> Queue:
    """A queue of the broker at ``url``: on RabbitMQ a quorum queue, which survives the loss of a node."""
    arguments = {"x-queue-type": "quorum"} if is_rabbitmq(url) else None
    return Queue(name, Exchange(name), routing_key=name, queue_arguments=arguments)  # type: ignore[no-untyped-call]


class _Closing:
    """A channel that says it is closed in the transport's own words.

    With Redis away and a message in hand, kombu 5.7 gives messages back, or acknowledges one, on a channel whose
    connection is gone already, and meets an AttributeError that ends the whole worker.
    """

    connection: Any

    def _connparams(self, *arguments: Any, **named: Any) -> Any:
        if self.connection.client is None:
            raise RedisConnectionError("the connection of this channel is closed")
        return super()._connparams(*arguments, **named)  # type: ignore[misc]


class Channel(_Closing, redis_transport.Channel):
    """Of one Redis server."""


class SentinelChannel(_Closing, redis_transport.SentinelChannel):
    """Of the master that Sentinels name."""


class Transport(redis_transport.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel


class SentinelTransport(redis_transport.SentinelTransport):
    """kombu's transport for Sentinels with the channel above."""

    Channel = SentinelChannel


# Under kombu's own names, so that a broker's URL stays what everybody, Flower included, knows.
TRANSPORT_ALIASES.update(
    dict.fromkeys(("redis", "rediss", "redis+socket"), f"{__name__}:Transport"), sentinel=f"{__name__}:SentinelTransport"
)


class PatientConsumer(Consumer):  # type: ignore[misc]  # Celery publishes no types
    """Celery's, whose loop turns while it waits for its broker: that comes back, and what is in hand must not be ended meanwhile."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes; ended by who asks the worker to stop."""
        most_tries = self.app.conf.broker_connection_max_retries
        return conn.ensure_connection(lambda error, interval: self._tell(conn, error, interval), most_tries, callback=self._turn)

    def _turn(self) -> None:
        health.touch(self.hostname)
        maybe_shutdown()

    def _tell(self, conn: Any, error: Exception, interval_seconds: float) -> None:
        url = conn.as_uri()  # without its password
        log.warning("The broker is away; tried again.", action="wait_for_broker", url=url, reason=str(error), seconds=interval_seconds)


class VisibilityStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery publishes no types
    """Renews the messages that this worker holds, so that the visibility timeout can be short.

    On Redis a message unacknowledged for longer than the timeout is delivered again, however well its worker is.
    The same timer touches the liveness file.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        interval_seconds = VISIBILITY_TIMEOUT_SECONDS / 4
        self._timer = consumer.timer.call_repeatedly(interval_seconds, self.renew, (consumer,), priority=10)
        self.renew(consumer)

    def stop(self, _consumer: Any) -> None:
        self._timer.cancel()

    def renew(self, consumer: Any) -> None:
        """Say that the messages in hand are still worked on."""
        health.touch(consumer.hostname)
        try:
            self._renew_held(getattr(consumer.task_consumer.channel, "qos", None))
        except Exception as error:
            # Between a lost connection and the consumer's restart any part of it may be gone. An error in a timer ends
            # the whole worker; a renewal that is missed costs at most a second delivery, which finds no claim.
            log.warning("Messages were not renewed; tried again.", action="renew_messages", error=type(error).__name__)

    def _renew_held(self, qos: Any) -> None:
        if not hasattr(qos, "unacked_index_key"):  # not a Redis broker: it has no such timeout
            return
        held = list(qos._delivered)
        if held:
            with qos.channel.conn_or_acquire() as client:
                # XX: only what is still there, so that an acknowledged message is not brought back.
                client.zadd(qos.unacked_index_key, dict.fromkeys(held, time.time()), xx=True)
