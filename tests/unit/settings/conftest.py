"""A whole configuration that holds, as the environment of a process."""

from __future__ import annotations

import base64
import hashlib

import base58
import pytest


@pytest.fixture
def operator_key() -> str:
    """A key of the right shape that no chain knows."""
    return "ed25519:" + base58.b58encode(hashlib.sha512(base64.b16encode(b"made up")).digest()).decode()


@pytest.fixture
def complete(operator_key: str) -> dict[str, str]:
    return {
        "API_BASE_URL": "http://127.0.0.1:8080",
        "API_AUTH_TOKEN": "a-token-of-tests",
        "NEAR_RPC_URL": "http://127.0.0.1:3030",
        "OFFCHAINVM_CONTRACT_ID": "offchainvm.test.near",
        "OPERATOR_ACCOUNT_ID": "operator.test.near",
        "OPERATOR_PRIVATE_KEY": operator_key,
    }
