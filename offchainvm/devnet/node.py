"""The chain as real HTTP servers see it, in one: RPC nodes (one up to date, one that lags), block service, head service.

``/`` RPC · ``/lagging`` RPC of a second node · ``/v0/block/{height}``, ``/v0/last_block/final`` block service · ``/status``
head · ``/control/…`` our switches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

from offchainvm.devnet import views
from offchainvm.devnet.borsh import Transaction, decode
from offchainvm.devnet.chain import Chain, ChainFaults
from offchainvm.devnet.client import DEFAULT_DEPOSIT, Limits, request_arguments, sign_request
from offchainvm.devnet.faults import Fault, Ration
from offchainvm.devnet.genesis import CLIENT_ID, OPERATOR_ID, Keys, genesis
from offchainvm.devnet.http import HttpError, Reply, Request, Service
from offchainvm.devnet.rpc import Rpc, RpcFailure, failure_reply, timeout_error, unknown_transaction
from offchainvm.devnet.validity import Protocol

LONG_POLL_HEIGHTS = 10
"""So far ahead of the head the block service waits for a block instead of answering 404."""
_PERMANENTLY_AHEAD = 1_000_000


class NodeApp(Service):
    """The ASGI application.

    ``block_time_seconds``: a block every so often; ``inf`` = only through ``/control/produce``. ``commit_delay_seconds``: in
    instant mode, how long after its arrival a transaction is executed (and final).
    """

    def __init__(
        self, chain: Chain, keys: Keys, *, block_time_seconds: float = 0.6, commit_delay_seconds: float = 0.0,
        rpc_timeout_seconds: float = 10.0, record_limit: int = 10_000,
    ) -> None:  # fmt: skip
        super().__init__(record_limit=record_limit)
        self.chain = chain
        self.keys = keys
        self.block_time_seconds = block_time_seconds
        self.commit_delay_seconds = commit_delay_seconds
        self.lag_blocks = {"": 0, "lagging": 10}
        self.long_poll = True
        self.archive_below = 0
        self.ration = Ration()
        self.rpc = Rpc(chain, self._wait_for_change, self._submit, timeout_seconds=rpc_timeout_seconds)
        self._changed = asyncio.Event()
        self._ticking: asyncio.Task[None] | None = None
        self._client_nonce = 0
        chain.changed = self._wake

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_for_change(self) -> None:
        await self._changed.wait()

    def _submit(self, transaction: Transaction) -> None:
        if self.chain.instant and self.commit_delay_seconds:
            # Timers of one delay fire in the order in which they were set: transactions land in the order of arrival.
            asyncio.get_running_loop().call_later(self.commit_delay_seconds, self.chain.submit, transaction)
        else:
            self.chain.submit(transaction)

    async def start(self) -> None:
        if math.isfinite(self.block_time_seconds):
            self._ticking = asyncio.ensure_future(self._tick())

    async def stop(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self.long_poll = False
        self._wake()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self.block_time_seconds, loop.time())
            await asyncio.sleep(due - loop.time())
            self.chain.produce()

    # The wire

    async def answer(self, request: Request) -> Reply:
        parts = request.raw_path.strip("/").split("/")
        if request.method == "POST" and parts[0] in self.lag_blocks and len(parts) == 1:
            return await self.rpc.answer(request, self.chain.node(self.lag_blocks[parts[0]]))
        if request.method == "GET" and parts == ["status"]:
            return Reply.json({"version": "devnet", "sync_block_height": self.chain.node().final.height, "sync_latency_ms": 0})
        if request.method == "GET" and parts[0] in {"v0", "archive"}:
            return await self._service(request, parts)
        return Reply(405 if parts == [""] else 404)

    async def _service(self, request: Request, parts: list[str]) -> Reply:
        """The block service, within its ration; its archive, to which old heights are redirected, has none."""
        if parts[0] == "v0" and (seconds := self.ration.seconds_to_wait()):
            return Reply(429, b"Too Many Requests", "text/plain", (("retry-after", str(seconds)),))
        if parts[:2] == ["v0", "block"] and len(parts) == 3:
            return await self._service_block(request, parts[2])
        if parts == ["v0", "last_block", "final"]:
            return _moved(f"/v0/block/{self.chain.node().final.height}", request)
        if parts[:3] == ["archive", "v0", "block"] and len(parts) == 4:
            return await self._service_block(request, parts[3], archive=True)
        return Reply(404)

    async def _service_block(self, request: Request, text: str, *, archive: bool = False) -> Reply:
        if not text.isascii() or not text.isdigit():
            return Reply.json({"error": "Invalid block height", "type": "INVALID_BLOCK_HEIGHT"}, 400)
        height, first = int(text), self.chain.blocks[0].height
        if height < first:
            return Reply.json({"error": f"The block height is too low. First: {first}", "type": "BLOCK_HEIGHT_TOO_LOW"}, 404)
        if height < self.archive_below and not archive:
            return _moved(f"/archive/v0/block/{height}", request)
        while height > (final := self.chain.node().final.height):
            if height > final + _PERMANENTLY_AHEAD:
                return Reply.json({"error": f"The block height is too high. Last: {final}", "type": "BLOCK_HEIGHT_TOO_HIGH"}, 404)
            if not self.long_poll or height > final + LONG_POLL_HEIGHTS:
                return Reply.json({"error": "The block is not available yet", "type": "BLOCK_DOES_NOT_EXIST"}, 404)
            await _either(self._wait_for_change(), request.gone())
        block = self.chain.by_height.get(height)
        return Reply.json(b"null" if block is None else views.service_block(block, self.chain))

    def special_fault(self, fault: Fault, request: Request) -> Reply | None:
        try:
            call = json.loads(request.body)
        except ValueError:
            return None
        failure: RpcFailure = timeout_error() if fault.kind == "timeout" else unknown_transaction(_hash_in(call))
        return failure_reply(failure, call.get("id"))

    # Our own switches

    async def control(self, request: Request, rest: str) -> Reply:
        name, _, argument = rest.partition("/")
        if (request.method, name) == ("GET", "executions") and argument:
            return await self._execution(request, argument)
        switches: dict[tuple[str, str], Callable[[], Any]] = {
            ("GET", "executions"): lambda: list(self.chain.runtime.executions.values()),
            ("POST", "executions"): lambda: self._request_execution(request.json()),
            ("GET", "resolves"): lambda: self.chain.runtime.resolves,
            ("GET", "chain"): self._chain_state,
            ("POST", "chain"): lambda: self._set_chain(request.json()),
            ("POST", "contract"): lambda: self._set_contract(request.json()),
            ("POST", "produce"): lambda: self._produce(request.json() if request.body else {}),
            ("POST", "forget"): lambda: {"known": self.chain.forget(request.json()["hash"])},
        }
        switch = switches.get((request.method, name))
        if switch is None:
            return await super().control(request, rest)
        try:
            return Reply.json(switch())
        except (KeyError, TypeError, ValueError) as error:
            raise HttpError(Reply.text(422, f"{type(error).__name__}: {error}")) from None

    async def _execution(self, request: Request, request_id: str) -> Reply:
        """One request; ``?wait=S`` waits up to S seconds for its callback."""
        deadline = asyncio.get_running_loop().time() + float(request.query.get("wait", "0"))
        while True:
            told = self.chain.runtime.executions.get(int(request_id))
            left = deadline - asyncio.get_running_loop().time()
            if (told is not None and told["state"] != "pending") or left <= 0:
                return Reply(404) if told is None else Reply.json(told)
            await _either(self._wait_for_change(), asyncio.sleep(left))

    def _request_execution(self, told: dict[str, Any]) -> dict[str, Any]:
        """Sign and submit a request as the client account."""
        key = self.keys.client_key
        node = self.chain.node()
        account = self.chain.ledger.accounts[CLIENT_ID]
        used = account.keys[key.public_text].nonce
        self._client_nonce = max(self._client_nonce + 1, used + 1)
        limits = told.pop("limits", None)
        deposit_yocto = int(told.pop("deposit_yocto", DEFAULT_DEPOSIT))
        arguments = request_arguments(**told, limits=None if limits is None else Limits(**limits))
        signed = decode(
            sign_request(
                key=key, contract_id=self.chain.contract_id, nonce=self._client_nonce, block_hash=node.final.digest,
                arguments=arguments, deposit_yocto=deposit_yocto,
            )
        )  # fmt: skip
        self._submit(signed)
        return {"transaction_hash": signed.hash}

    def _chain_state(self) -> dict[str, Any]:
        node = self.chain.node()
        return {
            "head": node.head.height, "final": node.final.height, "pool": list(self.chain.pool),
            "block_time_seconds": self.block_time_seconds,
            "commit_delay_seconds": self.commit_delay_seconds, "lag_blocks": self.lag_blocks, "long_poll": self.long_poll,
            "archive_below": self.archive_below, "service_requests_per_minute": self.ration.per_minute,
            "yields": len(self.chain.runtime.yields), **vars(self.chain.faults),
        }  # fmt: skip

    def _set_chain(self, told: dict[str, Any]) -> dict[str, Any]:
        for name, value in told.items():
            if name == "lag_blocks":
                self.lag_blocks.update({key: int(blocks) for key, blocks in value.items()})
            elif name == "service_requests_per_minute":
                self.ration.per_minute = int(value)
            elif name in ("block_time_seconds", "commit_delay_seconds", "long_poll", "archive_below"):
                setattr(self, name, value)
            elif name in vars(ChainFaults()):
                setattr(self.chain.faults, name, value)
            else:
                raise KeyError(name)
        if told.get("hold") is False:
            self.chain.release()
        return self._chain_state()

    def _set_contract(self, told: dict[str, Any]) -> dict[str, Any]:
        contract = self.chain.contract
        for name, value in told.items():
            if name not in ("operator_id", "paused", "lenient", "standard"):
                raise KeyError(name)
            setattr(contract, name, value)
        return {"operator_id": contract.operator_id, "paused": contract.paused, "lenient": contract.lenient, "standard": contract.standard}

    def _produce(self, told: dict[str, Any]) -> dict[str, Any]:
        """Cut ``blocks`` blocks now (default 1), the first one after ``skip`` skipped heights."""
        self.chain.produce(int(told.get("skip", 0)))
        for _ in range(int(told.get("blocks", 1)) - 1):
            self.chain.produce()
        return self._chain_state()


async def _either(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


def _moved(path: str, request: Request) -> Reply:
    return Reply(302, b"", headers=(("location", path + (f"?{request.query_text}" if request.query_text else "")),))


def _hash_in(call: dict[str, Any]) -> str:
    params = call.get("params")
    value = params.get("tx_hash", "") if isinstance(params, dict) else params[0] if isinstance(params, list) and params else ""
    return str(value)


def node_from_options(options: argparse.Namespace, url: str) -> tuple[NodeApp, dict[str, Any]]:
    """The application of ``python -m offchainvm.devnet chain``, and what its ready line tells beside the URL."""
    if not options.keys_file.exists():
        fresh = Keys.generate(
            function_call=options.function_call_keys, full_access=options.full_access_keys, contract_id=options.contract_id
        )
        fresh.save(options.keys_file)
    keys = Keys.load(options.keys_file)
    instant = options.instant or options.block_time == 0
    protocol = Protocol(yield_timeout_blocks=options.yield_timeout_blocks)
    chain = genesis(keys, protocol=protocol, instant=instant, standard=options.event_standard)
    node = NodeApp(
        chain, keys, block_time_seconds=options.block_time or 0.6, commit_delay_seconds=options.commit_delay,
        rpc_timeout_seconds=options.rpc_timeout, record_limit=options.record,
    )  # fmt: skip
    node.rpc.address = url.removeprefix("http://")
    return node, {
        "rpc_url": url, "lagging_rpc_url": f"{url}/lagging", "neardata_url": f"{url}/v0/block", "fastnear_url": f"{url}/status",
        "network_id": "devnet", "contract_id": keys.contract_id, "operator_account_id": OPERATOR_ID, "client_account_id": CLIENT_ID,
        "keys_file": str(options.keys_file), "instant": instant,
    }  # fmt: skip
