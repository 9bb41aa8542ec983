"""Whether the chain answers, and takes what the operator signs."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence

from offchainvm.bridge.watch import Lag, look_at_watch
from offchainvm.cli.checks.needs import NotLookedAt, need, rpc_with
from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.jobs.connection import connect
from offchainvm.jobs.overview import spent_lately
from offchainvm.models import RESOLVE_METHOD
from offchainvm.near.blocks import BlockService
from offchainvm.near.heights import height_sources, newest_height
from offchainvm.near.nonces import REFUSED, Nonces
from offchainvm.near.rpc import Rpc
from offchainvm.near.rpc_answers import AccessKey
from offchainvm.near.signer import operator_keys
from offchainvm.redis_calls import reaching_redis
from offchainvm.settings import Settings, load_only

_NEAR = 10**24
_DAY_SECONDS = 86_400
_FEW_DAYS = 3
_TGAS_YOCTO = 10**12 * 10**8
"""Price of a TGas: the chain's least, which it has had for years."""
_PRICED_BY = ("key_window", "resolve_gas_tgas", "redis_url")
_ANOTHER_KEY = "Add a key with a larger allowance, then take this one out: an allowance cannot be raised (docs/costs.md)."


def check_rpc() -> str:
    """The chain answers by RPC."""
    rpc = rpc_with("near_rpc_url")[0]
    return f"{rpc.endpoint}: {rpc.chain_id()}, final height {rpc.final_block().height}"


def check_access_keys() -> str:
    """Each key of the operator is on the account, may call the contract, and has an allowance for it."""
    rpc, settings = rpc_with(
        "near_rpc_url", "operator_account_id", "offchainvm_contract_id", "operator_private_key", also=["operator_private_keys", *_PRICED_BY]
    )
    keys = {key.public_key: _on_chain(rpc, settings.operator_account_id, key.public_key) for key in operator_keys(settings.operator_keys)}
    told = "; ".join(f"{public_key[:16]}… {_permission(key, settings.offchainvm_contract_id)}" for public_key, key in keys.items())
    _check_allowances([(name, key.allowance_yocto) for name, key in keys.items()], settings)
    return told


def _on_chain(rpc: Rpc, account_id: str, public_key: str) -> AccessKey:
    key = rpc.access_key(account_id, public_key)
    if key is None:
        raise OffchainVMError(
            f"{account_id} has no key {public_key}.", remedy="Add the key to the account, or correct OPERATOR_PRIVATE_KEY."
        )
    return key


def _check_allowances(left: Sequence[tuple[str, int | None]], settings: Settings) -> None:
    """Raises: OffchainVMError: a key has not the gas for all transactions that it may have in flight; or all together end soon."""
    needed = settings.key_window * settings.resolve_gas_tgas * _TGAS_YOCTO
    short = [f"{name} has {allowance / _NEAR:.4f} NEAR" for name, allowance in left if allowance is not None and allowance < needed]
    if short:
        raise OffchainVMError(
            f"An allowance is used up, or nearly so: {', '.join(short)} left, and {settings.key_window} transactions in flight "
            f"need {needed / _NEAR:.4f} NEAR (KEY_WINDOW × RESOLVE_GAS_TGAS).",
            remedy=_ANOTHER_KEY,
        )
    limited = [allowance for _, allowance in left if allowance is not None]
    a_day = _spent_a_day(settings.redis_url) if len(limited) == len(left) else 0.0
    if a_day and sum(limited) / a_day < _FEW_DAYS:
        raise OffchainVMError(
            f"The allowances of all keys together last for {sum(limited) / a_day:.1f} days at the rate of today and yesterday "
            f"({sum(limited) / _NEAR:.3f} NEAR left, {a_day / _NEAR:.4f} NEAR a day).",
            remedy=_ANOTHER_KEY,
        )


def _permission(key: AccessKey, contract_id: str) -> str:
    """What a key may do, in words.

    Raises:
        OffchainVMError: it may not resolve.
    """
    if key.full_access:
        return "full access (a key restricted to resolve_execution is safer)"
    if not key.may_call(contract_id, RESOLVE_METHOD):
        raise OffchainVMError(
            f"A key may call {key.receiver_id} ({', '.join(key.methods) or 'all methods'}) alone: not {RESOLVE_METHOD} of {contract_id}.",
            remedy=f"Add a key for {RESOLVE_METHOD} of {contract_id}.",
        )
    allowance = "without limit" if key.allowance_yocto is None else f"{key.allowance_yocto / _NEAR:.3f} NEAR left"
    return f"function-call key, allowance {allowance}"


