"""The chain's decoder and the chain's own crates agree, byte for byte (oracle: py-near-primitives)."""

from __future__ import annotations

import random
from typing import Any

import base58
import py_near_primitives as oracle
import pytest

from offchainvm.devnet import borsh
from offchainvm.devnet.keys import KeyPair, base58_text, is_signed_by


def _key(dice: random.Random) -> KeyPair:
    return KeyPair.parse("ed25519:" + base58.b58encode(dice.randbytes(32)).decode())


KEY = _key(random.Random(1))


def _action(dice: random.Random) -> tuple[Any, borsh.Action]:
    kind = dice.randrange(6)
    other = _key(dice)
    if kind == 0:
        deposit = dice.randrange(2**128)
        return oracle.TransferAction(deposit), borsh.Transfer(deposit)
    if kind == 1:
        return oracle.CreateAccountAction(), borsh.CreateAccount()
    if kind == 2:
        return oracle.DeleteKeyAction(other.public), borsh.DeleteKey(other.public_text)
    if kind == 3:
        full = oracle.AccessKey(0, oracle.AccessKeyPermissionFieldless.FullAccess)
        return oracle.AddKeyAction(access_key=full, public_key=other.public), borsh.AddKey(other.public_text, None)
    args = dice.randbytes(dice.randrange(300))
    gas, deposit, name = dice.randrange(2**64), dice.randrange(2**128), "".join(dice.choices("abcé_", k=dice.randrange(1, 20)))
    return oracle.FunctionCallAction(name, args, gas, deposit), borsh.FunctionCall(name, args, gas, deposit)


def _signed(dice: random.Random) -> tuple[bytes, str, dict[str, Any]]:
    pairs = [_action(dice) for _ in range(dice.randrange(4))]
    fields = {"signer_id": "a.near", "nonce": dice.randrange(2**64), "receiver_id": "contract.near", "block_hash": dice.randbytes(32)}
    transaction = oracle.Transaction(
        fields["signer_id"], KEY.public, fields["nonce"], fields["receiver_id"], fields["block_hash"], [theirs for theirs, _ in pairs]
    )
    body = bytes(transaction.serialize())
    signature = KEY.sign(bytes(transaction.get_hash()))
    signed = bytes(oracle.SignedTransaction(signature, transaction).serialize())
    assert signed[: len(body)] == body
    return signed, base58.b58encode(bytes(transaction.get_hash())).decode(), {**fields, "actions": tuple(ours for _, ours in pairs)}


@pytest.mark.parametrize("seed", range(7, 11))
def test_random_transactions_decode_and_encode_as_the_chains_crates_do(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(1000):
        signed, transaction_hash, fields = _signed(dice)
        read = borsh.decode(signed)
        assert {name: getattr(read, name) for name in fields} == fields
        assert read.hash == transaction_hash
        assert is_signed_by(read.public_key, read.signature, read.body_digest)
        assert borsh.sign(key=KEY, **{**fields, "actions": list(fields["actions"])}) == signed


def test_bytes_that_are_not_exactly_one_transaction_are_refused() -> None:
    signed, _, _ = _signed(random.Random(3))
    for wrong in (signed + b"\0", signed[:-1], b"", signed[:40]):
        with pytest.raises(borsh.BorshError):
            borsh.decode(wrong)


@pytest.mark.parametrize("allowance", [None, 10**24])
def test_a_function_call_permission_is_read_as_the_chains_crates_write_it(allowance: int | None) -> None:
    theirs = oracle.AccessKey(0, oracle.FunctionCallPermission("contract.near", ["resolve_execution", "other"], allowance))
    transaction = oracle.Transaction(
        "aa.near", KEY.public, 1, "aa.near", bytes(32), [oracle.AddKeyAction(access_key=theirs, public_key=KEY.public)]
    )
    signed = bytes(oracle.SignedTransaction(KEY.sign(bytes(transaction.get_hash())), transaction).serialize())
    permission = borsh.Permission("contract.near", ("resolve_execution", "other"), allowance)
    assert borsh.decode(signed).actions == (borsh.AddKey(KEY.public_text, permission),)
    again = borsh.sign(
        key=KEY, signer_id="aa.near", nonce=1, receiver_id="aa.near", block_hash=bytes(32), actions=list(borsh.decode(signed).actions)
    )
    assert again == signed


def test_secrets_are_checked_and_never_shown() -> None:
    secret = KEY.secret_text
    assert KeyPair.parse(secret).public == KEY.public
    assert secret.removeprefix("ed25519:") not in repr(KEY)
    for wrong in ("", "ed25519:", "secp256k1:abc", "ed25519:0OIl", "ed25519:" + base58.b58encode(bytes(64)).decode()):
        with pytest.raises(ValueError, match="private key") as caught:
            KeyPair.parse(wrong)
        assert len(wrong) < 10 or wrong not in str(caught.value)


def test_our_base58_is_everybodys() -> None:
    dice = random.Random(5)
    for _ in range(300):
        data = bytes(dice.randrange(4)) + dice.randbytes(dice.randrange(65))
        assert base58_text(data) == base58.b58encode(data).decode()
