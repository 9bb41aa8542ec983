"""The event monitor catching up: the chain and the Coordinator in a process of their own, every answer as late as a far service's.

Each scenario is measured with and without reading ahead, in turns, and the best run of each counts.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from offchainvm import logs
from offchainvm.bridge.announcer import Announcer
from offchainvm.bridge.monitor import Monitor, Subject
from offchainvm.bridge.unpolled import Unpolled
from offchainvm.bridge.watch import Watch
from offchainvm.coordinator import Coordinator
from offchainvm.devnet import serve, views
from offchainvm.devnet.chain import GENESIS_HEIGHT, Chain
from offchainvm.devnet.coordinator import CoordinatorApp
from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.devnet.faults import Fault
from offchainvm.devnet.genesis import Keys, genesis
from offchainvm.devnet.node import NodeApp
from offchainvm.jobs.connection import connect
from offchainvm.jobs.store import JobStore
from offchainvm.models import ResourceLimits
from offchainvm.near.blocks import BlockService
from offchainvm.near.readahead import WIDTH, ReadAhead

TOKEN = "benchmark"  # noqa: S105 - of a service that lives for this run
REQUEST_EVERY = 20
"""Blocks from one request to the next."""
ROUNDS = 3
_FIRST = GENESIS_HEIGHT + 3


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One line of the table. ``block_bytes``: about the size of a block's JSON; ``requests_per_minute``: the setting."""

    name: str
    blocks: int
    latency_seconds: float = 0.0
    block_bytes: int = 4_000
    requests_per_minute: int = 600_000


SCENARIOS = (
    Scenario(name="service next door", blocks=1000),
    Scenario(name="service 100 ms away", blocks=200, latency_seconds=0.1),
    Scenario(name="service 100 ms away, blocks of 200 kB", blocks=200, latency_seconds=0.1, block_bytes=200_000),
    Scenario(name="service 100 ms away, 1,200 requests a minute", blocks=100, latency_seconds=0.1, requests_per_minute=1200),
)


@dataclass(frozen=True)
class Measured:
    """What a scenario gave; ``cpu_ms`` is the monitor's own, a block, reading ahead."""

    scenario: Scenario
    one_by_one_per_second: float
    ahead_per_second: float
    cpu_ms: float


def measure(scenario: Scenario) -> Measured:
    """Run one scenario on a chain, a Coordinator and a Redis of its own."""
    logs.configure(level="warn", format="console")
    runs: dict[int, list[tuple[float, float]]] = {1: [], WIDTH: []}
    with EmbeddedRedis() as server, _far_services(scenario) as (chain_url, coordinator_url, contract_id):
        for _ in range(ROUNDS):
            for width, took in runs.items():
                with closing(connect(server.url)) as redis, ExitStack() as stack:
                    redis.flushall()
                    coordinator = Coordinator(coordinator_url, SecretStr(TOKEN))
                    stack.callback(coordinator.close)
                    monitor = _monitor(scenario, redis, coordinator, chain_url=chain_url, contract_id=contract_id, width=width)
                    took.append(_catch_up(monitor, scenario.blocks))
    (alone, _), (ahead, cpu) = (min(took) for took in runs.values())
    return Measured(scenario, scenario.blocks / alone, scenario.blocks / ahead, cpu * 1000 / scenario.blocks)


def _catch_up(monitor: Monitor, blocks: int) -> tuple[float, float]:
    """Seconds by the clock, and of this process' processor."""
    began, cpu = time.monotonic(), time.process_time()
    for _ in range(blocks):
        monitor.turn()
    took = time.monotonic() - began, time.process_time() - cpu
    if monitor.announced != len(_requests(blocks)):
        raise RuntimeError(f"{monitor.announced} requests were announced, {len(_requests(blocks))} made")
    return took


def _requests(blocks: int) -> range:
    """The blocks in which one is made; its receipt is executed two blocks later at the latest."""
    return range(0, blocks - 5, REQUEST_EVERY)


def _monitor(scenario: Scenario, redis: Any, coordinator: Coordinator, *, chain_url: str, contract_id: str, width: int) -> Monitor:
    store, unused = JobStore(redis), None
    unpolled = Unpolled(redis=redis, store=store, admission=unused, contract_id=contract_id)  # type: ignore[arg-type]
    blocks = BlockService(f"{chain_url}/v0/block", requests_per_minute=scenario.requests_per_minute)
    announcer = Announcer(
        redis=redis, store=store, coordinator=coordinator, unpolled=unpolled, contract_id=contract_id, defaults=ResourceLimits()
    )
    return Monitor(
        Subject(contract_id, "near-offshore", start_height=_FIRST),
        watch=Watch(redis, contract_id, holder="benchmark"),
        blocks=ReadAhead(blocks, width=width),
        newest_height=lambda: _FIRST + scenario.blocks + 20,
        announcer=announcer,
        unpolled=unpolled,
        store=store,
    )


@contextmanager
def _far_services(scenario: Scenario) -> Iterator[tuple[str, str, str]]:
    context = multiprocessing.get_context("spawn")
    stop, told = context.Event(), context.Queue()
    process = context.Process(target=_serve, args=(scenario, told, stop), daemon=True)
    process.start()
    try:
        yield told.get(timeout=60)
    finally:
        stop.set()
        process.join(15)


def _serve(scenario: Scenario, told: Any, stop: Any) -> None:
    keys = Keys.generate(function_call=1)
    node = NodeApp(genesis(keys), keys, block_time_seconds=math.inf)
    asked = {"repo": "https://github.com/a/b", "commit": "c" * 40, "build_target": "wasm32-wasip1", "input_data": "{}"}
    for number in range(scenario.blocks + 40):
        if number in _requests(scenario.blocks):
            node._request_execution(dict(asked))
        node.chain.produce()
    _fatten(node.chain, scenario.block_bytes)
    if scenario.latency_seconds:
        node.faults.add(Fault(kind="delay", path="/v0/block", times=0, seconds=scenario.latency_seconds))
    with serve.in_thread(node) as chain_url, serve.in_thread(CoordinatorApp(token=TOKEN)) as coordinator_url:
        told.put((chain_url, coordinator_url, keys.contract_id))
        stop.wait()


def _fatten(chain: Chain, block_bytes: int) -> None:
    """Fill every block with what other people's contracts did."""
    outcome = {"logs": ["a transfer of some tokens"] * 8, "status": {"SuccessValue": ""}, "gas_burnt": 1, "tokens_burnt": "1"}
    row = {
        "receipt": {"receiver_id": "other.contract", "receipt_id": "1" * 43},
        "execution_outcome": {"outcome": outcome},
        "tx_hash": "1" * 43,
    }
    size = len(json.dumps(row))
    for block in chain.blocks:
        told = json.loads(views.service_block(block, chain))
        told["shards"].append({"shard_id": 1, "receipt_execution_outcomes": [row] * max(0, (block_bytes - 4_000) // size)})
        block.cached_json = json.dumps(told, separators=(",", ":")).encode()
