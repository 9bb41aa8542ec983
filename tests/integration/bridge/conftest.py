"""Bridges as real processes, against a real Redis, the local Coordinator and the local chain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis as redis_library

from offchainvm.devnet import serve
from offchainvm.devnet.coordinator import CoordinatorApp
from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.devnet.faults import Fault
from offchainvm.jobs.connection import connect
from offchainvm.jobs.store import JobStore
from offchainvm.processes import bound_command
from tests.support.watching import Room

TOKEN = "a-token-of-tests"
DEAD_URL = "http://127.0.0.1:1"

# What a process does first; then it dies in a place of its own, as if by kill -9.
_DYING = """
import os, signal
from offchainvm.bridge.admission import Admission
from offchainvm.bridge.watch import Watch
from offchainvm.coordinator import Coordinator
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
DEATHS = {
    "between the journal and Redis": "Admission.admit = die",
    "between a task's creation and the note of it": "create = Coordinator.create; Coordinator.create = lambda *it: die(create(*it))",
    "between the last task of a block and the cursor": "Watch.move = die",
}
_RUN = """
import typer
from offchainvm.cli.bridge import bridge
typer.run(bridge)
"""


def eventually(look: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """The first true answer of ``look``."""
    end = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
    return answer


def task_body(number: int, **changes: Any) -> bytes:
    """One task as the Coordinator hands it out."""
    source = {"type": "GitHub", "repo": "https://github.com/a/b", "commit": "c" * 40, "build_target": "wasm32-wasip1"}
    task = {
        "type": "Compile",
        "request_id": number,
        "data_id": f"{number:064x}",
        "code_source": source,
        "resource_limits": {"max_instructions": 1, "max_memory_mb": 2, "max_execution_seconds": None},
        "input_data": "{}",
    }
    return json.dumps({**task, **changes}).encode()


class BridgeProcess:
    """One ``offchainvm bridge``."""

    def __init__(self, environment: dict[str, str], log: Path, *, dying: str = "") -> None:
        self.log_file = log
        with log.open("ab") as output:
            # Bound: it does not outlive a test run that is killed.
            command = bound_command([sys.executable, "-c", (_DYING + DEATHS[dying] if dying else "") + _RUN])
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=log.parent)

    def log(self) -> str:
        return self.log_file.read_text()

    def lines(self, action: str) -> list[dict[str, Any]]:
        whole = self.log().rpartition("\n")[0]  # the last line may be half written
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("action") == action]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


class House:
    """Redis, Coordinator and a folder; bridges come and go."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.redis_server = stack.enter_context(EmbeddedRedis(persistence=True))
        self.redis = connect(self.redis_server.url)
        self.store = JobStore(self.redis)
        self.coordinator = CoordinatorApp(token=TOKEN)
        self.coordinator_url = stack.enter_context(serve.in_thread(self.coordinator))
        self.bridges: list[BridgeProcess] = []

    def environment(self, **settings: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "OFFCHAINVM_ENV_FILE": "",
            "API_BASE_URL": self.coordinator_url,
            "API_AUTH_TOKEN": TOKEN,
            "NEAR_RPC_URL": DEAD_URL,
            "OFFCHAINVM_CONTRACT_ID": "offchainvm.devnet",
            "OPERATOR_ACCOUNT_ID": "operator.devnet",
            "REDIS_URL": self.redis_server.url,
            "STATE_DIR": str(self.folder / "state"),
            "POLL_TIMEOUT_SECONDS": "1",
            "POLL_CONCURRENCY": "2",
            "LOG_FORMAT": "json",
            **settings,
        }

    def start(self, *, dying: str = "", **settings: str) -> BridgeProcess:
        number = len(self.bridges)
        bridge = BridgeProcess(self.environment(**settings), self.folder / f"bridge-{number}.log", dying=dying)
        self.bridges.append(bridge)
        return bridge

    def job_ids(self) -> set[str]:
        """Data ids of all jobs; none while Redis is away."""
        try:
            return {job.data_id for job in self.store.list_jobs(limit=1000)}
        except Exception:
            return set()

    def fault(self, **fault: Any) -> None:
        self.coordinator.faults.add(Fault(**fault))

    def journal_files(self) -> list[Path]:
        return sorted((self.folder / "state" / "journal").glob("bridge.*/journal.log"))

    def close(self) -> None:
        for bridge in self.bridges:
            if bridge.process.poll() is None:
                bridge.kill()
        self.redis.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with ExitStack() as stack:
        house = House(tmp_path, stack)
        stack.callback(house.close)
        yield house


@pytest.fixture
def room(redis_client: redis_library.Redis) -> Room:
    """Event monitors of one contract, in this process."""
    return Room(redis_client)


@pytest.fixture
def broker_messages(house: House) -> Callable[[str], list[list[str]]]:
    """The data ids in each message of a queue."""

    def read(queue: str) -> list[list[str]]:
        client: Any = redis_library.Redis.from_url(house.redis_server.url)
        with client:
            raw = [json.loads(line) for line in client.lrange(queue, 0, -1)]
        import base64

        return [json.loads(base64.b64decode(message["body"]))[1]["message"]["data_ids"] for message in raw]

    return read


@pytest.fixture
def wait() -> Callable[..., Any]:
    return eventually


@pytest.fixture
def task() -> Callable[..., bytes]:
    return task_body
