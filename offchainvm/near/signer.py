"""The operator's keys: the only file that sees one.

A key is read once, lives inside near_api's ``KeyPair``, and leaves neither through a repr nor through pickle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NoReturn

import base58
from near_api.signer import KeyPair
from pydantic import SecretStr

from offchainvm.errors import SettingsError
from offchainvm.models import RESOLVE_METHOD
from offchainvm.near.transaction import BlockRef, FunctionCall, SignedTransaction, encode_body, transaction_hash, with_signature

TERAGAS = 10**12
_REMEDY = "Put the key there as `ed25519:…`, as near-cli prints it (base58 of 64 bytes)."


class OperatorKey:
    """One key of the operator's account.

    Args:
        secret: ``ed25519:`` and base58 of 64 bytes (seed and public key), or of the 32 bytes of the seed.
        setting: name of the setting that holds it, for the error text.

    Raises:
        SettingsError: the key cannot be read; names ``setting``, never its value.
    """

    __slots__ = ("_pair", "public_key")

    def __init__(self, secret: SecretStr, *, setting: str = "OPERATOR_PRIVATE_KEY") -> None:
        self._pair = _key_pair(secret, setting)
        self.public_key: str = f"ed25519:{self._pair.encoded_public_key()}"

    def __repr__(self) -> str:
        return f"OperatorKey({self.public_key})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an operator's key does not leave its process")

    def sign_resolves(
        self, arguments: Sequence[bytes], *, operator_id: str, contract_id: str, nonce: int, block: BlockRef, gas: int = 30 * TERAGAS
    ) -> SignedTransaction:
        """One transaction that resolves every one of ``arguments`` (``Payload.arguments``), in their order.

        Args:
            gas: attached to each resolve, in gas (10^12 = 1 TGas).
            block: a recent *final* block: a node that does not know its hash yet answers ``Expired``.
        """
        return self.sign(
            [FunctionCall(RESOLVE_METHOD, item, gas) for item in arguments],
            signer_id=operator_id,
            receiver_id=contract_id,
            nonce=nonce,
            block=block,
        )

    def sign(self, actions: Sequence[FunctionCall], *, signer_id: str, receiver_id: str, nonce: int, block: BlockRef) -> SignedTransaction:
        """One signed transaction with ``actions``."""
        body = encode_body(
            signer_id=signer_id,
            public_key=self._pair.public_key,
            nonce=nonce,
            receiver_id=receiver_id,
            block_hash=block.hash,
            actions=actions,
        )
        signed = with_signature(body, self._pair.sign(hashlib.sha256(body).digest()))
        return SignedTransaction(
            hash=transaction_hash(signed), public_key=self.public_key, nonce=nonce, block_height=block.height, signed=signed
        )


def operator_keys(secrets: Iterable[SecretStr]) -> tuple[OperatorKey, ...]:
    """The keys of ``Settings.operator_keys``, each public key once.

    Raises:
        SettingsError: with every key that cannot be read, by its place in the list.
    """
    keys, problems = dict[str, OperatorKey](), list[str]()
    for place, secret in enumerate(secrets):
        setting = "OPERATOR_PRIVATE_KEY" if place == 0 else f"OPERATOR_PRIVATE_KEY or OPERATOR_PRIVATE_KEYS (key {place + 1} of all)"
        try:
            key = OperatorKey(secret, setting=setting)
        except SettingsError as error:
            problems += error.problems
        else:
            keys[key.public_key] = key
    if problems:
        raise SettingsError(problems)
    return tuple(keys.values())


def _key_pair(secret: SecretStr, setting: str) -> KeyPair:
    problem = ""
    try:
        return _checked_pair(secret.get_secret_value().strip())
    except _Malformed as error:
        problem = str(error)
    # Outside the except block: a chained error could carry the key in its text.
    raise SettingsError([f"{setting}: {problem}. {_REMEDY}"])


class _Malformed(Exception):
    """Why a key cannot be read; its text holds nothing of the key."""


def _checked_pair(text: str) -> KeyPair:
    kind, separator, encoded = text.partition(":")
    if not separator:
        raise _Malformed("has no `ed25519:` in front")
    if kind != "ed25519":
        raise _Malformed("is of a kind other than ed25519, the only one that operators' keys may have")
    try:
        data = base58.b58decode(encoded)
    except ValueError:
        raise _Malformed("is not base58") from None
    if len(data) not in (32, 64):
        raise _Malformed(f"has {len(data)} bytes where a private key has 64 (a public key has 32 and `ed25519:` too)")
    # The seed alone: near_api below Python 3.12 checks the second half itself, and with another error.
    pair = KeyPair(base58.b58encode(data[:32]).decode())
    if len(data) == 64 and data[32:] != pair.public_key:
        raise _Malformed("does not hold together: its second half is not the public key of its first")
    return pair
