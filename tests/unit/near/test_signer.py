from __future__ import annotations

import copy
import json
import pickle
import traceback

import base58
import pytest
from pydantic import SecretStr

from offchainvm.errors import SettingsError
from offchainvm.near.payload import fit
from offchainvm.near.signer import TERAGAS, OperatorKey, operator_keys
from offchainvm.near.transaction import BlockRef

# The example of RFC 8032, section 7.1, test 1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KEY = "ed25519:" + base58.b58encode(SEED + PUBLIC).decode()
BLOCK = BlockRef(100, base58.b58encode(b"\x07" * 32).decode())


def test_public_key_is_that_of_the_standards_example_for_both_forms_of_the_secret() -> None:
    expected = "ed25519:" + base58.b58encode(PUBLIC).decode()
    seed_only = "ed25519:" + base58.b58encode(SEED).decode()
    assert OperatorKey(SecretStr(KEY)).public_key == OperatorKey(SecretStr(f" {seed_only}\n")).public_key == expected


def test_repr_shows_the_public_key_and_nothing_of_the_secret() -> None:
    key = OperatorKey(SecretStr(KEY))
    for text in (repr(key), str(key), f"{[key]}", f"{vars(type(key))}"):
        assert KEY[8:] not in text
        assert base58.b58encode(SEED).decode() not in text
    assert repr(key) == f"OperatorKey({key.public_key})"


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_key_cannot_leave_its_process(leave: object) -> None:
    with pytest.raises(TypeError, match="does not leave"):
        leave(OperatorKey(SecretStr(KEY)))  # type: ignore[operator]


MISMATCH = "ed25519:" + base58.b58encode(SEED + bytes(32)).decode()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "no `ed25519:`"),
        (KEY[8:], "no `ed25519:`"),
        ("secp256k1:" + KEY[8:], "kind other than ed25519"),
        ("ed25519:" + KEY[8:-1] + "0", "not base58"),
        ("ed25519:", "has 0 bytes"),
        ("ed25519:" + base58.b58encode(SEED + PUBLIC + b"x").decode(), "has 65 bytes"),
        (MISMATCH, "does not hold together"),
        ("ed25519:ключ", "not base58"),
    ],
)
def test_malformed_key_is_named_by_its_setting_and_never_shown(value: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        OperatorKey(SecretStr(value))
    shown = "".join(traceback.format_exception(caught.value))
    assert "OPERATOR_PRIVATE_KEY" in str(caught.value)
    assert caught.value.__context__ is None
    assert len(value) < 9 or value[8:] not in shown


def test_several_keys_report_each_bad_one_by_its_place_and_drop_repeats() -> None:
    other = "ed25519:" + base58.b58encode(b"\x01" * 32).decode()
    assert [key.public_key for key in operator_keys([SecretStr(KEY), SecretStr(other), SecretStr(KEY)])] == [
        OperatorKey(SecretStr(KEY)).public_key,
        OperatorKey(SecretStr(other)).public_key,
    ]
    with pytest.raises(SettingsError) as caught:
        operator_keys([SecretStr("nonsense"), SecretStr(other), SecretStr("ed25519:1")])
    assert len(caught.value.problems) == 2
    assert "key 3" in caught.value.problems[1]


def test_resolves_are_signed_in_their_order_as_calls_without_deposit(response_texts: list[bytes]) -> None:
    py_near_primitives = pytest.importorskip("py_near_primitives")
    signed = OperatorKey(SecretStr(KEY)).sign_resolves(
        response_texts, operator_id="operator.testnet", contract_id="offchainvm.testnet", nonce=100_000_001, block=BLOCK
    )
    transaction = py_near_primitives.Transaction.deserialize(signed.signed[:-65])
    assert (transaction.signer_id, transaction.receiver_id, transaction.nonce) == ("operator.testnet", "offchainvm.testnet", 100_000_001)
    places = [signed.signed.index(text) for text in response_texts]
    assert places == sorted(places)
    assert signed.signed.count(b"resolve_execution") == len(response_texts)
    assert signed.signed.count((30 * TERAGAS).to_bytes(8, "little") + bytes(16)) == len(response_texts)
    assert (signed.block_height, signed.nonce) == (100, 100_000_001)


@pytest.fixture
def response_texts() -> list[bytes]:
    from offchainvm.models import ExecutionResponse

    texts = [fit(f"{number:064x}", ExecutionResponse(success=True, return_value=b"x")).arguments for number in range(3)]
    assert all(json.loads(text) for text in texts)
    return texts
