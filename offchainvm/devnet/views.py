"""Blocks and protocol settings in the node's JSON, and in the block service's (neardata.xyz)."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from offchainvm.devnet.chain import Chain, NodeView
from offchainvm.devnet.records import Block, transaction_json
from offchainvm.devnet.validity import Protocol

_ZERO_HASH = "1" * 32
_SIGNATURE = "ed25519:" + "1" * 64
_VALIDATOR = "validator.devnet"
_CHUNK_GAS_LIMIT = 1_000_000_000_000_000


def header(block: Block, chain: Chain) -> dict[str, Any]:
    """``BlockHeaderView``; what a chain without validators has no value for is zero."""
    final = chain.blocks[max(block.ordinal - 2, 0)].hash if chain.blocks else block.hash
    zeros = (
        "prev_state_root", "block_merkle_root", "block_body_hash", "chunk_headers_root", "chunk_receipts_root", "chunk_tx_root",
        "outcome_root", "challenges_root", "random_value", "next_bp_hash", "epoch_id", "next_epoch_id",
    )  # fmt: skip
    return {
        **dict.fromkeys(zeros, _ZERO_HASH),
        "height": block.height, "hash": block.hash, "prev_hash": block.prev_hash, "prev_height": block.prev_height,
        "timestamp": block.timestamp_ns, "timestamp_nanosec": str(block.timestamp_ns), "block_ordinal": block.ordinal,
        "chunks_included": 1, "chunk_mask": [True], "gas_price": str(chain.protocol.gas_price), "rent_paid": "0", "validator_reward": "0",
        "total_supply": "1000000000000000000000000000000000", "challenges_result": [], "validator_proposals": [], "approvals": [],
        "last_final_block": final, "last_ds_final_block": final, "latest_protocol_version": chain.protocol.version,
        "signature": _SIGNATURE, "epoch_sync_data_hash": None, "shard_split": None, "chunk_endorsements": None,
    }  # fmt: skip


def chunk_header(block: Block) -> dict[str, Any]:
    """``ChunkHeaderView`` of the only shard."""
    zeros = ("prev_block_hash", "prev_state_root", "outcome_root", "encoded_merkle_root", "outgoing_receipts_root", "tx_root")
    gas_used = sum(outcome.gas_burnt for _, outcome in block.executed)
    return {
        **dict.fromkeys(zeros, _ZERO_HASH),
        "chunk_hash": block.hash, "prev_block_hash": block.prev_hash, "encoded_length": 8, "height_created": block.height,
        "height_included": block.height, "shard_id": 0, "gas_used": gas_used, "gas_limit": _CHUNK_GAS_LIMIT, "rent_paid": "0",
        "validator_reward": "0", "balance_burnt": "0", "validator_proposals": [], "signature": _SIGNATURE, "congestion_info": None,
        "bandwidth_requests": None,
    }  # fmt: skip


def block_json(block: Block, chain: Chain) -> dict[str, Any]:
    """Result of the RPC's ``block``."""
    return {"author": _VALIDATOR, "header": header(block, chain), "chunks": [chunk_header(block)]}


def service_block(block: Block, chain: Chain) -> bytes:
    """The block as the block service has it: with every receipt that was executed in it, outcome and transaction hash beside."""
    if block.cached_json is None:
        executed = [
            {"execution_outcome": outcome.as_json(), "receipt": receipt.as_json(), "tx_hash": receipt.record.transaction.hash}
            for receipt, outcome in block.executed
        ]
        transactions = [
            {
                "transaction": transaction_json(record.transaction),
                "outcome": {"execution_outcome": record.outcome.as_json(), "receipt": None},
            }
            for record in block.transactions
        ]
        receipts = [record.receipts[0].as_json() for record in block.transactions if record.receipts]
        chunk = {"author": _VALIDATOR, "header": chunk_header(block), "receipts": receipts, "transactions": transactions}
        shard = {"shard_id": 0, "chunk": chunk, "receipt_execution_outcomes": executed, "state_changes": []}
        value = {"block": block_json(block, chain), "shards": [shard]}
        block.cached_json = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return block.cached_json


def status(node: NodeView, listen_address: str) -> dict[str, Any]:
    """Result of the RPC's ``status``."""
    head, first = node.head, node.chain.blocks[0]
    sync = {
        "latest_block_hash": head.hash, "latest_block_height": head.height, "latest_state_root": _ZERO_HASH,
        "latest_block_time": _when(head),
        "syncing": False, "earliest_block_hash": first.hash, "earliest_block_height": first.height, "earliest_block_time": _when(first),
        "epoch_id": _ZERO_HASH, "epoch_start_height": first.height,
    }  # fmt: skip
    return {
        "version": {"version": "devnet", "build": "devnet", "commit": "devnet", "rustc_version": "none"}, "chain_id": "devnet",
        "protocol_version": node.chain.protocol.version, "latest_protocol_version": node.chain.protocol.version,
        "rpc_addr": listen_address, "validators": [{"account_id": _VALIDATOR}], "sync_info": sync, "validator_account_id": None,
        "validator_public_key": None, "node_public_key": "ed25519:" + _ZERO_HASH, "node_key": None,
        "uptime_sec": max((head.timestamp_ns - first.timestamp_ns) // 10**9, 0), "genesis_hash": first.hash, "detailed_debug_status": None,
    }  # fmt: skip


def _when(block: Block) -> str:
    return datetime.fromtimestamp(block.timestamp_ns / 1e9, tz=timezone.utc).isoformat().replace("+00:00", "Z")


def protocol_config(protocol: Protocol, first: Block) -> dict[str, Any]:
    """Result of ``EXPERIMENTAL_protocol_config``: what bounds a client, in its real places."""
    limits = {
        "max_gas_burnt": 300_000_000_000_000,
        "max_total_prepaid_gas": protocol.max_total_prepaid_gas,
        "max_actions_per_receipt": protocol.max_actions,
        "max_transaction_size": protocol.max_transaction_bytes,
        "max_receipt_size": 4_194_304,
        "max_number_logs": 100,
        "max_total_log_length": protocol.max_log_bytes,
        "max_arguments_length": 4_194_304,
        "max_length_method_name": 256,
        "max_yield_payload_size": protocol.max_yield_payload_bytes,
        "yield_timeout_length_in_blocks": protocol.yield_timeout_blocks,
    }
    return {
        "protocol_version": protocol.version, "genesis_time": _when(first), "chain_id": "devnet", "genesis_height": first.height,
        "transaction_validity_period": protocol.validity_period_blocks, "epoch_length": 43_200, "gas_limit": _CHUNK_GAS_LIMIT,
        "min_gas_price": str(protocol.gas_price), "max_gas_price": "10000000000000000000000", "num_block_producer_seats": 1,
        "runtime_config": {"storage_amount_per_byte": "10000000000000000000", "wasm_config": {"limit_config": limits}},
    }  # fmt: skip
