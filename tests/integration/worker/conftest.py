"""Workers that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workers import SECONDS, Worker, wait_until

from offchainvm.devnet.embedded_redis import EmbeddedRedis


@pytest.fixture
def start(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(settings: dict[str, str], *words: str) -> Worker:
        started.append(Worker(tmp_path, {"REDIS_URL": redis_server.url, **settings}, *words))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait(SECONDS)
        wait_until(lambda worker=worker: not worker.processes(), "its children to end with it")
