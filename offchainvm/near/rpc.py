"""JSON-RPC of NEAR: pooled, with time-outs, several endpoints and typed answers.

::

    errors.Refused
    └── RpcRefused              the node answered: no
        ├── UnknownTransaction  it has not seen this hash (no proof that the transaction is dead)
        ├── InvalidTransaction  a check refused the bytes; ``reason`` says why
        ├── UnknownBlock        skipped, or forgotten
        └── ViewFailed          a view panicked, or its account or contract does not exist
    errors.Unavailable
    └── RpcUnavailable          no statement: unreachable, 408, 429, 5xx, not synced
        └── RpcTimeout          the node is well, the transaction has not come so far (408 TIMEOUT_ERROR)
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offchainvm.logs import get_logger
from offchainvm.near.climb import Climb
from offchainvm.near.rpc_answers import (
    AccessKey,
    InvalidTransaction,
    ProtocolLimits,
    RpcRefused,
    RpcTimeout,
    RpcUnavailable,
    UnknownBlock,
    UnknownTransaction,
    ViewFailed,
    access_key_of,
    protocol_limits_of,
)
from offchainvm.near.transaction import BlockRef
from offchainvm.near.transport import Endpoint, Pool

__all__ = [
    "AccessKey",
    "InvalidTransaction",
    "ProtocolLimits",
    "RecentBlock",
    "Rpc",
    "RpcRefused",
    "RpcTimeout",
    "RpcUnavailable",
    "UnknownBlock",
    "UnknownTransaction",
    "ViewFailed",
]

log = get_logger()

_OTHER_NETWORK_SECONDS = 600.0


class Rpc:
    """A client of one or more RPC endpoints; safe to share between threads.

    It stays with one endpoint until that is unavailable, then takes the next one that did not fail lately. Once one has told
    its chain's id, others are used only when theirs is the same.

    Args:
        urls: endpoints in order of preference; they may hold API keys, so only their host is ever logged.
        rest_seconds: how long an endpoint that failed is passed over.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        connect_seconds: float = 3.0,
        read_seconds: float = 10.0,
        rest_seconds: float = 10.0,
        connections: int = 8,
        ca_bundle: Path | None = None,
    ) -> None:
        if not urls:
            raise ValueError("at least one RPC endpoint is needed")
        pool = Pool(connect_seconds=connect_seconds, read_seconds=read_seconds, connections=connections, ca_bundle=ca_bundle)
        self._endpoints = [Endpoint(url, pool, rest_seconds=rest_seconds) for url in urls]
        self._active = self._endpoints[0]
        self._lock = threading.Lock()
        self._network = _Network()

    @property
    def endpoint(self) -> str:
        """Name of the endpoint in use: scheme and host, never what may be a key; unique within this client."""
        return self._active.name

    def pinned(self) -> Rpc:
        """A client of the endpoint in use alone: two answers that must come from the same node come through it."""
        return self._only(self._active)

    def elsewhere(self) -> Rpc:
        """A client of the next endpoint of this chain alone, for a second opinion; of the one in use where there is no other."""
        in_use, *others = self._turned()
        return self._only(next(filter(self._network.has, others), in_use))

    def send_tx(self, signed: bytes) -> None:
        """Hand over a signed transaction (``wait_until: NONE``): the node checks nothing and promises nothing."""
        self.call("send_tx", {"signed_tx_base64": _base64(signed), "wait_until": "NONE"})

    def tx(self, transaction: str | bytes, *, sender_id: str, wait_until: str = "NONE") -> dict[str, Any]:
        """What the node knows of a transaction, for ``outcome.classify``.

        Args:
            transaction: its hash, or its signed bytes: by bytes an unseen one is checked, and not sent.

        Raises:
            UnknownTransaction, InvalidTransaction (by bytes only), RpcTimeout, RpcUnavailable, RpcRefused.
        """
        if isinstance(transaction, bytes):
            return self.call("tx", {"signed_tx_base64": _base64(transaction), "wait_until": wait_until})
        return self.call("tx", {"tx_hash": transaction, "sender_account_id": sender_id, "wait_until": wait_until})

    def final_block(self) -> BlockRef:
        """The newest final block."""
        return self.block(finality="final")

    def block(self, height: int | None = None, *, finality: str = "final") -> BlockRef:
        """A block by its height, or the newest of ``finality``.

        Raises:
            UnknownBlock: no block has that height (skipped), or the node does not keep it.
        """
        header = self.call("block", {"finality": finality} if height is None else {"block_id": height})["header"]
        return BlockRef(height=int(header["height"]), hash=str(header["hash"]))

    def newest_block_time(self) -> float:
        """When the newest block was made, not final yet: seconds since 1970."""
        header = self.call("block", {"finality": "optimistic"})["header"]
        return int(header["timestamp_nanosec"]) / 1e9

    def access_key(self, account_id: str, public_key: str, *, finality: str = "final") -> AccessKey | None:
        """An access key, or None when ``account_id`` has no such key at that finality."""
        asked = {"request_type": "view_access_key", "account_id": account_id, "public_key": public_key, "finality": finality}
        return access_key_of(lambda: self.call("query", asked))

    def key_nonces(self, account_id: str, public_keys: Collection[str]) -> dict[str, int]:
        """Nonces of those of ``public_keys`` that the newest block knows (not final: it may still be replaced), in one call."""
        asked = {"account_id": account_id, "finality": "optimistic"}
        if len(public_keys) > 1:
            listed = self._query({**asked, "request_type": "view_access_key_list"})["keys"]
            return {one["public_key"]: int(one["access_key"]["nonce"]) for one in listed if one["public_key"] in public_keys}
        found = {public_key: self.access_key(account_id, public_key, finality="optimistic") for public_key in public_keys}
        return {public_key: key.nonce for public_key, key in found.items() if key is not None}

    def view_account(self, account_id: str, *, finality: str = "final") -> dict[str, Any]:
        """An account's state: ``amount`` and ``locked`` in yoctoNEAR (decimal text), ``code_hash``, …

        Raises:
            ViewFailed: no such account.
        """
        return self._query({"request_type": "view_account", "account_id": account_id, "finality": finality})

    def view(self, contract_id: str, method: str, arguments: Mapping[str, Any] | None = None, *, finality: str = "final") -> bytes:
        """What a contract's view method returned.

        Raises:
            ViewFailed: it panicked, or there is no such method or contract.
        """
        text = json.dumps(dict(arguments or {}), separators=(",", ":")).encode()
        asked = {"request_type": "call_function", "account_id": contract_id, "method_name": method, "args_base64": _base64(text)}
        return bytes(self._query({**asked, "finality": finality})["result"])

    def protocol_config(self) -> ProtocolLimits:
        """The chain's limits that a transaction of ours meets; a provider may not offer the method."""
        return protocol_limits_of(self.call("EXPERIMENTAL_protocol_config", {"finality": "final"}, optional=True))

    def status(self) -> dict[str, Any]:
        """``chain_id``, ``protocol_version``, ``sync_info`` and more of the node in use."""
        endpoint, answer = self._answer("status", [], optional=False)
        endpoint.chain_id = str(answer.get("chain_id") or self._network.id)
        self._network.id = self._network.id or endpoint.chain_id
        return answer

    def chain_id(self) -> str:
        """The network's name.

        Raises:
            RpcUnavailable: also where the node in use answers without it.
        """
        self.status()
        if not self._network.id:
            raise RpcUnavailable(self.endpoint, "status: it tells no chain_id")
        return self._network.id

    def call(self, method: str, parameters: Mapping[str, Any] | Sequence[Any], *, optional: bool = False) -> dict[str, Any]:
        """The ``result`` object of one call, from the first endpoint that makes a statement.

        Args:
            optional: no endpoint is passed over later, nor taken into use, for how it answers this one.

        Raises:
            RpcRefused: see the tree; RpcUnavailable: no endpoint made a statement, the error of the last one.
        """
        return self._answer(method, parameters, optional=optional)[1]

    def _answer(self, method: str, parameters: Mapping[str, Any] | Sequence[Any], *, optional: bool) -> tuple[Endpoint, dict[str, Any]]:
        """The answer of the first endpoint that makes a statement, which is the one in use from then on unless ``optional``."""
        body = _request(method, parameters)
        *others, last = self._order()
        for endpoint in others:
            try:
                return self._ask(endpoint, method, body, optional=optional)
            except RpcTimeout:
                raise
            except RpcUnavailable as error:
                log.warning("RPC endpoint unavailable", action="rpc_fail_over", endpoint=endpoint.name, method=method, error=error.sentence)
        return self._ask(last, method, body, optional=optional)

    def _ask(self, endpoint: Endpoint, method: str, body: bytes, *, optional: bool) -> tuple[Endpoint, dict[str, Any]]:
        if self._network.id and endpoint.chain_id != self._network.id:
            self._network.admit(endpoint)
        answer = endpoint.ask(method, body, optional=optional)
        if not optional:
            self._stay_with(endpoint)
        return endpoint, answer

    def _only(self, endpoint: Endpoint) -> Rpc:
        only = object.__new__(Rpc)
        only._endpoints, only._active, only._lock = [endpoint], endpoint, threading.Lock()
        only._network = self._network
        return only

    def _query(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        result = self.call("query", asked)
        if "error" in result:
            raise ViewFailed(str(result["error"]), cause="QUERY_ERROR")
        return result

    def _order(self) -> list[Endpoint]:
        """Endpoints from the one in use on; those at rest last, the one that rests longest at the very end."""
        now = time.monotonic()
        return sorted(self._turned(), key=lambda endpoint: max(0.0, endpoint.resting_until - now))

    def _turned(self) -> list[Endpoint]:
        """The one in use, and those after it in turn."""
        with self._lock:
            start = self._endpoints.index(self._active)
        return self._endpoints[start:] + self._endpoints[:start]

    def _stay_with(self, endpoint: Endpoint) -> None:
        with self._lock:
            changed, self._active = endpoint is not self._active, endpoint
        if changed:
            log.info("RPC endpoint changed", action="rpc_endpoint_changed", endpoint=endpoint.name)


class _Network:
    """The chain that a client speaks with, and those made from it: the one of the endpoint that first told its id."""

    def __init__(self) -> None:
        self.id = ""

    def has(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint serves this chain, as far as it can be told now."""
        if not self.id or endpoint.chain_id:
            return endpoint.chain_id in {"", self.id}
        try:
            self.admit(endpoint)
        except RpcUnavailable:
            return False
        return True

    def admit(self, endpoint: Endpoint) -> None:
        """Ask an endpoint for its chain's id, before it is asked for anything else.

        Raises:
            RpcUnavailable: it tells another chain, or does not answer.
        """
        endpoint.chain_id = _told_chain_id(endpoint) or self.id
        if endpoint.chain_id == self.id:
            return
        endpoint.rest(_OTHER_NETWORK_SECONDS)
        log.error(
            "An RPC endpoint serves another network than the others and is not used. Correct NEAR_RPC_URL.",
            action="rpc_other_network",
            endpoint=endpoint.name,
            network=endpoint.chain_id,
            others=self.id,
        )
        raise RpcUnavailable(endpoint.name, f"it serves the network {endpoint.chain_id}, the others of NEAR_RPC_URL serve {self.id}")


def _told_chain_id(endpoint: Endpoint) -> str:
    """Empty where it keeps that to itself, as some providers do.

    Raises:
        RpcUnavailable: it does not answer.
    """
    try:
        return str(endpoint.ask("status", _request("status", []), optional=True).get("chain_id") or "")
    except RpcRefused:
        return ""
    except RpcUnavailable as error:
        if error.answered:
            return ""
        endpoint.rest(error.retry_after_seconds)
        raise


def _request(method: str, parameters: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "offchainvm", "method": method, "params": parameters}).encode()


@dataclass
class _Cached:
    block: BlockRef
    until: float


class RecentBlock:
    """The newest final block, asked for at most every ``refresh_seconds``; safe to share between threads.

    While the chain cannot be asked, the last one known serves on for ``stale_seconds``: a transaction may name
    a block that is hours old.
    """

    def __init__(self, fetch: Callable[[], BlockRef], *, refresh_seconds: float = 3.0, stale_seconds: float = 600.0) -> None:
        self._fetch = fetch
        self._refresh_seconds, self._stale_seconds = refresh_seconds, stale_seconds
        self._lock = threading.Lock()
        self._cached: _Cached | None = None
        self._climb = Climb()

    def get(self) -> BlockRef:
        """A final block of the last few seconds.

        Raises:
            RpcUnavailable: none could be had, and none is known that is young enough.
        """
        with self._lock:
            if self._cached is None or time.monotonic() >= self._cached.until:
                self._cached = self._refreshed(self._cached)
            return self._cached.block

    def _refreshed(self, old: _Cached | None) -> _Cached:
        now = time.monotonic()
        try:
            block = self._fetch()
        except RpcUnavailable:
            if old is None or now >= old.until + self._stale_seconds:
                raise
            # `until` stays: the next caller asks again.
            return old
        believed = self._climb.judge(block.height, now)
        return _Cached(block if old is None or block.height == believed else old.block, now + self._refresh_seconds)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
