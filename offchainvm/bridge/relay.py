"""The relay: the only publisher. What a script wrote into the outbox becomes Celery messages.

The one place of the bridge that imports Celery. An entry is done only after its publish, so that messages may come twice
and never go missing. Execute ids travel in groups under backlog; rings of the resolve doorbell are thinned out.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError, OperationalError

from offchainvm.bridge.link import Link, turns
from offchainvm.errors import Unavailable
from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.record import Message, Stage
from offchainvm.logs import get_logger

log = get_logger()

GROUP_MAX = 8
RING_SECONDS = 0.025
_READ_AT_ONCE = 64
_BLOCK_SECONDS = 0.5
_LINGER_SECONDS = 0.01
_RECLAIM_EVERY_SECONDS = 5.0
_RECLAIM_IDLE_MS = 10_000
_BACKLOG_EVERY_SECONDS = 0.05
_SAMPLE = 20
_SHARED_BY = 8
"""A group grows by one id for so many that wait: few jobs stay spread over the workers."""


class Broker:
    """Celery's broker, as the relay and the reconciler need it. One thread at a time."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Any = None
        self._producer: Any = None
        self._lock = threading.Lock()

    def publish(self, stage: Stage, data_ids: Sequence[str], *, task_id: str) -> None:
        """Send one message.

        Raises:
            Unavailable: the broker is away.
        """
        with self._lock, _Away(self):
            self._app.send_task(
                f"offchainvm.{stage.value}",
                kwargs={"message": {"v": 1, "data_ids": list(data_ids)}},
                task_id=task_id,
                queue=stage.value,
                producer=self._open(),
                retry=False,
                ignore_result=True,
            )

    def ready(self, stage: Stage) -> int:
        """Messages of a stage that no worker has taken yet."""
        with self._lock, _Away(self):
            return self._ready(stage)

    def published(self) -> dict[Stage, int]:
        """Job ids in the messages of each stage, waiting (by a sample) and unacknowledged (exactly, on Redis)."""
        with self._lock, _Away(self):
            channel = self._open().channel
            unacked = self._unacked(channel)
            return {
                stage: round(self._ready(stage) * self._ids_in_a_message(channel, stage)) + unacked.get(stage, 0)
                for stage in (Stage.COMPILE, Stage.EXECUTE)
            }

    def close(self) -> None:
        """Forget the connection; the next call opens another."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def _open(self) -> Any:
        if self._producer is None:
            self._connection = self._app.connection_for_write()
            self._connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
            # RabbitMQ takes no message for a queue that no worker has declared yet.
            for queue in self._app.amqp.queues.values():
                queue(self._connection.default_channel).declare()
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        return self._producer

    def _ready(self, stage: Stage) -> int:
        try:
            return int(self._open().channel.queue_declare(stage.value, passive=True).message_count)
        except ChannelError:  # on Redis an empty queue does not exist
            return 0

    def _ids_in_a_message(self, channel: Any, stage: Stage) -> float:
        if not hasattr(channel, "unacked_key"):  # not Redis: one each is the careful guess
            return 1.0
        sample = [_ids_of(json.loads(raw)) for raw in channel.client.lrange(stage.value, 0, _SAMPLE - 1)]
        return sum(sample) / len(sample) if sample else 1.0

    def _unacked(self, channel: Any) -> Mapping[Stage, int]:
        counts: dict[Stage, int] = {}
        if not hasattr(channel, "unacked_key"):
            return counts
        for raw in channel.client.hvals(channel.unacked_key):
            message, _, routing_key = json.loads(raw)
            if routing_key in (Stage.COMPILE.value, Stage.EXECUTE.value):
                counts[Stage(routing_key)] = counts.get(Stage(routing_key), 0) + _ids_of(message)
        return counts


class _Away:
    """Turns "the broker is away" into ``Unavailable``, and has the connection opened anew."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        connection = self._broker._connection
        away: tuple[type[BaseException], ...] = (OperationalError, OSError)
        if connection is not None:
            away += tuple(connection.recoverable_connection_errors)
        if isinstance(error, away):
            self._broker.close()
            sentence = f"The broker does not take messages ({type(error).__name__})."
            raise Unavailable("broker", sentence, remedy="Check BROKER_URL (or REDIS_URL).") from error


def _ids_of(message: Mapping[str, Any]) -> int:
    """How many job ids one message carries."""
    try:
        body = message["body"]
        if message.get("properties", {}).get("body_encoding") == "base64":
            body = base64.b64decode(body)
        return len(json.loads(body)[1]["message"]["data_ids"])
    except (ValueError, TypeError, KeyError, IndexError, binascii.Error):
        return 1


def open_broker() -> Broker:
    """The broker of this installation, by its settings."""
    # Late: the module reads the environment, which a library must not do by being imported.
    from offchainvm.app import app  # noqa: PLC0415

    return Broker(app)


