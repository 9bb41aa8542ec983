"""Submit and settle alone, against the local chain at 0.6 s a block: each in a process of its own, and so is the chain.

The answers wait before the clock starts; it stops when the last one is settled. In the scenario with a rate they come one
by one, and what counts is how long each takes from there into a block. (No block is hurried: a transaction is included,
executed and made final at the pace of the public networks.)
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import urllib3
from pydantic import SecretStr

from offchainvm import logs
from offchainvm.bridge.evidence import Examiner
from offchainvm.bridge.settler import Settler
from offchainvm.bridge.verdicts import Verdicts
from offchainvm.devnet import serve
from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.devnet.genesis import OPERATOR_ID, Keys, genesis
from offchainvm.devnet.node import NodeApp
from offchainvm.jobs.connection import connect
from offchainvm.jobs.record import Stage, State, ToResolve
from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.store import JobStore
from offchainvm.journal import Journal
from offchainvm.models import CodeSource, CompileTask, ExecutionReport, ExecutionResponse, ResourceLimits
from offchainvm.near.nonces import Nonces
from offchainvm.near.payload import fit
from offchainvm.near.rpc import Rpc
from offchainvm.near.signer import TERAGAS, OperatorKey
from offchainvm.tasks.submit import Policy, Submitter

BLOCK_SECONDS = 0.6
KEYS_FILE = "keys.json"
LONGEST_SECONDS = 110
"""The requests' deadline is 200 blocks."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One line of the table."""

    name: str
    resolves: int
    function_call_keys: int = 0
    full_access_keys: int = 0
    window: int = 8
    offered_per_second: float = 0.0
    """Answers that come one by one; 0 = all wait before the clock starts."""


SCENARIOS = (
    Scenario(name="1 function-call key, window 1", resolves=60, function_call_keys=1, window=1),
    Scenario(name="1 function-call key, window 8", resolves=100, function_call_keys=1),
    Scenario(name="4 function-call keys, window 1", resolves=150, function_call_keys=4, window=1),
    Scenario(name="4 function-call keys, window 8", resolves=300, function_call_keys=4),
    Scenario(name="16 function-call keys, window 1", resolves=400, function_call_keys=16, window=1),
    Scenario(name="16 function-call keys, window 8", resolves=1000, function_call_keys=16),
    Scenario(name="1 full-access key, window 1", resolves=100, full_access_keys=1, window=1),
    Scenario(name="1 full-access key, window 8", resolves=800, full_access_keys=1),
    Scenario(name="4 full-access keys, window 1", resolves=500, full_access_keys=4, window=1),
    Scenario(name="4 full-access keys, window 8", resolves=1500, full_access_keys=4),
    Scenario(name="16 full-access keys, window 1", resolves=1500, full_access_keys=16, window=1),
    Scenario(name="16 full-access keys, window 8", resolves=2000, full_access_keys=16),
    # No divisor of a block's time: the answers come at every moment between two blocks.
    Scenario(name="1 function-call key, window 8, 2 answers a second", resolves=60, function_call_keys=1, offered_per_second=2),
)


@dataclass(frozen=True)
class Measured:
    """What a scenario gave."""

    scenario: Scenario
    resolved: int
    resolves_per_second: float
    submit_cpu_ms: float
    settle_cpu_ms: float
    rpc_calls_per_resolve: dict[str, float]
    """By process and method."""
    to_inclusion_ms: tuple[float, float]
    """From the answer's record to the block that holds its transaction, median and 95th percentile; zeros where all waited."""


@dataclass(frozen=True)
class Place:
    """Where everything is, as a process needs it."""

    chain_url: str
    redis_url: str
    folder: str
    scenario: Scenario

    @property
    def keys(self) -> Keys:
        return Keys.load(Path(self.folder) / KEYS_FILE)


