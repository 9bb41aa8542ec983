"""A caller of the contract on the local chain: what the demo and the tests ask with. Signs for itself; knows no worker."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import base58
import urllib3

from offchainvm.devnet.borsh import FunctionCall, decode, sign
from offchainvm.devnet.genesis import CLIENT_ID, Keys
from offchainvm.devnet.keys import KeyPair
from offchainvm.errors import Refused, Unavailable

DEFAULT_DEPOSIT = 10**24
"""1 NEAR; what is not charged comes back."""
_GAS = 300 * 10**12


@dataclass(frozen=True)
class Limits:
    """``resource_limits`` of a request."""

    max_instructions: int = 10**10
    max_memory_mb: int = 128
    max_execution_seconds: int = 60


@dataclass(frozen=True)
class Requested:
    """One request that the contract took."""

    request_id: int
    data_id: str
    """64 hex characters."""
    transaction_hash: str
    height: int


@dataclass(frozen=True)
class Result:
    """What the contract's callback got, and what came of it. ``state``: succeeded, failed, timed_out."""

    state: str
    value: str | None
    """What the caller of the contract gets: the output as text."""
    error: str | None
    response: dict[str, Any] | None
    """The response as the operator gave it."""
    charged_yocto: int
    refund_yocto: int
    resolved_by: str | None
    """Hash of the transaction that resolved it."""
    resolved_height: int


def request_arguments(
    *, repo: str, commit: str, build_target: str = "wasm32-wasip1", input_data: str | None = None, limits: Limits | None = None
) -> bytes:
    """Arguments of ``request_execution``, compact JSON."""
    source = {"repo": repo, "commit": commit, "build_target": build_target}
    told = {"code_source": source, "resource_limits": None if limits is None else asdict(limits), "input_data": input_data}
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()


def sign_request(
    *, key: KeyPair, contract_id: str, nonce: int, block_hash: bytes, arguments: bytes, deposit_yocto: int, signer_id: str = CLIENT_ID
) -> bytes:
    """Bytes of a ``request_execution`` signed by an account's full-access key."""
    action = FunctionCall("request_execution", arguments, _GAS, deposit_yocto)
    return sign(key=key, signer_id=signer_id, nonce=nonce, receiver_id=contract_id, block_hash=block_hash, actions=[action])


