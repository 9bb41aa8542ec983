"""A site on a real port over a real Redis, and jobs for it to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3
from pydantic import SecretStr
from redis import Redis
from turns import claim_out_of_turn

from offchainvm.jobs.record import Claim, Stage, ToExecute, ToResolve, Verdict
from offchainvm.jobs.resolves import Resolves, RowOutcome, Transaction
from offchainvm.jobs.store import JobStore
from offchainvm.models import CodeSource, CompileTask, ExecutionReport, ExecutionResponse, ResourceLimits, ResourcesUsed
from offchainvm.web.access import Access
from offchainvm.web.pages import Pages
from offchainvm.web.server import Site, WebServer

LIMITS = ResourceLimits(max_instructions=10**10, max_memory_mb=128, max_execution_seconds=60)
SOURCE_KEY = "5e" * 32


@dataclass
class Browser:
    """Asks one server."""

    url: str

    def get(self, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request("GET", self.url + path, headers=headers, redirect=False, retries=False)

    def post(self, path: str, form: dict[str, str]) -> urllib3.BaseHTTPResponse:
        return urllib3.request("POST", self.url + path, body=urlencode(form), redirect=False, retries=False)

    def text(self, path: str) -> str:
        reply = self.get(path)
        assert reply.status == 200, reply.data
        return reply.data.decode()


@dataclass
class House:
    """Jobs at every stage of their way."""

    redis: Redis

    def __post_init__(self) -> None:
        self.store, self.resolves = JobStore(self.redis), Resolves(self.redis)

    def accept(
        self,
        number: int,
        *,
        repo: str = "https://github.com/tests/echo",
        input_data: str = "{}",
        stage: Stage = Stage.COMPILE,
        sender_id: str = "",
        clamped: tuple[str, ...] = (),
    ) -> str:
        source = CodeSource(repo=repo, commit="main")
        task = CompileTask(request_id=number, data_id=f"{number:064x}", code_source=source, input_data=input_data)
        place = {"source_key": SOURCE_KEY, "commit_sha": "c0" * 20, "repository": repo.removeprefix("https://github.com/")}
        self.store.accept(task, stage=stage, limits=LIMITS, limits_clamped=clamped, deadline_height=1000, sender_id=sender_id, **place)
        return task.data_id

    def claim(self, data_id: str, stage: Stage) -> Claim:
        return claim_out_of_turn(self.redis, data_id, stage, owner="worker-1:7")

    def answered(self, number: int, *, value: bytes = b"done", error: str | None = None, **more: Any) -> str:
        """A job whose answer waits for a signature."""
        data_id = self.accept(number, **more)
        built = ToExecute(source_key=SOURCE_KEY, commit_sha="c0" * 20, module_sha256="5a" * 32, module_size=10)
        assert self.store.commit(self.claim(data_id, Stage.COMPILE), built)
        used = ResourcesUsed(instructions=9_500_000_000, memory_bytes=2**20, time_seconds=3)
        response = ExecutionResponse(success=error is None, return_value=None if error else value, error=error, resources_used=used)
        report = ExecutionReport(request_id=number, success=error is None, error=error)
        assert self.store.commit(self.claim(data_id, Stage.EXECUTE), ToResolve(arguments=b"{}", response=response, report=report))
        return data_id

    def in_flight(self, hash: str, *numbers: int) -> Transaction:
        """One transaction that carries all answers which wait."""
        rows = self.resolves.take(len(numbers), lease_seconds=60, final_height=1)
        tx = Transaction(hash, "ed25519:public", 7, 900, b"signed", tuple(row.data_id for row in rows))
        assert self.resolves.store(tx, rows)
        return tx

    def settled(self, number: int, **more: Any) -> str:
        data_id = self.answered(number, **more)
        tx = self.in_flight(f"hash{number}", number)
        assert self.resolves.settle(tx.hash, [RowOutcome(Verdict.ACCEPTED)])
        return data_id


@pytest.fixture
def house(redis_client: Redis) -> House:
    return House(redis_client)


@pytest.fixture
def serve(redis_client: Redis, tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """Starts servers, with a token or without."""
    running: list[WebServer] = []

    def start(token: str = "") -> Browser:
        site = Site(Pages(redis_client, state_dir=tmp_path), Access("127.0.0.1", SecretStr(token)))
        running.append(WebServer(site, host="127.0.0.1", port=0).__enter__())
        return Browser(f"http://127.0.0.1:{running[-1].port}")

    yield start
    for server in running:
        server.__exit__()


@pytest.fixture
def browser(serve: Callable[..., Browser]) -> Browser:
    return serve()