class CountingRpc(Rpc):
    """Counts its calls by method, those of its pinned clients included."""

    calls: ClassVar = Counter[str]()

    def call(self, method: str, parameters: Any) -> dict[str, Any]:
        CountingRpc.calls[method] += 1
        return super().call(method, parameters)

    def _only(self, endpoint: Any) -> Rpc:
        only = super()._only(endpoint)
        only.__class__ = CountingRpc
        return only


def measure(scenario: Scenario) -> Measured:
    """Run one scenario on a chain and a Redis of its own."""
    keys = Keys.generate(function_call=scenario.function_call_keys, full_access=scenario.full_access_keys)
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    with EmbeddedRedis() as server, tempfile.TemporaryDirectory() as folder:
        keys.save(Path(folder) / KEYS_FILE)
        started = [context.Process(target=_serve_chain, args=(folder, results, stop), daemon=True)]
        started[0].start()
        place = Place(results.get(timeout=30), server.url, folder, scenario)
        with closing(connect(server.url)) as redis:
            store = JobStore(redis)
            asked = _asked(place)
            if not scenario.offered_per_second:
                _offer(store, asked, pause_seconds=0)
            started += [context.Process(target=work, args=(place, results, stop), daemon=True) for work in (_submit, _settle)]
            for process in started[1:]:
                process.start()
            for _ in started[1:]:
                results.get(timeout=30)
            Resolves(redis).ring()
            began = time.monotonic()
            if scenario.offered_per_second:
                _offer(store, asked, pause_seconds=1 / scenario.offered_per_second)
            data_ids = [one["data_id"] for one in asked]
            resolved = _await_settled(store, data_ids, began + LONGEST_SECONDS)
            seconds = time.monotonic() - began
            to_inclusion = _to_inclusion_ms(place, redis, data_ids) if scenario.offered_per_second else (0.0, 0.0)
        stop.set()
        told = dict(results.get(timeout=30) for _ in started[1:])
        for process in started:
            process.join(15)
    return Measured(
        scenario=scenario,
        resolved=resolved,
        resolves_per_second=resolved / seconds,
        submit_cpu_ms=told["submit"][0] * 1000 / max(1, resolved),
        settle_cpu_ms=told["settle"][0] * 1000 / max(1, resolved),
        rpc_calls_per_resolve={
            f"{name}: {method}": calls / max(1, resolved) for name, (_, counted) in told.items() for method, calls in counted.items()
        },
        to_inclusion_ms=to_inclusion,
    )


def _asked(place: Place) -> list[dict[str, Any]]:
    """Requests on the chain."""
    wanted, pool = place.scenario.resolves, urllib3.PoolManager()
    asked = {"repo": "https://github.com/a/b", "commit": "c" * 40, "build_target": "wasm32-wasip1", "input_data": "{}"}
    for _ in range(wanted):
        pool.request("POST", f"{place.chain_url}/control/executions", json=asked)
    told: list[dict[str, Any]] = []
    while len(told) < wanted:
        time.sleep(0.1)
        told = pool.request("GET", f"{place.chain_url}/control/executions").json()
    return told


def _offer(store: JobStore, asked: Sequence[dict[str, Any]], *, pause_seconds: float) -> None:
    """Answer each, so that it waits for a signature: by the clock, however long an answer takes."""
    began = time.monotonic()
    for number, one in enumerate(asked):
        time.sleep(max(0.0, began + number * pause_seconds - time.monotonic()))
        _answer(store, one)


def _answer(store: JobStore, told: dict[str, Any]) -> None:
    source = CodeSource(repo="https://github.com/a/b", commit="c" * 40)
    task = CompileTask(request_id=told["request_id"], data_id=told["data_id"], code_source=source, input_data="{}")
    store.accept(task, stage=Stage.EXECUTE, limits=ResourceLimits(), deadline_height=told["height"] + 200)
    claim = store.claim(task.data_id, Stage.EXECUTE, owner="benchmark", lease_seconds=60)
    fitted = fit(task.data_id, ExecutionResponse(success=True, return_value=b"42"))
    report = ExecutionReport(request_id=task.request_id, success=True, output=b"42", execution_time_ms=5)
    if claim is None or not store.commit(claim, ToResolve(arguments=fitted.arguments, response=fitted.response, report=report)):
        raise RuntimeError("an answer was not taken")


