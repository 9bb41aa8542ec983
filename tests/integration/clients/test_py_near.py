"""py-near, unmodified, on the local chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import base58
import pytest
from py_near import transactions
from py_near.account import Account, ViewFunctionError
from py_near.exceptions.provider import InternalError, InvalidNonce

from offchainvm.devnet.genesis import CLIENT_ID, OPERATOR_ID
from tests.support.strangers import REQUEST, Chain, answer, requested

TGAS = 10**12
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:py_near")  # it is theirs


@asynccontextmanager
async def account(chain: Chain, account_id: str, key: str) -> AsyncIterator[Account]:
    one = Account(account_id, key, chain.url)
    await one.startup()
    try:
        yield one
    finally:
        await one.shutdown()


async def ask(user: Account, chain: Chain, **more: Any) -> Any:
    return await user.function_call(chain.contract_id, "request_execution", REQUEST, gas=300 * TGAS, amount=10**24, **more)


def test_accounts_keys_and_views_are_read(chain: Chain) -> None:
    async def read() -> None:
        async with account(chain, CLIENT_ID, chain.client_key) as user:
            assert user.chain_id == "devnet"
            assert await user.get_balance() > 10**24
            assert (await user.fetch_state())["code_hash"] == "1" * 32
            assert (await user.get_access_key(None)).permission == "FullAccess"
            assert [key.public_key for key in await user.get_access_key_list()] == [chain.keys.client_key.public_text]
            assert (await user.view_function(chain.contract_id, "get_config", {})).result == ["owner.devnet", OPERATOR_ID]

    asyncio.run(read())


def test_a_user_asks_and_the_operator_resolves(chain: Chain) -> None:
    async def walk() -> int:
        async with account(chain, CLIENT_ID, chain.client_key) as user, account(chain, OPERATOR_ID, chain.limited_key) as operator:
            told = await ask(user, chain)  # broadcast_tx_commit
            request_id, data_id = requested(told.logs)
            resolved = await operator.function_call(chain.contract_id, "resolve_execution", answer(data_id, "42"), gas=30 * TGAS)
            assert "SuccessValue" in resolved.status
            again = await operator.function_call(chain.contract_id, "resolve_execution", answer(data_id, "43"), gas=30 * TGAS)
            assert "Unable to resume execution promise" in str(again.status)
            return request_id

    assert chain.value_of(asyncio.run(walk())) == "42"


def test_a_transaction_that_was_only_included_is_found_by_its_hash(chain: Chain) -> None:
    async def walk() -> None:
        async with account(chain, CLIENT_ID, chain.client_key) as user:
            told = await ask(user, chain, included=True)
            found = await user.provider.get_tx(told, CLIENT_ID)
            assert found.transaction.hash == told

    asyncio.run(walk())


async def missing_key(chain: Chain) -> None:
    async with account(chain, OPERATOR_ID, chain.stranger_key) as nobody:
        await nobody.send_money(CLIENT_ID, 1)


async def missing_method(chain: Chain) -> None:
    async with account(chain, CLIENT_ID, chain.client_key) as user:
        await user.view_function(chain.contract_id, "no_such_method", {})


async def unknown_transaction(chain: Chain) -> None:
    async with account(chain, CLIENT_ID, chain.client_key) as user:
        await user.provider.get_tx("1" * 32, CLIENT_ID)


async def used_nonce(chain: Chain) -> None:
    async with account(chain, CLIENT_ID, chain.client_key) as user:
        block = base58.b58decode((await user.provider.get_status())["sync_info"]["latest_block_hash"])
        transfer = [transactions.create_transfer_action(1)]
        signed = transactions.sign_and_serialize_transaction(CLIENT_ID, user.signer, OPERATOR_ID, 0, transfer, block)
        await user.provider.send_tx_and_wait(signed)


@pytest.mark.parametrize(
    ("work", "error", "text"),
    [
        (missing_key, ValueError, "does not exist while viewing"),
        (missing_method, ViewFunctionError, "MethodNotFound"),
        (unknown_transaction, InternalError, "UNKNOWN_TRANSACTION"),
        (used_nonce, InvalidNonce, "ak_nonce"),
    ],
)
def test_errors_have_the_shapes_that_it_understands(
    chain: Chain, work: Callable[[Chain], Coroutine[Any, Any, None]], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        asyncio.run(work(chain))
    assert text in f"{caught.value}{getattr(caught.value, 'error_json', '')}"