class DevnetClient:
    """Calls ``request_execution`` by real transactions. One thread at a time: it counts its key's nonce itself."""

    def __init__(self, chain_url: str, keys: Keys, *, account_id: str = CLIENT_ID) -> None:
        """``account_id``: who asks; the client, or the outsider."""
        self._url = chain_url.rstrip("/")
        self._keys, self._account_id = keys, account_id
        self._key = keys.client_key if account_id == CLIENT_ID else keys.outsider_key
        self._nonce = 0
        self._pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=5, read=90))

    def request_execution(
        self, repo: str, commit: str, build_target: str, input_data: str | None, limits: Limits | None = None, *,
        deposit_yocto: int = DEFAULT_DEPOSIT, timeout_seconds: float = 30,
    ) -> Requested:  # fmt: skip
        """Ask the contract for one execution; returns when the contract has taken it.

        Raises:
            Refused: the contract's or the chain's own words are in the sentence.
        """
        transaction_hash = self.send_request(repo, commit, build_target, input_data, limits, deposit_yocto=deposit_yocto)
        return self.landed([transaction_hash], timeout_seconds=timeout_seconds)[0]

    def landed(self, hashes: Sequence[str], *, timeout_seconds: float = 30) -> list[Requested]:
        """The requests of transactions that were sent, in their order; returns when the contract has taken them all.

        Raises:
            Refused: one was not taken; the contract's or the chain's own words are in the sentence.
            Unavailable: not all were taken within ``timeout_seconds``.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            taken = {told["transaction_hash"]: told for told in self._control("executions")}
            missing = [one for one in hashes if one not in taken]
            if not missing:
                return [Requested(taken[one]["request_id"], taken[one]["data_id"], one, taken[one]["height"]) for one in hashes]
            for transaction_hash in missing:
                self._raise_failure(transaction_hash)
            if time.monotonic() > deadline:
                raise Unavailable("chain", f"The request's transaction {missing[0]} did not land within {timeout_seconds:g} s.")
            time.sleep(0.02)

    def send_request(
        self, repo: str, commit: str, build_target: str, input_data: str | None, limits: Limits | None = None, *,
        deposit_yocto: int = DEFAULT_DEPOSIT,
    ) -> str:  # fmt: skip
        """Sign and send one request without waiting; gives the transaction's hash."""
        key, account_id = self._key, self._account_id
        access = self.rpc(
            "query", {"request_type": "view_access_key", "finality": "optimistic", "account_id": account_id, "public_key": key.public_text}
        )
        block = self.rpc("block", {"finality": "final"})["header"]
        self._nonce = max(self._nonce, access["nonce"]) + 1
        signed = sign_request(
            key=key, contract_id=self._keys.contract_id, nonce=self._nonce, block_hash=base58.b58decode(block["hash"]),
            arguments=request_arguments(repo=repo, commit=commit, build_target=build_target, input_data=input_data, limits=limits),
            deposit_yocto=deposit_yocto, signer_id=account_id,
        )  # fmt: skip
        self.rpc("send_tx", {"signed_tx_base64": base64.b64encode(signed).decode(), "wait_until": "NONE"})
        return decode(signed).hash

    def result(self, request_id: int, timeout_seconds: float = 60) -> Result:
        """What the contract's callback got for this request; waits for it.

        Raises:
            Unavailable: no callback within ``timeout_seconds``.
        """
        deadline = time.monotonic() + timeout_seconds
        while (left := deadline - time.monotonic()) > 0:
            told = self._control(f"executions/{request_id}?wait={min(left, 30):.3f}")
            if told["state"] != "pending":
                return Result(
                    told["state"], told["value"], told["error"], told["response"], int(told["charged"]), int(told["refund"]),
                    told["resolved_by"], told["resolved_height"],
                )  # fmt: skip
        raise Unavailable("chain", f"Request {request_id} was not resolved within {timeout_seconds:g} s.")

    def resolves(self) -> list[dict[str, Any]]:
        """Every call of resolve_execution that the chain executed, in order."""
        told: list[dict[str, Any]] = self._control("resolves")
        return told

    def rpc(self, method: str, params: Any) -> Any:
        """One JSON-RPC call's result.

        Raises:
            Refused: the node's error object is in the sentence.
        """
        body = json.dumps({"jsonrpc": "2.0", "id": "client", "method": method, "params": params}).encode()
        reply = self._pool.request("POST", self._url, body=body, headers={"content-type": "application/json"})
        told = reply.json()
        if "error" in told:
            raise Refused(f"{method}: {json.dumps(told['error'])}", status=reply.status)
        return told["result"]

    def control(self, path: str, value: Any) -> Any:
        """POST to a control endpoint."""
        reply = self._pool.request("POST", f"{self._url}/control/{path}", json=value)
        if reply.status >= 400:
            raise Refused(f"/control/{path}: {reply.data.decode()}", status=reply.status)
        return reply.json()

    def close(self) -> None:
        self._pool.clear()

    def _control(self, path: str) -> Any:
        reply = self._pool.request("GET", f"{self._url}/control/{path}")
        if reply.status != 200:
            raise Refused(f"/control/{path} answers {reply.status}.", status=reply.status)
        return reply.json()

    def _raise_failure(self, transaction_hash: str) -> None:
        try:
            told = self.rpc("tx", {"tx_hash": transaction_hash, "sender_account_id": self._account_id, "wait_until": "NONE"})
        except Refused:
            return
        if isinstance(told.get("status"), dict) and "Failure" in told["status"]:
            raise Refused(f"The request was refused: {json.dumps(told['status']['Failure'])}", status=200)