def check_held_keys() -> str:
    """The chain takes what the operator's keys sign."""
    rpc, settings = rpc_with("near_rpc_url", "operator_account_id", "redis_url")
    with reaching_redis(), connect(settings.redis_url) as client:
        held = Nonces(client, network=rpc.chain_id(), account_id=settings.operator_account_id).held()
    told = "\n".join(f"{public_key}: {reason}" for public_key, reason in sorted(held.items()))
    if any(reason.startswith(REFUSED) for reason in held.values()):
        raise OffchainVMError(told, remedy="Correct the key or the setting, then restart the resolve worker; see docs/keys.md.")
    return told or "no key is held"


def check_balance() -> str:
    """The operator can pay for its transactions, and for how many days at the rate of late."""
    rpc, settings = rpc_with("near_rpc_url", "operator_account_id", "redis_url")
    balance = int(rpc.view_account(settings.operator_account_id)["amount"])
    a_day = _spent_a_day(settings.redis_url)
    days = balance / a_day if a_day else math.inf
    told = f"{balance / _NEAR:.3f} NEAR"
    if a_day:
        told += f", enough for {days:.1f} days at the rate of today and yesterday ({a_day / _NEAR:.4f} NEAR a day)"
    if balance < _NEAR or days < _FEW_DAYS:
        raise OffchainVMError(
            f"{settings.operator_account_id} has {told}.", remedy="Top up OPERATOR_ACCOUNT_ID: without a balance no answer gets on chain."
        )
    return told


def _spent_a_day(redis_url: str) -> float:
    """yoctoNEAR; 0 where nothing was spent, or Redis is away (its own row says so)."""
    with contextlib.suppress(Unavailable), connect(redis_url) as client:
        spent, seconds = spent_lately(client)
        return spent / seconds * _DAY_SECONDS
    return 0.0


def check_monitor() -> str:
    """An event monitor watches the contract, and keeps up with the chain."""
    settings = need("offchainvm_contract_id", "redis_url", "neardata_api_url")
    with connect(settings.redis_url) as client:
        holder, cursor = look_at_watch(client, settings.offchainvm_contract_id)
    if cursor is None:
        raise NotLookedAt("no event monitor ever watched this contract (the Coordinator may do so itself)")
    lag = Lag.of(cursor, newest_height(_height_sources()))
    told = f"cursor {cursor.height}, {lag.blocks} blocks ({lag.seconds:.0f} s) behind the newest height"
    if not holder:
        raise OffchainVMError(
            f"No event monitor is active: {told}.", remedy="Start one: `offchainvm monitor`, or a bridge with ENABLE_EVENT_MONITOR=true."
        )
    lag.check()
    return f"{told}; active: {holder}"


def _height_sources() -> list[Callable[[], int]]:
    settings = load_only(["neardata_api_url", "neardata_api_key", "fastnear_api_url", "ca_bundle"])
    blocks = BlockService(settings.neardata_api_url, api_key=settings.neardata_api_key, ca_bundle=settings.ca_bundle)
    return height_sources(blocks, settings.fastnear_api_url, ca_bundle=settings.ca_bundle)


def check_operator_role() -> str:
    """The contract knows the account as its operator."""
    rpc, settings = rpc_with("near_rpc_url", "operator_account_id", "offchainvm_contract_id")
    owner, operator = json.loads(rpc.view(settings.offchainvm_contract_id, "get_config"))
    if operator != settings.operator_account_id:
        raise OffchainVMError(
            f"The operator of {settings.offchainvm_contract_id} is {operator}, not {settings.operator_account_id}.",
            remedy=f"Let the owner ({owner}) set the operator, or correct OPERATOR_ACCOUNT_ID or OFFCHAINVM_CONTRACT_ID.",
        )
    return f"{operator} is the operator of {settings.offchainvm_contract_id}"
