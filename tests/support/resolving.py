"""Submit and settle on the local chain, in one process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import urllib3
from pydantic import SecretStr
from redis import Redis

from offchainvm.bridge.evidence import Examiner
from offchainvm.bridge.settler import Settler
from offchainvm.bridge.verdicts import Verdicts
from offchainvm.devnet import serve
from offchainvm.devnet.client import DevnetClient
from offchainvm.devnet.genesis import OPERATOR_ID, Keys, genesis
from offchainvm.devnet.ledger import AccessKey
from offchainvm.devnet.node import NodeApp
from offchainvm.devnet.validity import Protocol
from offchainvm.jobs.record import Stage, State, ToResolve, Verdict
from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.store import JobStore
from offchainvm.journal import Journal
from offchainvm.models import CodeSource, CompileTask, ExecutionReport, ExecutionResponse, ResourceLimits
from offchainvm.near.nonces import UNTIL_EMPTY, Nonces
from offchainvm.near.payload import fit
from offchainvm.near.rpc import Rpc
from offchainvm.near.signer import TERAGAS, OperatorKey
from offchainvm.tasks.submit import Policy, Submitter

BLOCK_SECONDS = 0.05
DEADLINE_BLOCKS = 2000
"""How long the contract waits: here 200 would be 10 s."""


class Room:
    """A chain, jobs whose answers wait, and as many submitters and settlers as a test wants."""

    def __init__(self, redis: Redis, folder: Path, stack: ExitStack) -> None:
        self.redis, self.folder, self._stack = redis, folder, stack
        self.keys = Keys.generate(function_call=3, full_access=1)
        chain = genesis(self.keys, protocol=Protocol(yield_timeout_blocks=DEADLINE_BLOCKS))
        self.node = NodeApp(chain, self.keys, block_time_seconds=BLOCK_SECONDS)
        self.url = stack.enter_context(serve.in_thread(self.node))
        self.client = DevnetClient(self.url, self.keys)
        self.store, self.resolves = JobStore(redis), Resolves(redis)
        self.nonces = Nonces(redis, network=self.rpc().chain_id(), account_id=OPERATOR_ID)
        self._submitters = 0

    def rpc(self, *paths: str) -> Rpc:
        return Rpc([f"{self.url}{path}" for path in paths or ("",)])

    def key(self, *, full_access: bool = False, number: int = 0) -> OperatorKey:
        pair = (self.keys.full_access_keys if full_access else self.keys.function_call_keys)[number]
        return OperatorKey(SecretStr(pair.secret_text))

    def on_chain(self, key: OperatorKey) -> AccessKey:
        return self.node.chain.ledger.accounts[OPERATOR_ID].keys[key.public_key]

    def submitter(
        self, *keys: OperatorKey, full_access: bool = False, batch: int = 1, window: int = 8, rpc: Rpc | None = None
    ) -> Submitter:
        self._submitters += 1
        journal = Journal(self.folder / f"journal-{self._submitters}", "resolve")
        self._stack.callback(journal.close)
        return Submitter(
            resolves=self.resolves,
            nonces=lambda: self.nonces,
            rpc=rpc or self.rpc(),
            journal=journal,
            keys=keys or [self.key(full_access=full_access)],
            policy=Policy(operator_id=OPERATOR_ID, contract_id=self.keys.contract_id, gas=30 * TERAGAS, window=window, batch=batch),
        )

    def settle(self, *, rpc: Rpc | None = None) -> None:
        """Start one more settler, until the test ends."""
        rpc, stop = rpc or self.rpc(), threading.Event()
        settler = Settler(
            resolves=self.resolves,
            rpc=rpc,
            verdicts=Verdicts(rpc=rpc, resolves=self.resolves, store=self.store, operator_id=OPERATOR_ID),
            examiner=Examiner(rpc, operator_id=OPERATOR_ID),
            nonces=lambda: self.nonces,
            operator_id=OPERATOR_ID,
            on_settled=lambda: None,
        )
        thread = threading.Thread(target=settler.run, args=(stop,), daemon=True)
        thread.start()
        self._stack.callback(settler.close)
        self._stack.callback(thread.join, 10)
        self._stack.callback(stop.set)

    def answered(self, count: int) -> list[str]:
        """Data ids of so many requests whose answers wait for a signature."""
        return [self.answer(*asked) for asked in self.asked(count)]

    def asked(self, count: int) -> list[tuple[int, str, int]]:
        """Id, data id and height of so many new requests."""
        sent = [self.client.send_request("https://github.com/a/b", "c" * 40, "wasm32-wasip1", "{}") for _ in range(count)]
        told = until(lambda: found if len(found := self._executions(sent)) == count else None)
        return [(one["request_id"], one["data_id"], one["height"]) for one in told]

    def answer(self, request_id: int, data_id: str, height: int) -> str:
        source = CodeSource(repo="https://github.com/a/b", commit="c" * 40)
        task = CompileTask(request_id=request_id, data_id=data_id, code_source=source, input_data="{}")
        self.store.accept(task, stage=Stage.EXECUTE, limits=ResourceLimits(), deadline_height=height + DEADLINE_BLOCKS)
        claim = self.store.claim(data_id, Stage.EXECUTE, owner="w", lease_seconds=60)
        assert claim is not None
        fitted = fit(data_id, ExecutionResponse(success=True, return_value=b"42"))
        report = ExecutionReport(request_id=request_id, success=True, output=b"42", execution_time_ms=5)
        assert self.store.commit(claim, ToResolve(arguments=fitted.arguments, response=fitted.response, report=report))
        return data_id

    def settled(self, data_ids: Sequence[str], submitter: Submitter | None = None) -> list[Verdict]:
        """Verdicts of these jobs once all are settled; ``submitter`` hears the doorbell meanwhile."""

        def look() -> list[Verdict] | None:
            if submitter is not None and self.resolves.waiting_count():
                submitter.submit()
            jobs = [self.store.get(data_id) for data_id in data_ids]
            return [job.verdict for job in jobs if job and job.verdict] if all(job and job.state is State.SETTLED for job in jobs) else None

        return until(look)

    def is_left_clean(self) -> None:
        """Once nothing is in flight, no slot of a window is taken, and no key waits for its window to be empty."""
        until(lambda: True if self.resolves.in_flight() == [] else None)
        assert self.redis.keys("ovm:flight:*") + self.redis.keys("ovm:aboard:*") + self.redis.keys("ovm:keys") == []  # type: ignore[operator]
        until(lambda: True if not any(why.startswith(UNTIL_EMPTY) for why in self.nonces.held().values()) else None)

    def accepted(self) -> list[str]:
        """Data ids of the resolves that the chain accepted, in order."""
        calls = [json.loads(call["arguments"]) for call in self.client.resolves() if call["accepted"]]
        return [bytes(call["data_id"]).hex() for call in calls]

    def fault(self, **fault: Any) -> None:
        assert urllib3.request("POST", f"{self.url}/control/faults", json=fault).status < 300

    def _executions(self, hashes: Sequence[str]) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = urllib3.request("GET", f"{self.url}/control/executions").json()
        return [one for one in told if one["transaction_hash"] in hashes]


def until(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 25
    while (found := look()) is None:
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
    return found
