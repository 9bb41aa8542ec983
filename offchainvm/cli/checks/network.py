"""Whether all names are of one network: the accounts, the RPC endpoint, the block service."""

from __future__ import annotations

from offchainvm.cli.checks.needs import need, rpc_with
from offchainvm.errors import OffchainVMError
from offchainvm.near.rpc import Rpc, ViewFailed
from offchainvm.near.transport import host_of
from offchainvm.settings import load_only

_NETWORKS = {".near": "mainnet", ".testnet": "testnet"}


def check_network() -> str:
    """The contract is on the chain that NEAR_RPC_URL names, and no account is by its name of another one."""
    rpc, settings = rpc_with("near_rpc_url", "offchainvm_contract_id")
    chain, contract_id = rpc.chain_id(), settings.offchainvm_contract_id
    operator_id = load_only(["operator_account_id"]).operator_account_id
    for name, account_id in (("OFFCHAINVM_CONTRACT_ID", contract_id), ("OPERATOR_ACCOUNT_ID", operator_id)):
        if _differ(_network_of(account_id), chain):
            raise OffchainVMError(
                f"{account_id} is an account of {_network_of(account_id)}, and {rpc.endpoint} serves {chain}.",
                remedy=f"Correct {name} or NEAR_RPC_URL.",
            )
    try:
        rpc.view_account(contract_id)
    except ViewFailed:
        raise OffchainVMError(f"{contract_id} is not on {chain}.", remedy="Correct OFFCHAINVM_CONTRACT_ID or NEAR_RPC_URL.") from None
    return f"{contract_id} is on {chain}"


def check_block_service() -> str:
    """The block service is that of the contract's network, as far as its host tells."""
    settings = need("offchainvm_contract_id", "neardata_api_url")
    host = host_of(settings.neardata_api_url)
    served = next((network for network in _NETWORKS.values() if network in host), "")
    wanted = _network_of(settings.offchainvm_contract_id) or _chain_id()
    if _differ(served, wanted):
        raise OffchainVMError(
            f"{host} serves blocks of {served}, and {settings.offchainvm_contract_id} is on {wanted}.",
            remedy="Correct NEARDATA_API_URL or OFFCHAINVM_CONTRACT_ID.",
        )
    return f"{host} ({served})" if served else f"{host}: its name tells no network"


def _network_of(account_id: str) -> str:
    """Empty where the name tells none: an implicit account, or that of a local chain."""
    return next((network for suffix, network in _NETWORKS.items() if account_id.endswith(suffix)), "")


def _chain_id() -> str:
    """What the chain says of itself; empty without an RPC endpoint."""
    settings = load_only(["near_rpc_url", "ca_bundle"])
    return Rpc(settings.near_rpc_url, ca_bundle=settings.ca_bundle).chain_id() if settings.near_rpc_url else ""


def _differ(one: str, other: str) -> bool:
    """Both are known, and are two networks."""
    return bool(one and other) and one != other
