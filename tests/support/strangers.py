"""The local chain for other people's clients: what they ask, and what it must have come to."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import base58
import urllib3

from offchainvm.devnet.borsh import Action, Transfer, sign
from offchainvm.devnet.client import DevnetClient
from offchainvm.devnet.genesis import CLIENT_ID, OPERATOR_ID, Keys
from offchainvm.devnet.keys import KeyPair

REQUEST: dict[str, Any] = {
    "code_source": {"repo": "https://github.com/a/b", "commit": "c" * 40, "build_target": "wasm32-wasip1"},
    "resource_limits": None,
    "input_data": '{"é":1}',
}
_USED = {"instructions": 5, "memory_bytes": 65536, "time_seconds": 0}


@dataclass
class Chain:
    """``limited_key`` may call resolve_execution alone; ``stranger_key`` is no key of the operator's."""

    url: str
    keys: Keys
    client: DevnetClient
    _given: dict[str, int] = field(default_factory=dict)
    """The nonce given last, by public key: a transaction that still waits for its block has used one that the chain does not tell yet."""

    @property
    def contract_id(self) -> str:
        return self.keys.contract_id

    @property
    def client_key(self) -> str:
        return self.keys.client_key.secret_text

    @property
    def limited_key(self) -> str:
        return self.keys.function_call_keys[0].secret_text

    @property
    def stranger_key(self) -> str:
        return self.keys.outsider_key.secret_text

    def rpc(self, method: str, params: Any) -> dict[str, Any]:
        """One call's whole reply."""
        call = {"jsonrpc": "2.0", "id": "1", "method": method, "params": params}
        reply: dict[str, Any] = urllib3.request("POST", self.url, json=call).json()
        return reply

    def nonce(self, account_id: str = CLIENT_ID, key: KeyPair | None = None) -> int:
        """Of a key, by default the user's, as of the newest block."""
        asked = {"account_id": account_id, "public_key": (key or self.keys.client_key).public_text}
        told = self.rpc("query", {"request_type": "view_access_key", "finality": "optimistic", **asked})
        return int(told["result"]["nonce"])

    def signed(
        self, *actions: Action, key: KeyPair | None = None, signer_id: str = CLIENT_ID, receiver_id: str = OPERATOR_ID,
        nonce: int | None = None, block_hash: bytes | None = None,
    ) -> str:  # fmt: skip
        """A transaction in base64, by default the user's transfer; with the key's next nonce and the final block's hash."""
        key = key or self.keys.client_key
        signed = sign(
            key=key,
            signer_id=signer_id,
            nonce=self._next_nonce(signer_id, key) if nonce is None else nonce,
            receiver_id=receiver_id,
            block_hash=block_hash or base58.b58decode(self.rpc("block", {"finality": "final"})["result"]["header"]["hash"]),
            actions=list(actions) or [Transfer(1)],
        )
        return base64.b64encode(signed).decode()

    def _next_nonce(self, account_id: str, key: KeyPair) -> int:
        last = max(self.nonce(account_id, key), self._given.get(key.public_text, 0))
        self._given[key.public_text] = last + 1
        return last + 1

    def value_of(self, request_id: int) -> str | None:
        """What the contract's callback got; waits for it."""
        return self.client.result(request_id, timeout_seconds=20).value


def requested(logs: list[str]) -> tuple[int, list[int]]:
    """Request id and data id that a request's log announces."""
    [log] = [log for log in logs if log.startswith("EVENT_JSON:")]
    [element] = json.loads(log.removeprefix("EVENT_JSON:"))["data"]
    return json.loads(element["request_data"])["request_id"], element["data_id"]


def answer(data_id: list[int], text: str) -> dict[str, Any]:
    """Arguments of resolve_execution."""
    response = {"success": True, "return_value": list(text.encode()), "error": None, "resources_used": _USED}
    return {"data_id": data_id, "response": response}