def _await_settled(store: JobStore, data_ids: Sequence[str], until: float) -> int:
    left = list(data_ids)
    while left and time.monotonic() < until:
        # From the end: what is oldest ends first.
        while left and (job := store.get(left[-1])) is not None and job.state is State.SETTLED:
            left.pop()
        time.sleep(0.05)
    return len(data_ids) - len(left)


def _to_inclusion_ms(place: Place, redis: Any, data_ids: Sequence[str]) -> tuple[float, float]:
    """Median and 95th percentile, by Redis' clock and the block's, which are one; of every answer, so a lost one raises."""
    store, resolves, rpc, took = JobStore(redis), Resolves(redis), Rpc([place.chain_url]), []
    for data_id in data_ids:
        answered = next(event.at for event in store.history(data_id) if event.what == "done")
        (transaction,) = resolves.hashes(data_id)
        block_hash = rpc.tx(transaction, sender_id=OPERATOR_ID)["transaction_outcome"]["block_hash"]
        included = rpc.call("block", {"block_id": block_hash})["header"]["timestamp"] / 1e9
        took.append((included - answered) * 1000)
    return statistics.median(took), sorted(took)[int(0.95 * (len(took) - 1))]


def _serve_chain(folder: str, results: Any, stop: Any) -> None:
    keys = Keys.load(Path(folder) / KEYS_FILE)
    with serve.in_thread(NodeApp(genesis(keys), keys, block_time_seconds=BLOCK_SECONDS)) as url:
        results.put(url)
        stop.wait()


def _submit(place: Place, results: Any, stop: Any) -> None:
    redis, rpc = connect(place.redis_url), CountingRpc([place.chain_url])
    logs.configure(level="warn", format="console")
    keys = place.keys
    pairs = [*keys.function_call_keys, *keys.full_access_keys]
    submitter = Submitter(
        resolves=Resolves(redis),
        nonces=lambda: Nonces(redis, network=rpc.chain_id(), account_id=OPERATOR_ID),
        rpc=rpc,
        journal=Journal(Path(place.folder) / "resolve", "resolve"),
        keys=[OperatorKey(SecretStr(pair.secret_text)) for pair in pairs],
        policy=Policy(operator_id=OPERATOR_ID, contract_id=keys.contract_id, gas=30 * TERAGAS, window=place.scenario.window, batch=10),
    )
    redis.delete("ovm:bell")
    results.put("ready")
    spent = 0.0
    while not stop.is_set():
        if redis.exists("ovm:bell"):
            spent += _cpu_seconds(submitter.submit)
        time.sleep(0.01)
    results.put(("submit", (spent, CountingRpc.calls)))


def _cpu_seconds(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def _settle(place: Place, results: Any, stop: Any) -> None:
    logs.configure(level="warn", format="console")
    redis, rpc = connect(place.redis_url), CountingRpc([place.chain_url])
    resolves, store = Resolves(redis), JobStore(redis)
    settler = Settler(
        resolves=resolves,
        rpc=rpc,
        verdicts=Verdicts(rpc=rpc, resolves=resolves, store=store, operator_id=OPERATOR_ID),
        examiner=Examiner(rpc, operator_id=OPERATOR_ID),
        nonces=lambda: Nonces(redis, network=rpc.chain_id(), account_id=OPERATOR_ID),
        operator_id=OPERATOR_ID,
        on_settled=lambda: None,
    )
    ended = threading.Event()
    thread = threading.Thread(target=settler.run, args=(ended,), daemon=True)
    results.put("ready")
    before = time.process_time()
    thread.start()
    stop.wait()
    spent = time.process_time() - before
    ended.set()
    thread.join(10)
    settler.close()
    results.put(("settle", (spent, CountingRpc.calls)))
