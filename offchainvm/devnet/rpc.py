"""The JSON-RPC of a NEAR node: methods, results and errors in the exact shapes of ``chain/jsonrpc`` of nearcore."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from typing import Any

import base58

from offchainvm.devnet import views
from offchainvm.devnet.borsh import BorshError, Transaction, decode
from offchainvm.devnet.chain import Chain, NodeView
from offchainvm.devnet.contract import Panic
from offchainvm.devnet.http import Reply, Request
from offchainvm.devnet.keys import base58_text
from offchainvm.devnet.records import Block, Level, permission_json
from offchainvm.devnet.validity import InvalidTx

_HTTP_STATUS = {"UNKNOWN_BLOCK": 422, "TIMEOUT_ERROR": 408, "INTERNAL_ERROR": 500}


class RpcFailure(Exception):
    """An error of the RPC: ``cause`` and ``data`` go into the error object."""

    def __init__(self, kind: str, cause: str, info: Any, data: Any, *, code: int = -32000, message: str = "Server error") -> None:
        super().__init__(cause)
        self.error = {"name": kind, "cause": {"info": info, "name": cause}, "code": code, "message": message, "data": data}
        self.http_status = 400 if kind == "REQUEST_VALIDATION_ERROR" else _HTTP_STATUS.get(cause, 200)


def _handler_error(cause: str, info: Any, data: Any) -> RpcFailure:
    return RpcFailure("HANDLER_ERROR", cause, info, data)


def parse_error(text: str) -> RpcFailure:
    info = {"error_message": text}
    return RpcFailure("REQUEST_VALIDATION_ERROR", "PARSE_ERROR", info, text, code=-32700, message="Parse error")


def invalid_transaction(reason: InvalidTx) -> RpcFailure:
    return _handler_error("INVALID_TRANSACTION", {}, {"TxExecutionError": {"InvalidTxError": reason}})


def unknown_transaction(transaction_hash: str) -> RpcFailure:
    info = {"requested_transaction_hash": transaction_hash}
    return _handler_error("UNKNOWN_TRANSACTION", info, f"Transaction {transaction_hash} doesn't exist")


def timeout_error(status: dict[str, Any] | None = None) -> RpcFailure:
    """``status``: how far the transaction is; None: the node never saw it."""
    info = {"cause": "NOT_OBSERVED"} if status is None else {"cause": "PENDING", "status": status}
    return _handler_error("TIMEOUT_ERROR", info, "Timeout")


def failure_reply(failure: RpcFailure, call_id: Any) -> Reply:
    return Reply.json({"jsonrpc": "2.0", "error": failure.error, "id": call_id}, failure.http_status)


class Rpc:
    """The methods. ``wait_for_change`` returns when the chain has moved on."""

    def __init__(
        self, chain: Chain, wait_for_change: Callable[[], Awaitable[None]], submit: Callable[[Transaction], None], *, timeout_seconds: float
    ) -> None:
        self.chain = chain
        self.address = ""
        self._wait_for_change = wait_for_change
        self._submit = submit
        self._timeout_seconds = timeout_seconds
        self._methods: dict[str, Callable[[Any, NodeView], Awaitable[Any]]] = {
            "send_tx": self._send_tx,
            "broadcast_tx_async": self._broadcast_async,
            "broadcast_tx_commit": self._broadcast_commit,
            "tx": self._tx,
            "EXPERIMENTAL_tx_status": self._tx_with_receipts,
            "query": self._query,
            "block": self._block,
            "status": self._status,
            "gas_price": self._gas_price,
            "EXPERIMENTAL_protocol_config": self._protocol_config,
            "health": self._health,
            "network_info": self._network_info,
        }

    async def answer(self, request: Request, node: NodeView) -> Reply:
        """Answer one POST."""
        call_id: Any = None
        try:
            call = _parsed(request.body)
            call_id = call.get("id")
            method = self._methods.get(call["method"])
            if method is None:
                info = {"method_name": call["method"]}
                kind = "REQUEST_VALIDATION_ERROR"
                raise RpcFailure(kind, "METHOD_NOT_FOUND", info, call["method"], code=-32601, message="Method not found")
            result = await method(call.get("params"), node)
        except RpcFailure as failure:
            return failure_reply(failure, call_id)
        return Reply.json({"jsonrpc": "2.0", "result": result, "id": call_id})

    # Transactions

    async def _broadcast_async(self, params: Any, _: NodeView) -> str:
        transaction = _decoded(_first(params, "signed_tx_base64"))
        self._submit(transaction)
        return transaction.hash

    async def _broadcast_commit(self, params: Any, node: NodeView) -> Any:
        return await self._send(_decoded(_first(params, "signed_tx_base64")), Level.EXECUTED_OPTIMISTIC, node)

    async def _send_tx(self, params: Any, node: NodeView) -> Any:
        return await self._send(_decoded(_first(params, "signed_tx_base64")), _level(params), node)

    async def _send(self, transaction: Transaction, level: Level, node: NodeView) -> Any:
        # A node that is asked for nothing checks nothing: it forwards the bytes and says so.
        if level is not Level.NONE and node.record(transaction.hash) is None and (reason := self.chain.invalid(transaction, node)):
            raise invalid_transaction(reason)
        self._submit(transaction)
        if level is Level.NONE:
            return {"final_execution_status": "NONE"}
        return await self._status_of(transaction.hash, level, node, None)

    async def _tx(self, params: Any, node: NodeView, *, receipts: bool = False) -> Any:
        transaction: Transaction | None = None
        if isinstance(params, dict) and "signed_tx_base64" in params:
            transaction = _decoded(params["signed_tx_base64"])
            transaction_hash = transaction.hash
        else:
            transaction_hash = _first(params, "tx_hash")
            if not _is_hash(transaction_hash):
                raise parse_error(f"Failed parsing args: invalid value: string {json.dumps(transaction_hash)}, expected a transaction hash")
        return await self._status_of(transaction_hash, _level(params), node, transaction, receipts=receipts)

    async def _tx_with_receipts(self, params: Any, node: NodeView) -> Any:
        return await self._tx(params, node, receipts=True)

    async def _status_of(
        self, transaction_hash: str, level: Level, node: NodeView, transaction: Transaction | None, *, receipts: bool = False
    ) -> Any:
        """Wait until the transaction is as far as asked. An unseen one is checked where its bytes were given."""
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        while True:
            record = node.record(transaction_hash)
            reached = Level.NONE
            if record is not None:
                reached = record.level(node.final_height)
                executed = all(outcome.height <= node.visible_height for outcome in record.outcomes)
                if not executed:
                    reached = min(reached, Level.INCLUDED_FINAL if record.height <= node.final_height else Level.INCLUDED)
                # What this node has not executed yet it cannot tell: a status alone, as of a shard it does not track.
                status = {"final_execution_status": reached.name, **(record.as_json(receipts=receipts) if executed else {})}
                if reached >= level:
                    return status
            elif transaction is not None and (reason := self.chain.invalid(transaction, node)):
                raise invalid_transaction(reason)
            elif level is Level.NONE:
                raise unknown_transaction(transaction_hash)
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._wait_for_change(), max(left, 0))
            except asyncio.TimeoutError:
                raise (unknown_transaction(transaction_hash) if record is None else timeout_error(status)) from None

    # Queries

    async def _query(self, params: Any, node: NodeView) -> Any:
        if not isinstance(params, dict) or "request_type" not in params:
            raise parse_error("Failed parsing args: missing field `request_type`")
        block = self._at(params, node, query=True)
        handler = {
            "view_access_key": self._view_access_key,
            "view_access_key_list": self._view_access_key_list,
            "view_account": self._view_account,
            "call_function": self._call_function,
        }.get(params["request_type"])
        if handler is None:
            raise parse_error(f"Failed parsing args: unknown variant `{params['request_type']}`")
        return {**handler(params, block), "block_height": block.height, "block_hash": block.hash}

    def _view_access_key(self, params: dict[str, Any], block: Block) -> dict[str, Any]:
        account = self.chain.ledger.accounts.get(params.get("account_id", ""))
        # A key without its kind is an ed25519 key: py-near asks so.
        public_key = "ed25519:" + str(params.get("public_key", "")).removeprefix("ed25519:")
        key = account.keys.get(public_key) if account is not None else None
        height = self._state_height(block)
        if key is None or not key.exists_at(height):
            return {"error": f"access key {public_key} does not exist while viewing", "logs": []}
        return {"nonce": key.nonce_at(height), "permission": permission_json(key.permission, key.allowance)}

    def _view_access_key_list(self, params: dict[str, Any], block: Block) -> dict[str, Any]:
        account = self.chain.ledger.accounts.get(params.get("account_id", ""))
        height = self._state_height(block)
        keys = {} if account is None else {text: key for text, key in account.keys.items() if key.exists_at(height)}
        told = {
            text: {"nonce": key.nonce_at(height), "permission": permission_json(key.permission, key.allowance)}
            for text, key in keys.items()
        }
        return {"keys": [{"public_key": text, "access_key": access} for text, access in told.items()]}

    def _state_height(self, block: Block) -> int:
        """In instant mode the last block stands for the open one as well."""
        return 2**63 if self.chain.instant and block is self.chain.head else block.height

    def _view_account(self, params: dict[str, Any], block: Block) -> dict[str, Any]:
        account_id = params.get("account_id", "")
        account = self.chain.ledger.accounts.get(account_id)
        if account is None:
            info = {"block_hash": block.hash, "block_height": block.height, "requested_account_id": account_id}
            raise _handler_error("UNKNOWN_ACCOUNT", info, f"account {account_id} does not exist while viewing")
        code_hash = "1" * 32 if account_id != self.chain.contract_id else base58_text(b"the devnet contract".ljust(32))
        return {"amount": str(account.balance), "locked": "0", "code_hash": code_hash, "storage_usage": 182, "storage_paid_at": 0}

    def _call_function(self, params: dict[str, Any], block: Block) -> dict[str, Any]:
        account_id, failed = params.get("account_id", ""), "wasm execution failed with error: "
        if account_id not in self.chain.ledger.accounts:
            info = {"block_hash": block.hash, "block_height": block.height, "requested_account_id": account_id}
            raise _handler_error("UNKNOWN_ACCOUNT", info, f"account {account_id} does not exist while viewing")
        if account_id != self.chain.contract_id:
            return {"error": f'{failed}CompilationError(CodeDoesNotExist {{ account_id: AccountId("{account_id}") }})', "logs": []}
        try:
            value = self.chain.contract.view(params.get("method_name", ""), _base64(params.get("args_base64", "")) or b"{}")
        except KeyError:
            return {"error": f"{failed}MethodResolveError(MethodNotFound)", "logs": []}
        except Panic as panic:
            text = json.dumps(str(panic).removeprefix("Smart contract panicked: "))
            return {"error": f"{failed}HostError(GuestPanic {{ panic_msg: {text} }})", "logs": []}
        return {"result": list(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()), "logs": []}

    async def _block(self, params: Any, node: NodeView) -> Any:
        if isinstance(params, list) and len(params) == 1:
            params = {"block_id": params[0]}
        if not isinstance(params, dict):
            raise parse_error("Failed parsing args: missing field `block_id`")
        return views.block_json(self._at(params, node), self.chain)

    def _at(self, params: dict[str, Any], node: NodeView, *, query: bool = False) -> Block:
        wanted = params.get("block_id")
        if wanted is None:
            finality = params.get("finality", "final")
            if finality == "near-final":
                return self.chain.blocks[max(node.head.ordinal - 1, 0)]
            if finality not in ("final", "optimistic"):
                raise parse_error(f"Failed parsing args: unknown variant `{finality}`")
            return node.final if finality == "final" else node.head
        found = self.chain.by_hash.get(wanted) if isinstance(wanted, str) else self.chain.by_height.get(wanted)
        if found is None or found.height > node.head.height:
            name = f"BLOCK HEIGHT: {wanted}" if isinstance(wanted, int) else f"BLOCK: {wanted}"
            info = {"block_reference": {"block_id": wanted}} if query else {}
            raise _handler_error("UNKNOWN_BLOCK", info, f"DB Not Found Error: {name} \n Cause: Unknown")
        return found

    async def _status(self, _: Any, node: NodeView) -> Any:
        return views.status(node, self.address)

    async def _gas_price(self, _: Any, __: NodeView) -> Any:
        return {"gas_price": str(self.chain.protocol.gas_price)}

    async def _protocol_config(self, _: Any, __: NodeView) -> Any:
        return views.protocol_config(self.chain.protocol, self.chain.blocks[0])

    async def _health(self, _: Any, __: NodeView) -> Any:
        return None

    async def _network_info(self, _: Any, __: NodeView) -> Any:
        return {
            "active_peers": [],
            "num_active_peers": 0,
            "peer_max_count": 40,
            "sent_bytes_per_sec": 0,
            "received_bytes_per_sec": 0,
            "known_producers": [],
        }


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        call = json.loads(body)
    except ValueError as error:
        raise parse_error(f"Failed parsing JSON: {error}") from None
    if not isinstance(call, dict) or not isinstance(call.get("method"), str):
        raise parse_error("Failed parsing JSON: missing field `method`")
    return call


def _first(params: Any, name: str) -> str:
    value = params.get(name) if isinstance(params, dict) else params[0] if isinstance(params, list) and params else None
    if not isinstance(value, str):
        raise parse_error(f"Failed parsing args: missing field `{name}`")
    return value


def _level(params: Any) -> Level:
    name = params.get("wait_until", "EXECUTED_OPTIMISTIC") if isinstance(params, dict) else "EXECUTED_OPTIMISTIC"
    if name not in Level.__members__:
        raise parse_error(f"Failed parsing args: unknown variant `{name}`")
    return Level[name]


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise parse_error(f"Failed parsing args: {error}") from None


def _decoded(text: str) -> Transaction:
    try:
        return decode(_base64(text))
    except BorshError as error:
        raise parse_error(f"Failed to decode transaction: {error}") from None


def _is_hash(text: str) -> bool:
    try:
        return len(base58.b58decode(text)) == 32
    except ValueError:
        return False
