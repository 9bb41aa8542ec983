"""The first state of the local chain, and the file with its keys."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offchainvm.devnet.borsh import Permission
from offchainvm.devnet.chain import GENESIS_HEIGHT, Chain
from offchainvm.devnet.contract import Contract
from offchainvm.devnet.keys import KeyPair, write_secret
from offchainvm.devnet.ledger import AccessKey, Account, Ledger
from offchainvm.devnet.validity import Protocol

NETWORK_ID = "devnet"
DEFAULT_CONTRACT_ID = "offchainvm.devnet"
OPERATOR_ID = "operator.devnet"
CLIENT_ID = "client.devnet"
OWNER_ID = "owner.devnet"
NEAR = 10**24


@dataclass(frozen=True, repr=False)
class Keys:
    """Accounts and keys of one local chain. The operator's first key: a function-call key where there is one."""

    contract_id: str = DEFAULT_CONTRACT_ID
    function_call_keys: list[KeyPair] = field(default_factory=lambda: [KeyPair.generate()])
    full_access_keys: list[KeyPair] = field(default_factory=list)
    client_key: KeyPair = field(default_factory=KeyPair.generate)
    outsider_key: KeyPair = field(default_factory=KeyPair.generate)
    """Of an account that is not the operator: what it resolves is refused."""

    @staticmethod
    def generate(*, function_call: int = 1, full_access: int = 0, contract_id: str = DEFAULT_CONTRACT_ID) -> Keys:
        fresh = [KeyPair.generate() for _ in range(function_call + full_access)]
        return Keys(contract_id, fresh[:function_call], fresh[function_call:])

    def as_json(self) -> dict[str, Any]:
        """The keys file: secrets included."""
        operator = {
            "account_id": OPERATOR_ID,
            "function_call_keys": [key.secret_text for key in self.function_call_keys],
            "full_access_keys": [key.secret_text for key in self.full_access_keys],
        }
        return {
            "network_id": NETWORK_ID,
            "contract_id": self.contract_id,
            "operator": operator,
            "client": {"account_id": CLIENT_ID, "private_key": self.client_key.secret_text},
            "outsider": {"account_id": OWNER_ID, "private_key": self.outsider_key.secret_text},
        }

    @staticmethod
    def load(path: Path) -> Keys:
        """Read a keys file."""
        told = json.loads(path.read_text())
        return Keys(
            contract_id=told["contract_id"],
            function_call_keys=[KeyPair.parse(secret) for secret in told["operator"]["function_call_keys"]],
            full_access_keys=[KeyPair.parse(secret) for secret in told["operator"]["full_access_keys"]],
            client_key=KeyPair.parse(told["client"]["private_key"]),
            outsider_key=KeyPair.parse(told["outsider"]["private_key"]),
        )

    def save(self, path: Path) -> None:
        """Write the keys file, mode 0600."""
        write_secret(path, json.dumps(self.as_json(), indent=1))


def genesis(
    keys: Keys, *, protocol: Protocol | None = None, instant: bool = False, standard: str = "near-offshore", lenient: bool = False
) -> Chain:
    """A chain with contract, operator and client, all of them rich."""
    ledger = Ledger()
    only_resolve = Permission(keys.contract_id, ("resolve_execution",))
    operator = {key.public_text: AccessKey(0, only_resolve, GENESIS_HEIGHT) for key in keys.function_call_keys}
    operator |= {key.public_text: AccessKey(0, None, GENESIS_HEIGHT) for key in keys.full_access_keys}
    ledger.accounts = {
        keys.contract_id: Account(100 * NEAR),
        OPERATOR_ID: Account(10_000 * NEAR, operator),
        CLIENT_ID: Account(1_000_000 * NEAR, {keys.client_key.public_text: AccessKey(0, None, GENESIS_HEIGHT)}),
        OWNER_ID: Account(10_000 * NEAR, {keys.outsider_key.public_text: AccessKey(0, None, GENESIS_HEIGHT)}),
    }
    contract = Contract(owner_id=OWNER_ID, operator_id=OPERATOR_ID, standard=standard, lenient=lenient)
    return Chain(ledger=ledger, contract=contract, contract_id=keys.contract_id, protocol=protocol, instant=instant)
