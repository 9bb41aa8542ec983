"""A chain in memory, driven block by block."""

from __future__ import annotations

import json
from typing import Any

import pytest

from offchainvm.devnet.borsh import Action, FunctionCall, Transaction, decode, sign
from offchainvm.devnet.chain import Chain
from offchainvm.devnet.client import request_arguments, sign_request
from offchainvm.devnet.genesis import OPERATOR_ID, OWNER_ID, Keys, genesis
from offchainvm.devnet.keys import KeyPair
from offchainvm.devnet.records import TransactionRecord

USED = {"instructions": 5_999_999, "memory_bytes": 3 * 2**20 - 1, "time_seconds": 2}


class World:
    """A chain with its keys, and the shortest way to ask and to answer."""

    def __init__(self, chain: Chain, keys: Keys) -> None:
        self.chain = chain
        self.keys = keys
        self.nonces: dict[str, int] = {}

    def nonce(self, key: KeyPair) -> int:
        self.nonces[key.public_text] = self.nonces.get(key.public_text, 0) + 1
        return self.nonces[key.public_text]

    def blocks(self, count: int) -> None:
        for _ in range(count):
            self.chain.produce()

    def request(self, *, deposit: int = 10**24, **told: Any) -> Transaction:
        """Submit a request; it lands with the next block."""
        arguments = request_arguments(**{"repo": "o/n", "commit": "main", **told})
        key, block = self.keys.client_key, self.chain.node().final
        signed = sign_request(
            key=key,
            contract_id=self.chain.contract_id,
            nonce=self.nonce(key),
            block_hash=block.digest,
            arguments=arguments,
            deposit_yocto=deposit,
        )
        return self._submit(signed)

    def requested(self, **told: Any) -> bytes:
        """The data id of a request that was executed."""
        self.request(**told)
        self.blocks(0 if self.chain.instant else 2)
        return bytes.fromhex(list(self.chain.runtime.executions.values())[-1]["data_id"])

    def call(self, data_id: bytes, *, gas: int = 30 * 10**12, **response: Any) -> FunctionCall:
        told = {"success": True, "return_value": list(b"hi"), "error": None, "resources_used": USED, **response}
        return FunctionCall("resolve_execution", json.dumps({"data_id": list(data_id), "response": told}).encode(), gas, 0)

    def send(
        self, *actions: Action, key: KeyPair | None = None, nonce: int | None = None, signer: str = "", receiver: str = "", **more: Any
    ) -> Transaction:
        """Submit a transaction of the operator."""
        key = key or self.keys.full_access_keys[0]
        signer = signer or (OWNER_ID if key is self.keys.outsider_key else OPERATOR_ID)
        fields = {"block_hash": self.chain.node().final.digest, "receiver_id": receiver or self.chain.contract_id, **more}
        return self._submit(sign(key=key, signer_id=signer, nonce=nonce or self.nonce(key), actions=list(actions), **fields))

    def _submit(self, signed: bytes) -> Transaction:
        transaction = decode(signed)
        self.chain.submit(transaction)
        return transaction

    def record(self, transaction: Transaction) -> TransactionRecord:
        return self.chain.transactions[transaction.hash]

    def failure(self, transaction: Transaction) -> str:
        """The text of a failed first (or only failing) call."""
        status = self.record(transaction).status()
        return str(status["Failure"]["ActionError"]["kind"]["FunctionCallError"]["ExecutionError"])


@pytest.fixture
def world() -> World:
    keys = Keys.generate(function_call=1, full_access=1)
    return World(genesis(keys), keys)


@pytest.fixture
def instant_world() -> World:
    keys = Keys.generate(function_call=1, full_access=1)
    return World(genesis(keys, instant=True), keys)
