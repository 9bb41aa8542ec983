"""`rediss://`: jobs and messages over TLS, with the certificate of a private authority named in the URL."""

from __future__ import annotations

from pathlib import Path

import pytest
import tls
from celery import Celery

from offchainvm import broker
from offchainvm.bridge.relay import Broker
from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.errors import Unavailable
from offchainvm.jobs.connection import connect
from offchainvm.jobs.record import Stage
from offchainvm.jobs.store import JobStore


def messages(url: str) -> Broker:
    app = Celery("test", broker=broker.celery_url(url), set_as_current=False)
    app.conf.update(task_queues=[broker.queue(stage.value, url) for stage in Stage], broker_transport_options=broker.transport_options(url))
    return Broker(app)


def test_who_trusts_the_certificate_is_served_and_nobody_else(tmp_path: Path) -> None:
    certificate = tls.make_certificate(tmp_path)
    with EmbeddedRedis() as server, tls.ended_before(server.port, certificate) as port:
        trusted = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate.authority}"
        with connect(trusted) as client:
            assert JobStore(client).server_run_id()
        there = messages(trusted)
        there.publish(Stage.EXECUTE, ["one"], task_id="execute:one:0")
        assert there.ready(Stage.EXECUTE) == 1
        there.close()

        stranger = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=required"
        with connect(stranger) as client, pytest.raises(Unavailable, match="certificate verify failed"):
            JobStore(client).server_run_id()
        with pytest.raises(Unavailable):
            messages(stranger).ready(Stage.EXECUTE)
