"""From an event on chain to the Coordinator's report, with a bridge process; the test is the worker in between."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3
from pydantic import SecretStr
from turns import claim_out_of_turn

from offchainvm.bridge.watch import look_at_watch
from offchainvm.devnet import serve
from offchainvm.devnet.client import DevnetClient, Requested
from offchainvm.devnet.genesis import CLIENT_ID, OPERATOR_ID, Keys, genesis
from offchainvm.devnet.node import NodeApp
from offchainvm.jobs.pauses import Pauses
from offchainvm.jobs.record import State, ToResolve, Verdict
from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.store import JobStore
from offchainvm.journal import Journal
from offchainvm.models import ExecutionReport, ExecutionResponse
from offchainvm.near.nonces import Nonces
from offchainvm.near.payload import fit
from offchainvm.near.rpc import Rpc
from offchainvm.near.signer import TERAGAS, OperatorKey
from offchainvm.tasks.submit import Policy, Submitter

BLOCK_SECONDS = 0.1


@dataclass
class Chain:
    node: NodeApp
    url: str
    keys: Keys
    client: DevnetClient

    def request(self, number: int = 1) -> Requested:
        return self.client.request_execution("https://github.com/a/b", "c" * 40, "wasm32-wasip1", f'{{"number":{number}}}')

    def control(self, path: str, value: Any) -> Any:
        return self.client.control(path, value)


@pytest.fixture
def chain() -> Iterator[Chain]:
    keys = Keys.generate(function_call=1)
    node = NodeApp(genesis(keys), keys, block_time_seconds=BLOCK_SECONDS)
    with serve.in_thread(node) as url:
        client = DevnetClient(url, keys)
        yield Chain(node, url, keys, client)
        client.close()


class Worker:
    """Executes by heart, and signs as the resolve worker does."""

    def __init__(self, house: Any, chain: Chain, folder: Path) -> None:
        self.store: JobStore = house.store
        self.redis, self.resolves = house.redis, Resolves(house.redis)
        self.journal = Journal(folder / "resolve-journal", "resolve")
        rpc = Rpc([chain.url])
        self.submitter = Submitter(
            resolves=self.resolves,
            nonces=lambda: Nonces(house.redis, network=rpc.chain_id(), account_id=OPERATOR_ID),
            rpc=rpc,
            journal=self.journal,
            keys=[OperatorKey(SecretStr(chain.keys.function_call_keys[0].secret_text))],
            policy=Policy(operator_id=OPERATOR_ID, contract_id=chain.keys.contract_id, gas=30 * TERAGAS, window=8),
        )

    def answer(self, data_id: str, output: bytes = b"42") -> None:
        """Commit an answer for a job, whatever stage it stands at."""
        job = self.store.get(data_id)
        assert job is not None
        claim = claim_out_of_turn(self.redis, data_id, job.stage)
        fitted = fit(data_id, ExecutionResponse(success=True, return_value=output))
        report = ExecutionReport(request_id=job.request_id, success=True, output=output, execution_time_ms=5)
        assert self.store.commit(claim, ToResolve(arguments=fitted.arguments, response=fitted.response, report=report))


@pytest.fixture
def worker(house: Any, chain: Chain, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(house, chain, tmp_path)
    yield worker
    worker.journal.close()


@pytest.fixture
def start(house: Any, chain: Chain) -> Callable[..., Any]:
    def start(*, monitor: str = "true", **settings: str) -> Any:
        return house.start(
            NEAR_RPC_URL=chain.url,
            ENABLE_EVENT_MONITOR=monitor,
            NEARDATA_API_URL=f"{chain.url}/v0/block",
            FASTNEAR_API_URL=f"{chain.url}/status",
            START_BLOCK_HEIGHT="1001",
            SCAN_INTERVAL_SECONDS="0.05",
            NEARDATA_REQUESTS_PER_MINUTE="60000",
            **settings,
        )

    return start


@pytest.fixture
def watch(start: Callable[..., Any], wait: Callable[..., Any]) -> Callable[[], Any]:
    """Start one that is watching the chain already when a test asks: a contract waits 200 blocks, here 20 s."""

    def watch() -> Any:
        bridge = start()
        wait(lambda: bridge.lines("monitor_active"))
        return bridge

    return watch


@pytest.fixture
def reported(house: Any, wait: Callable[..., Any]) -> Callable[[int], list[dict[str, Any]]]:
    """The reports of one request, as soon as there is one."""
    return lambda request_id: wait(lambda: [report for report in house.coordinator.reports if report["request_id"] == request_id])


def test_an_event_becomes_a_job_and_its_transaction_a_report(
    *, house: Any, chain: Chain, worker: Worker, watch: Any, wait: Any, reported: Any
) -> None:
    bridge = watch()
    requested = chain.request()
    job = wait(lambda: house.store.get(requested.data_id))
    assert job.event_height == requested.height or job.event_height == requested.height + 1
    assert job.deadline_height == job.event_height + 200
    assert house.store.recorded_input(requested.data_id)[0] == '{"number":1}'
    assert [one.data_id for one in house.store.by_sender(CLIENT_ID)] == [requested.data_id]
    worker.answer(requested.data_id)
    assert worker.submitter.submit() == 1
    (report,) = reported(requested.request_id)
    assert (report["kind"], report["success"], report["output"]) == ("complete", True, [52, 50])
    settled = house.store.get(requested.data_id)
    assert (settled.state, settled.verdict) == (State.SETTLED, Verdict.ACCEPTED)
    assert chain.client.result(requested.request_id).value == "42"
    assert len(chain.client.resolves()) == 1
    assert worker.resolves.in_flight() == []
    assert house.coordinator.created == 1
    assert bridge.terminate() == 0


ACTIVE, CURSOR = "ovm:monitor:offchainvm.devnet:active", "ovm:monitor:offchainvm.devnet:cursor"
IN_CREATION, BEHIND_IT = "between a task's creation and the note of it", "between the last task of a block and the cursor"


@pytest.mark.parametrize(("death", "created"), [(IN_CREATION, 4), (BEHIND_IT, 3)])
def test_a_monitor_that_is_killed_goes_on_behind_its_cursor(
    *, house: Any, chain: Chain, start: Any, wait: Any, death: str, created: int
) -> None:
    dying = start(dying=death)
    ids = {chain.request(1).data_id}
    assert dying.process.wait(20) == -9
    assert (house.coordinator.created == 1) if death == IN_CREATION else (house.redis.get(CURSOR) is None)
    ids |= {chain.request(2).data_id}
    chain.control("produce", {"skip": 3})
    house.redis.delete(ACTIVE)  # its lease would run out by itself
    start()
    ids |= {chain.request(3).data_id}
    wait(lambda: house.job_ids() == ids)
    # A task whose creation was not noted is created again, but where its job was seen first.
    assert len(ids) <= house.coordinator.created <= created


def test_a_frozen_monitor_that_wakes_stands_by(*, house: Any, chain: Chain, start: Any, wait: Any) -> None:
    frozen = start(WORKER_ID="frozen")
    wait(lambda: frozen.lines("monitor_active"))
    pauses = Pauses(house.redis)
    pauses.pause("frozen")  # a task for one of its polls would lie in its socket until it wakes
    wait(lambda: not pauses.polls())
    frozen.process.send_signal(signal.SIGSTOP)
    ids = {chain.request(1).data_id}
    house.redis.delete(ACTIVE)
    start(WORKER_ID="other")
    wait(lambda: house.job_ids() == ids)
    frozen.process.send_signal(signal.SIGCONT)
    wait(lambda: frozen.lines("monitor_stands_by"))
    ids |= {chain.request(2).data_id}
    wait(lambda: house.job_ids() == ids)
    assert house.coordinator.created == 2
    assert look_at_watch(house.redis, "offchainvm.devnet")[0] == "other"


def test_what_was_stored_and_never_sent_is_sent_and_what_was_lost_is_sent_again(
    *, house: Any, chain: Chain, worker: Worker, watch: Any, wait: Any, reported: Any
) -> None:
    """The submitter dies before the first byte; then the network forgets the transaction once."""
    watch()
    requested = chain.request()
    wait(lambda: house.store.get(requested.data_id))
    worker.answer(requested.data_id)
    chain.control("chain", {"drop_next": 1})
    worker.submitter._send = lambda _transaction: None  # type: ignore[method-assign]
    worker.submitter.submit()
    (flight,) = worker.resolves.in_flight()
    (report,) = reported(requested.request_id)
    assert report["kind"] == "complete"
    job = house.store.get(requested.data_id)
    assert job.transaction_hash == flight.hash
    assert [resolve["transaction_hash"] for resolve in chain.client.resolves()] == [flight.hash]


def test_a_dead_transaction_is_marked_dead_and_its_payload_goes_again(
    *, house: Any, chain: Chain, worker: Worker, watch: Any, wait: Any, reported: Any
) -> None:
    """A higher nonce lands first: the lower one can never land."""
    bridge = watch()
    requested = [chain.request(1), chain.request(2)]
    for one in requested:
        wait(lambda one=one: house.store.get(one.data_id))
    chain.control("chain", {"drop_next": 1})
    worker.answer(requested[0].data_id)
    worker.submitter.submit()
    worker.answer(requested[1].data_id, b"43")
    worker.submitter.submit()
    reported(requested[1].request_id)
    wait(lambda: bridge.lines("transaction_dead"))
    wait(lambda: worker.submitter.submit() == 1 or house.store.get(requested[0].data_id).state is State.SETTLED)
    reported(requested[0].request_id)
    values = [chain.client.result(one.request_id).value for one in requested]
    assert values == ["42", "43"]
    assert len(chain.client.resolves()) == 2


def test_a_chain_that_is_away_is_waited_for(*, house: Any, chain: Chain, worker: Worker, watch: Any, wait: Any, reported: Any) -> None:
    bridge = watch()
    requested = chain.request()
    wait(lambda: house.store.get(requested.data_id))
    worker.answer(requested.data_id)
    urllib3.request("POST", f"{chain.url}/control/faults", json={"kind": "status", "rpc_method": "tx", "status": 502, "times": 0})
    worker.submitter.submit()
    wait(lambda: any("settler" in line.get("service", "") for line in bridge.lines("service_away")))
    urllib3.request("DELETE", f"{chain.url}/control/faults")
    (report,) = reported(requested.request_id)
    assert report["kind"] == "complete"


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ({"DENY_REPOSITORIES": "a/*"}, "not_allowed: this worker does not run code of a/b"),
        ({"ALLOW_SENDERS": "somebody.else"}, "not_allowed: this worker does not run requests of client.devnet"),
        ({"ALLOW_SENDERS": "*.devnet", "DENY_REPOSITORIES": "bad/*"}, ""),
    ],
)
def test_a_task_that_tells_neither_source_nor_sender_is_judged_by_the_contracts_own_record(
    *, house: Any, chain: Chain, worker: Worker, start: Any, wait: Any, task: Any, reported: Any, lists: dict[str, str], told: str
) -> None:
    bridge = start(**lists, monitor="false")
    wait(lambda: house.coordinator._waiters)  # it polls: the contract waits 20 s
    requested = chain.request()
    silent = {"type": "Execute", "data_id": requested.data_id, "wasm_checksum": "e" * 64, "code_source": None}
    house.coordinator.push(task(requested.request_id, **silent))
    job = wait(lambda: house.store.get(requested.data_id))
    assert (job.response.error if job.response else "") == told
    assert [one.data_id for one in house.store.by_repository("a/b")] == [requested.data_id]
    assert job.sender_id == CLIENT_ID
    if told:
        assert worker.submitter.submit() == 1
        assert reported(requested.request_id)[0]["error"] == told
        assert told in chain.client.result(requested.request_id).error
    assert bridge.terminate() == 0