@dataclass(frozen=True)
class _Parcel:
    """One message to publish, and the outbox entries that are done with it."""

    stage: Stage
    data_ids: tuple[str, ...]
    task_id: str
    entry_ids: tuple[str, ...]


class Relay:
    """Moves entries from the outbox to the broker; two bridges share the outbox."""

    def __init__(self, *, outbox: Outbox, broker: Broker, consumer: str) -> None:
        self._outbox, self._broker, self._consumer = outbox, broker, consumer
        self._link = Link("broker and outbox")
        self._parcels: list[_Parcel] = []
        self._rings: list[Message] = []
        self._ring_at = self._reclaimed_at = self._backlog_at = float("-inf")
        self._backlog = 0

    def run(self, stop: threading.Event) -> None:
        """Publish until ``stop``; what is in hand then comes back to a relay by its idle time."""
        turns(stop, self._link, self.turn)
        self._broker.close()

    def turn(self) -> float:
        """Read what is new, publish what is due.

        Raises:
            Unavailable: Redis or the broker is away; what was read is kept for the next turn.
        """
        if self._parcels:
            # The broker was away: these are still ours, and not to be counted as failed.
            self._outbox.keep([entry for parcel in self._parcels for entry in parcel.entry_ids], self._consumer)
        else:
            messages = self._read()
            self._rings += [message for message in messages if message.stage is Stage.RESOLVE]
            self._parcels = list(self._packed([message for message in messages if message.stage is not Stage.RESOLVE]))
        self._parcels += self._due_ring()
        self._publish()
        return 0.0

    def _read(self) -> list[Message]:
        now = time.monotonic()
        block_seconds = min(_BLOCK_SECONDS, self._ring_at - now) if self._rings else _BLOCK_SECONDS
        messages = self._outbox.read(_READ_AT_ONCE, max(1, int(block_seconds * 1000)), self._consumer)
        if (
            any(message.stage is Stage.EXECUTE for message in messages)
            and len(messages) < GROUP_MAX
            and self._execute_backlog() > GROUP_MAX
        ):
            # They wait in the queue anyway: a moment here makes fuller messages.
            time.sleep(_LINGER_SECONDS)
            messages += self._outbox.read(_READ_AT_ONCE, 0, self._consumer)
        if now - self._reclaimed_at > _RECLAIM_EVERY_SECONDS:
            self._reclaimed_at = now
            messages += self._outbox.reclaim(_RECLAIM_IDLE_MS, self._consumer)
        return messages

    def _execute_backlog(self) -> int:
        now = time.monotonic()
        if now - self._backlog_at > _BACKLOG_EVERY_SECONDS:
            try:
                self._backlog = self._broker.ready(Stage.EXECUTE)
            except Unavailable:  # the publish will say so
                self._backlog = 0
            self._backlog_at = now
        return self._backlog

    def _packed(self, messages: Sequence[Message]) -> Iterator[_Parcel]:
        for stage in (Stage.COMPILE, Stage.EXECUTE):
            ids = [
                (data_id, message, place == len(message.data_ids))
                for message in messages
                if message.stage is stage
                for place, data_id in enumerate(message.data_ids, start=1)
            ]
            size = 1
            if stage is Stage.EXECUTE and ids:
                size = min(GROUP_MAX, max(1, (self._execute_backlog() + len(ids)) // _SHARED_BY))
            for start in range(0, len(ids), size):
                group = ids[start : start + size]
                first, message, _ = group[0]
                yield _Parcel(
                    stage=stage,
                    data_ids=tuple(data_id for data_id, _, _ in group),
                    task_id=f"{stage.value}:{first}:{message.attempt}",
                    entry_ids=tuple(message.entry_id for _, message, is_last in group if is_last),
                )

    def _due_ring(self) -> Iterable[_Parcel]:
        """One message for all rings that came meanwhile: the first at once, then one in 25 ms."""
        now = time.monotonic()
        if not self._rings or now < self._ring_at:
            return []
        rings, self._rings, self._ring_at = self._rings, [], now + RING_SECONDS
        entry_ids = tuple(message.entry_id for message in rings)
        return [_Parcel(stage=Stage.RESOLVE, data_ids=(), task_id=f"resolve:{rings[-1].attempt}", entry_ids=entry_ids)]

    def _publish(self) -> None:
        done: list[str] = []
        try:
            while self._parcels:
                parcel = self._parcels[0]
                try:
                    self._broker.publish(parcel.stage, parcel.data_ids, task_id=parcel.task_id)
                    done += parcel.entry_ids
                except Unavailable:
                    raise
                except Exception:
                    # A good broker refuses this one: it comes again by its idle time, and is set aside after k deliveries.
                    log.exception("message cannot be published", action="publish_failed", task_id=parcel.task_id)
                self._parcels.pop(0)
        finally:
            if done:
                self._outbox.done(done)
