"""near-kit, unmodified, on the local chain."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from offchainvm.devnet.genesis import CLIENT_ID, OPERATOR_ID
from tests.support.strangers import REQUEST, Chain, answer, requested

if sys.version_info < (3, 11):
    pytest.skip("near-kit needs Python 3.11", allow_module_level=True)

from near import (
    AccessKeyNotFoundError,
    AccountNotFoundError,
    ContractPanicError,
    InvalidNonceError,
    Near,
    RpcError,
)

NEAR_1, GAS_300, GAS_30 = "1 NEAR", "300 Tgas", "30 Tgas"


@pytest.fixture
def connect(chain: Chain) -> Iterator[Callable[[str, str], Near]]:
    opened: list[Near] = []

    def connect(account_id: str, private_key: str) -> Near:
        opened.append(Near("devnet", rpc_url=chain.url, account_id=account_id, private_key=private_key, retries=0))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.fixture
def user(connect: Any, chain: Chain) -> Near:
    return connect(CLIENT_ID, chain.client_key)


def ask(user: Near, chain: Chain, **more: Any) -> Any:
    return user.call(chain.contract_id, "request_execution", REQUEST, gas=GAS_300, deposit=NEAR_1, **more)


def test_accounts_keys_and_views_are_read(user: Near, chain: Chain) -> None:
    assert user.balance() == user.account().amount
    assert (user.account_exists(OPERATOR_ID), user.account_exists("nobody.devnet")) == (True, False)
    permission = user.access_key(OPERATOR_ID, chain.keys.function_call_keys[0].public_text).permission
    assert permission["FunctionCall"]["method_names"] == ["resolve_execution"]
    assert {key.public_key for key in user.access_keys()} == {chain.keys.client_key.public_text}
    assert user.view(chain.contract_id, "get_config") == ["owner.devnet", OPERATOR_ID]


def test_a_user_asks_and_the_operator_resolves(user: Near, connect: Any, chain: Chain) -> None:
    request_id, data_id = requested(ask(user, chain).logs)
    operator = connect(OPERATOR_ID, chain.limited_key)
    resolved = operator.call(chain.contract_id, "resolve_execution", answer(data_id, "42"), gas=GAS_30, wait_until="FINAL")
    assert resolved.final_execution_status == "FINAL"
    assert chain.value_of(request_id) == "42"
    with pytest.raises(ContractPanicError, match="Unable to resume execution promise"):
        operator.call(chain.contract_id, "resolve_execution", answer(data_id, "43"), gas=GAS_30)


def test_a_transaction_is_followed_by_its_hash_at_every_level(user: Near, chain: Chain) -> None:
    sent = ask(user, chain, wait_until="INCLUDED")
    for level in ("INCLUDED", "INCLUDED_FINAL"):
        found = user.transaction_status(sent.transaction["hash"], wait_until=level)
        assert found.transaction["signer_id"] == CLIENT_ID
    assert ask(user, chain, wait_until="NONE").final_execution_status == "NONE"


def test_errors_have_the_shapes_that_it_understands(user: Near, connect: Any, chain: Chain) -> None:
    with pytest.raises(AccountNotFoundError):
        user.account("nobody.devnet")
    with pytest.raises(AccessKeyNotFoundError):
        user.access_key(OPERATOR_ID, chain.keys.outsider_key.public_text)
    with pytest.raises(AccessKeyNotFoundError):
        connect(OPERATOR_ID, chain.stranger_key).send(CLIENT_ID, NEAR_1)
    with pytest.raises(ContractPanicError, match="MethodNotFound"):
        user.view(chain.contract_id, "no_such_method")
    with pytest.raises(RpcError) as unknown:
        user.transaction_status("1" * 32, wait_until="NONE")
    with pytest.raises(RpcError) as refused:
        connect(OPERATOR_ID, chain.limited_key).send(CLIENT_ID, NEAR_1)
    assert (unknown.value.code, refused.value.code) == ("UNKNOWN_TRANSACTION", "INVALID_TRANSACTION")
    assert "RequiresFullAccess" in str(refused.value.data)


def test_a_nonce_that_another_client_used_is_told_with_the_keys_own_and_mended(user: Near, connect: Any, chain: Chain) -> None:
    other = connect(CLIENT_ID, chain.client_key)
    ask(user, chain)
    ask(other, chain)
    signed_again = user.send(OPERATOR_ID, NEAR_1)  # its cached nonce is used by now: refused, corrected, sent again
    assert signed_again.status == {"SuccessValue": ""}
    with pytest.raises(InvalidNonceError) as caught:
        user.rpc("send_tx", {"signed_tx_base64": chain.signed(nonce=1), "wait_until": "INCLUDED"})
    assert caught.value.ak_nonce == chain.nonce()
