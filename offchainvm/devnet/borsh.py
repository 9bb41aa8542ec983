"""Borsh of a NEAR ``SignedTransaction`` (V0), read and written by our own code.

Layout: ``core/primitives/src/{transaction,action}`` of nearcore; integers are little-endian, texts and lists carry a u32
length, enums a u8 tag. Trailing bytes are refused, as the node refuses them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import base58

from offchainvm.devnet.keys import KeyPair, base58_text, public_text

SIGNATURE_BYTES = 65


@dataclass(frozen=True)
class FunctionCall:
    method_name: str
    args: bytes
    gas: int
    deposit: int


@dataclass(frozen=True)
class Transfer:
    deposit: int


@dataclass(frozen=True)
class CreateAccount:
    pass


@dataclass(frozen=True)
class Permission:
    """What a function-call key may do; ``allowance`` in yoctoNEAR, None = without bound; no method names = all methods."""

    receiver_id: str
    method_names: tuple[str, ...] = ()
    allowance: int | None = None


@dataclass(frozen=True)
class AddKey:
    public_key: str
    permission: Permission | None
    """None = full access."""


@dataclass(frozen=True)
class DeleteKey:
    public_key: str


Action = FunctionCall | Transfer | CreateAccount | AddKey | DeleteKey


@dataclass(frozen=True)
class Transaction:
    """One signed transaction; ``hash`` is base58 of sha256 over its body."""

    signer_id: str
    public_key: bytes
    nonce: int
    receiver_id: str
    block_hash: bytes
    actions: tuple[Action, ...]
    signature: bytes
    size_bytes: int
    body_digest: bytes
    hash: str

    @property
    def public_key_text(self) -> str:
        return public_text(self.public_key)


class BorshError(ValueError):
    """The bytes are no signed transaction."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at(self) -> int:
        return self._at

    def take(self, count: int) -> bytes:
        chunk = self._data[self._at : self._at + count]
        if len(chunk) != count:
            raise BorshError("Unexpected length of input")
        self._at += count
        return chunk

    def integer(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def octets(self) -> bytes:
        return self.take(self.integer(4))

    def text(self) -> str:
        try:
            return self.octets().decode()
        except UnicodeDecodeError as error:
            raise BorshError(str(error)) from None

    def option(self, count: int) -> int | None:
        tag = self.integer(1)
        if tag > 1:
            raise BorshError("Unexpected variant tag")
        return self.integer(count) if tag else None

    def ed25519(self, count: int) -> bytes:
        if self.integer(1) != 0:
            raise BorshError("the local chain knows ed25519 only")
        return self.take(count)

    def end(self) -> None:
        if self._at != len(self._data):
            raise BorshError("Not all bytes read")


def _function_call(reader: _Reader) -> FunctionCall:
    return FunctionCall(reader.text(), reader.octets(), reader.integer(8), reader.integer(16))


def _add_key(reader: _Reader) -> AddKey:
    public_key = public_text(reader.ed25519(32))
    reader.integer(8)  # the nonce in the action is ignored: the chain sets its own
    tag = reader.integer(1)
    if tag == 1:
        return AddKey(public_key, None)
    if tag != 0:
        raise BorshError("Unexpected variant tag")
    allowance, receiver_id = reader.option(16), reader.text()
    return AddKey(public_key, Permission(receiver_id, tuple(reader.text() for _ in range(reader.integer(4))), allowance))


_ACTIONS: dict[int, Callable[[_Reader], Action]] = {
    0: lambda _: CreateAccount(),
    2: _function_call,
    3: lambda reader: Transfer(reader.integer(16)),
    5: _add_key,
    6: lambda reader: DeleteKey(public_text(reader.ed25519(32))),
}


def _action(reader: _Reader) -> Action:
    tag = reader.integer(1)
    if tag not in _ACTIONS:
        raise BorshError(f"the local chain does not know actions of tag {tag}")
    return _ACTIONS[tag](reader)


def decode(untrusted_bytes: bytes) -> Transaction:
    """Read one signed transaction.

    Raises:
        BorshError: anything but exactly one V0 transaction with ed25519 keys and actions known here.
    """
    reader = _Reader(untrusted_bytes)
    signer_id, public_key, nonce = reader.text(), reader.ed25519(32), reader.integer(8)
    receiver_id, block_hash = reader.text(), reader.take(32)
    actions = tuple(_action(reader) for _ in range(reader.integer(4)))
    digest = hashlib.sha256(untrusted_bytes[: reader.at]).digest()
    signature = reader.ed25519(64)
    reader.end()
    return Transaction(
        signer_id=signer_id,
        public_key=public_key,
        nonce=nonce,
        receiver_id=receiver_id,
        block_hash=block_hash,
        actions=actions,
        signature=signature,
        size_bytes=len(untrusted_bytes),
        body_digest=digest,
        hash=base58_text(digest),
    )


def _text(value: str) -> bytes:
    return _octets(value.encode())


def _octets(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little") + value


def _encoded(action: Action) -> bytes:
    if isinstance(action, FunctionCall):
        gas_and_deposit = action.gas.to_bytes(8, "little") + action.deposit.to_bytes(16, "little")
        return b"\x02" + _text(action.method_name) + _octets(action.args) + gas_and_deposit
    if isinstance(action, Transfer):
        return b"\x03" + action.deposit.to_bytes(16, "little")
    if isinstance(action, CreateAccount):
        return b"\x00"
    key = b"\x00" + base58.b58decode(action.public_key.removeprefix("ed25519:"))
    if isinstance(action, DeleteKey):
        return b"\x06" + key
    return b"\x05" + key + bytes(8) + _permission(action.permission)


def _permission(permission: Permission | None) -> bytes:
    if permission is None:
        return b"\x01"
    allowance = b"\x00" if permission.allowance is None else b"\x01" + permission.allowance.to_bytes(16, "little")
    names = len(permission.method_names).to_bytes(4, "little") + b"".join(_text(name) for name in permission.method_names)
    return b"\x00" + allowance + _text(permission.receiver_id) + names


def sign(*, key: KeyPair, signer_id: str, nonce: int, receiver_id: str, block_hash: bytes, actions: list[Action]) -> bytes:
    """The bytes of a signed transaction, for the local client."""
    body = b"".join(
        [
            _text(signer_id), b"\x00" + key.public, nonce.to_bytes(8, "little"), _text(receiver_id), block_hash,
            len(actions).to_bytes(4, "little"), *(_encoded(action) for action in actions),
        ]
    )  # fmt: skip
    return body + b"\x00" + key.sign(hashlib.sha256(body).digest())
