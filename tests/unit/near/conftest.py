"""What the tests of this room share: answers of a node as nodes give them, and blocks as the block service gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

CONTRACT = "offchainvm.testnet"


class Answers:
    """Builds ``tx`` answers in the shapes of nearcore."""

    def tx(self, status: Any, *, stage: str = "FINAL", receipts: int = 1) -> dict[str, Any]:
        outcome = {"logs": [], "receipt_ids": ["R1"], "gas_burnt": 308_000_000_000, "tokens_burnt": "30800000000000000000"}
        first = {"proof": [], "block_hash": "BlockOfTx", "id": "Hash", "outcome": {**outcome, "status": {"SuccessReceiptId": "R1"}}}
        receipt = {"proof": [], "block_hash": "BlockOfReceipt", "id": "R1", "outcome": {**outcome, "status": status}}
        return {
            "final_execution_status": stage,
            "status": status,
            "transaction": {"signer_id": "operator.testnet", "nonce": 1, "hash": "Hash", "actions": []},
            "transaction_outcome": first,
            "receipts_outcome": [receipt] * receipts,
        }

    def action_error(self, index: int | None, kind: Any) -> dict[str, Any]:
        return {"Failure": {"ActionError": {"index": index, "kind": kind}}}

    def panic(self, index: int | None, text: str) -> dict[str, Any]:
        return self.action_error(index, {"FunctionCallError": {"ExecutionError": f"Smart contract panicked: {text}"}})


@pytest.fixture
def answers() -> Answers:
    return Answers()


class Blocks:
    """Builds blocks of the block service."""

    contract = CONTRACT

    def event(self, *elements: Any, standard: str = "near-offshore", event: str = "execution_requested") -> str:
        body = {"standard": standard, "version": "1.0.0", "event": event, "data": list(elements)}
        return "EVENT_JSON:" + json.dumps(body)

    def element(self, number: int = 1, **changed: Any) -> dict[str, Any]:
        request = {
            "request_id": number,
            "sender_id": "alice.testnet",
            "code_source": {"repo": "owner/name", "commit": "main", "build_target": "wasm32-wasip1"},
            "resource_limits": {"max_instructions": 10**9, "max_memory_mb": 128, "max_execution_seconds": 60},
            "input_data": '{"é":1}',
            "payment": "100000000000000000000000",
            "timestamp": 1_700_000_000_000_000_000,
        }
        return {"request_data": json.dumps({**request, **changed}), "data_id": [number] * 32, "timestamp": 1_700_000_000_000_000_000}

    def receipt(self, *logs: str, receiver: str = CONTRACT, status: Any = None) -> dict[str, Any]:
        outcome = {"logs": list(logs), "status": {"SuccessValue": ""} if status is None else status, "gas_burnt": 1}
        return {
            "receipt": {"receiver_id": receiver, "receipt_id": "Receipt1", "predecessor_id": "alice.testnet"},
            "execution_outcome": {"block_hash": "B", "id": "Receipt1", "outcome": outcome},
            "tx_hash": "Tx1",
        }

    def block(self, *receipts: Any, height: int = 100) -> Any:
        from offchainvm.near.blocks import Block

        shards = [{"shard_id": 0, "receipt_execution_outcomes": []}, {"shard_id": 1, "receipt_execution_outcomes": list(receipts)}]
        return Block(height=height, hash="H", prev_hash="P", untrusted_shards=shards)


@pytest.fixture
def blocks() -> Blocks:
    return Blocks()
