"""The whole way of warm jobs, against the local Coordinator and the local chain, with every process on this machine.

Requests are made on the local chain and their tasks queued at the Coordinator while the bridge is away; then it starts,
and the clock runs from the first accepted job to the last settled one, both by Redis' clock.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import urllib3
from redis import Redis

from benchmarks.usage import Usage, usage_of
from offchainvm.cli.stack import Stack, StackOptions
from offchainvm.jobs.connection import connect
from offchainvm.jobs.store import JobStore

MODULE = Path(__file__).parent.parent / "examples" / "prebuilt" / "word-count.wasm"
REPO = "https://github.com/offchainvm/word-count"
COMMIT = "1" * 40
ROLES = ("execute", "resolve", "bridge")
WAIT_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One line of the table."""

    name: str
    jobs: int
    keys: int
    commit_seconds: float
    """From a transaction's arrival until it is executed and final; 0 = at once."""
    idle: bool = False
    """One job after the other, for the time from polled to sent, instead of all at once."""


@dataclass(frozen=True)
class Measured:
    """What a scenario gave; CPU and memory by process."""

    scenario: Scenario
    jobs_per_second: float
    cpu_ms_per_job: dict[str, float]
    peak_mib: dict[str, float]
    polled_to_sent_ms: tuple[float, float]
    """Median and 95th percentile, by Redis' clock of milliseconds."""


class Run:
    """One scenario on a stack of its own."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._http = urllib3.PoolManager(retries=False)
        chain = ["--instant", "--yield-timeout-blocks", "1000000", "--function-call-keys", str(scenario.keys), "--record", "0"]
        chain += ["--commit-delay", str(scenario.commit_seconds)] if scenario.commit_seconds else []
        settings = {"LOG_LEVEL": "warn", "QUEUE_HIGH_WATER": "100000", "ENABLE_EVENT_MONITOR": "false"}
        options = StackOptions(roles=ROLES, settings=settings, chain_arguments=chain, coordinator_arguments=["--record", "0"])
        self._stack = Stack(options)

    def measure(self) -> Measured:
        with self._stack:
            redis = connect(self._stack.redis_url)
            self._put_module()
            self._finish(redis, self._queue(40))
            if self._scenario.idle:
                return self._measured(redis, [job for _ in range(self._scenario.jobs) for job in self._one_by_one(redis)], {})
            self._stack.processes["bridge"].stop(15)
            jobs = self._queue(self._scenario.jobs)
            before = self._usage()
            self._stack.restart("bridge")
            self._finish(redis, jobs)
            after = self._usage()
            cpu = {name: after[name].cpu_seconds - (before[name].cpu_seconds if name in before else 0.0) for name in after}
            return self._measured(redis, jobs, cpu)

    def _measured(self, redis: Redis, jobs: Sequence[str], cpu_seconds: dict[str, float]) -> Measured:
        store = JobStore(redis)
        histories = [store.history(job) for job in jobs]
        accepted, settled = [events[0].at for events in histories], [events[-1].at for events in histories]
        sent = [1000 * (next(event.at for event in events if event.what == "signed") - events[0].at) for events in histories]
        return Measured(
            scenario=self._scenario,
            jobs_per_second=len(jobs) / max(0.001, max(settled) - min(accepted)),
            cpu_ms_per_job={name: 1000 * seconds / len(jobs) for name, seconds in cpu_seconds.items()},
            peak_mib={name: usage.peak_mib for name, usage in self._usage().items()},
            polled_to_sent_ms=(statistics.median(sent), sorted(sent)[int(0.95 * (len(sent) - 1))]),
        )

    def _one_by_one(self, redis: Redis) -> list[str]:
        jobs = self._queue(1)
        self._finish(redis, jobs)
        return jobs

    def _put_module(self) -> None:
        key = hashlib.sha256(f"{REPO}{COMMIT}wasm32-unknown-unknown".encode()).hexdigest()
        self._control("PUT", f"{self._stack.coordinator_url}/control/wasm/{key}", MODULE.read_bytes())
        self._key = key

    def _queue(self, count: int) -> list[str]:
        """Make requests on chain and queue their tasks; gives their data ids."""
        known = {told["request_id"] for told in self._executions()}
        asked = {"repo": REPO, "commit": COMMIT, "build_target": "wasm32-unknown-unknown", "input_data": "the cat and the hat"}
        for _ in range(count):
            self._control("POST", f"{self._stack.chain_url}/control/executions", json.dumps(asked).encode())
        deadline = time.monotonic() + WAIT_SECONDS
        while len(new := [told for told in self._executions() if told["request_id"] not in known]) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(new)} of {count} requests landed")
            time.sleep(0.1)
        for told in new:
            self._control("POST", f"{self._stack.coordinator_url}/control/tasks", self._task(told["request_id"], told["data_id"]))
        return [told["data_id"] for told in new]

    def _task(self, request_id: int, data_id: str) -> bytes:
        limits = {"max_instructions": 10**10, "max_memory_mb": 128, "max_execution_seconds": 60}
        task = {"type": "Execute", "request_id": request_id, "data_id": data_id, "wasm_checksum": self._key, "resource_limits": limits}
        return json.dumps({**task, "input_data": "the cat and the hat"}).encode()

    def _finish(self, redis: Redis, jobs: Sequence[str]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        pause_seconds = 0.005 if len(jobs) == 1 else 0.1
        while redis.zcard("ovm:reports") or None in redis.zmscore("ovm:settled", list(jobs)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the jobs did not settle within {WAIT_SECONDS} s")
            self._stack.check()
            time.sleep(pause_seconds)

    def _usage(self) -> dict[str, Usage]:
        pids = {name: process.pid for name, process in self._stack.processes.items() if process.running}
        if self._stack.redis is not None and self._stack.redis.pid:
            pids["redis"] = self._stack.redis.pid
        return {name: usage_of(pid) for name, pid in pids.items() if pid}

    def _executions(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self._control("GET", f"{self._stack.chain_url}/control/executions"))
        return found

    def _control(self, method: str, url: str, body: bytes | None = None) -> bytes:
        reply = self._http.request(method, url, body=body)
        if reply.status >= 300:
            raise RuntimeError(f"{method} {url}: {reply.status} {reply.data[:200]!r}")
        return bytes(reply.data)
