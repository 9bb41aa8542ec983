"""Sentinels: when the master dies, the jobs and the broker go on with the new one."""

from __future__ import annotations

from pathlib import Path

import sentinels
from celery import Celery
from world import until

from offchainvm import broker
from offchainvm.bridge.relay import Broker
from offchainvm.errors import Unavailable
from offchainvm.jobs.connection import connect
from offchainvm.jobs.record import Stage
from offchainvm.jobs.store import JobStore


def test_jobs_and_messages_outlive_the_master(tmp_path: Path) -> None:
    with sentinels.fleet(tmp_path) as fleet, connect(fleet.url) as client:
        app = Celery("test", broker=broker.celery_url(fleet.url), set_as_current=False)
        app.conf.update(
            task_queues=[broker.queue(stage.value, fleet.url) for stage in Stage],
            task_create_missing_queues=False,
            broker_transport_options={**broker.transport_options(fleet.url), "socket_timeout": 2},
        )
        messages, store = Broker(app), JobStore(client)
        before = store.server_run_id()
        client.set("kept", "yes")
        messages.publish(Stage.EXECUTE, ["one"], task_id="execute:one:0")
        fleet.wait_for_replica()
        fleet.kill_master()

        def publish_again() -> bool:
            try:
                messages.publish(Stage.EXECUTE, ["two"], task_id="execute:two:0")
                return store.server_run_id() != before
            except Unavailable:
                return False

        until(publish_again, "a new master")
        assert client.get("kept") == b"yes"
        assert messages.published()[Stage.EXECUTE] >= 2
        messages.close()
