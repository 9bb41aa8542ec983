"""Ed25519 key pairs in NEAR's notation, and files that only their owner reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]


def base58_text(data: bytes) -> str:
    """base58 of some bytes: by two digits at a time, since every reply of the chain is full of hashes."""
    number, pairs = int.from_bytes(data, "big"), []
    while number:
        number, pair = divmod(number, 3364)
        pairs.append(_PAIRS[pair])
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + "".join(reversed(pairs)).lstrip("1")


@dataclass(frozen=True, repr=False)
class KeyPair:
    """One key pair; its repr shows the public half."""

    public: bytes
    _private: Ed25519PrivateKey
    _seed: bytes

    @staticmethod
    def generate() -> KeyPair:
        return KeyPair._of(os.urandom(32))

    @staticmethod
    def parse(secret: str) -> KeyPair:
        """From ``ed25519:`` + base58 of seed and public key (64 bytes), or of the seed alone.

        Raises:
            ValueError: not such a text, or halves that do not belong together. The text is not in the message.
        """
        kind, _, text = secret.partition(":")
        try:
            raw = base58.b58decode(text)
        except ValueError:
            raw = b""
        if kind != "ed25519" or len(raw) not in (32, 64):
            raise ValueError("a private key is `ed25519:` followed by base58 of 64 bytes")
        pair = KeyPair._of(raw[:32])
        if len(raw) == 64 and raw[32:] != pair.public:
            raise ValueError("the halves of the private key do not belong together")
        return pair

    @staticmethod
    def _of(seed: bytes) -> KeyPair:
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return KeyPair(private.public_key().public_bytes_raw(), private, seed)

    @property
    def public_text(self) -> str:
        return public_text(self.public)

    @property
    def secret_text(self) -> str:
        """The secret itself: for a keys file, nothing else."""
        return "ed25519:" + base58_text(self._seed + self.public)

    def sign(self, message: bytes) -> bytes:
        """64 bytes over ``message``."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"KeyPair({self.public_text})"


@lru_cache(maxsize=4096)
def public_text(public: bytes) -> str:
    """``ed25519:…`` of 32 bytes."""
    return "ed25519:" + base58_text(public)


def is_signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` over ``message`` is of this key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def write_secret(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.rename(path)
