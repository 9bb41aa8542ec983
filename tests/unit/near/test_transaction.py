"""Our encoding against two others: near_api's, and the chain's own crates (py-near-primitives)."""

from __future__ import annotations

import random
from typing import Any

import base58
import py_near_primitives
import pytest
from near_api.signer import KeyPair, Signer
from near_api.transactions import create_function_call_action, sign_and_serialize_transaction
from pydantic import SecretStr

from offchainvm.near.signer import OperatorKey
from offchainvm.near.transaction import BlockRef, FunctionCall, hash_bytes, transaction_hash, with_signature


def random_transaction(chance: random.Random) -> dict[str, Any]:
    account = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=chance.randrange(2, 50))) + ".testnet"
    call = lambda: FunctionCall(  # noqa: E731
        chance.choice(["resolve_execution", "m", "x" * 200]),
        chance.randbytes(chance.choice([0, 1, 700, 1500])),
        chance.choice([0, 30 * 10**12, 2**64 - 1]),
        chance.choice([0, 1, 2**64, 2**128 - 1]),
    )
    return {
        "seed": chance.randbytes(32),
        "signer_id": account,
        "receiver_id": "offchainvm.near",
        "nonce": chance.choice([0, 1, 2**64 - 1, chance.randrange(2**63)]),
        "block_hash": chance.randbytes(32),
        "actions": [call() for _ in range(chance.choice([1, 1, 1, 2, 10]))],
    }


def ours(case: dict[str, Any]) -> Any:
    key = OperatorKey(SecretStr("ed25519:" + base58.b58encode(case["seed"]).decode()))
    block = BlockRef(7, base58.b58encode(case["block_hash"]).decode())
    return key.sign(case["actions"], signer_id=case["signer_id"], receiver_id=case["receiver_id"], nonce=case["nonce"], block=block)


@pytest.mark.parametrize("seed", range(4))
def test_signed_bytes_equal_those_of_near_api(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        case = random_transaction(chance)
        signer = Signer(case["signer_id"], KeyPair(base58.b58encode(case["seed"]).decode()))
        actions = [create_function_call_action(call.method, call.arguments, call.gas, call.deposit_yocto) for call in case["actions"]]
        theirs = sign_and_serialize_transaction(case["receiver_id"], case["nonce"], actions, case["block_hash"], signer)
        assert ours(case).signed == theirs


@pytest.mark.parametrize("seed", range(10, 14))
def test_bytes_and_hash_equal_those_of_the_chains_own_crates(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(1000):
        case = random_transaction(chance)
        mine = ours(case)
        pair = KeyPair(base58.b58encode(case["seed"]).decode())
        theirs = py_near_primitives.Transaction(
            case["signer_id"],
            pair.public_key,
            case["nonce"],
            case["receiver_id"],
            case["block_hash"],
            [py_near_primitives.FunctionCallAction(c.method, c.arguments, c.gas, c.deposit_yocto) for c in case["actions"]],
        )
        assert bytes(theirs.to_vec(case["seed"] + pair.public_key)) == mine.signed
        assert base58.b58encode(bytes(theirs.get_hash())).decode() == mine.hash == transaction_hash(mine.signed)


def test_what_is_stored_says_what_was_signed() -> None:
    case = random_transaction(random.Random(1))
    mine = ours(case)
    assert (mine.nonce, mine.block_height) == (case["nonce"], 7)
    assert mine.public_key.startswith("ed25519:")
    assert "signed=" not in repr(mine)


@pytest.mark.parametrize("text", ["", "0OIl", "1" * 31, base58.b58encode(b"x" * 33).decode()])
def test_hash_of_another_length_or_alphabet_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"32 bytes|Invalid character|haracter"):
        hash_bytes(text)


def test_signature_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        with_signature(b"body", b"short")
