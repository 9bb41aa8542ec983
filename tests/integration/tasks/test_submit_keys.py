"""What each kind of key signs: batches within the chain's limits, keys that may not sign, gas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offchainvm.errors import SettingsError
from offchainvm.jobs.record import Verdict
from offchainvm.jobs.rows import RowOutcome
from offchainvm.near import keyring, limits
from offchainvm.near.keyring import USUAL_LIMITS, check_limits
from offchainvm.near.nonces import Nonces
from offchainvm.near.rpc import RpcRefused, RpcUnavailable


def carried(house) -> list[int]:
    return [len(transaction.data_ids) for transaction in house.resolves.in_flight()]


def test_a_full_access_key_carries_a_batch_in_one_transaction(house) -> None:
    house.batch = 10
    for number in range(12):
        house.waiting(number)
    assert house.submitter().submit() == 2
    assert carried(house) == [10, 2]


def test_a_function_call_key_carries_one_resolve_and_asks_for_no_limits(house) -> None:
    house.batch, house.rpc.full_access = 10, False
    for number in range(3):
        house.waiting(number)
    assert house.submitter().submit() == 2
    assert (carried(house), house.rpc.asked_for_limits) == ([1, 1], 0)


def test_a_batch_attaches_no_more_gas_than_the_chain_allows(house) -> None:
    house.batch, house.rpc.limits = 10, replace(USUAL_LIMITS, max_prepaid_gas=100 * 10**12)
    for number in range(6):
        house.waiting(number)
    submitter = house.submitter()
    submitter.submit()
    submitter.submit()
    assert (carried(house), house.rpc.asked_for_limits) == ([3, 3], 1)


@pytest.mark.parametrize("answer", [RpcRefused("no such method", cause="METHOD_NOT_FOUND"), RpcUnavailable("node", "no answer")])
def test_the_usual_limits_serve_while_the_chain_does_not_tell_its_own(house, answer) -> None:
    house.batch, house.rpc.limits = 50, answer
    for number in range(12):
        house.waiting(number)
    house.submitter().submit()
    assert carried(house) == [10, 2]


def test_limits_that_a_chain_away_at_the_start_tells_later_are_checked_before_anything_is_signed(house, monkeypatch) -> None:
    def check(limits) -> None:
        check_limits(limits, gas=30 * 10**12, resume_bytes=1024, deadline_blocks=200)

    monkeypatch.setattr(limits, "ASK_AGAIN_SECONDS", 0.0)
    house.waiting(1)
    house.rpc.limits = RpcUnavailable("node", "no answer")
    submitter = house.submitter(check=check)
    assert submitter.submit() == 1
    house.waiting(2)
    house.rpc.limits = replace(USUAL_LIMITS, max_prepaid_gas=10**12)
    with pytest.raises(SettingsError, match="RESOLVE_GAS_TGAS"):
        submitter.submit()
    assert (house.resolves.waiting_count(), len(house.rpc.sent)) == (1, 1)


def test_after_a_failed_batch_the_next_is_halved_and_what_lands_doubles_it_again(house) -> None:
    house.batch, house.window = 10, 1
    for number in range(30):
        house.waiting(number)
    submitter, sizes = house.submitter(), []
    for verdicts in ([Verdict.REFUSED] + [None] * 9, [Verdict.ACCEPTED] * 5, [Verdict.ACCEPTED] * 10):
        submitter.submit()
        [flight] = house.resolves.in_flight()
        sizes.append(len(flight.data_ids))
        house.resolves.settle(flight.hash, [RowOutcome(verdict) for verdict in verdicts])
    assert sizes == [10, 5, 10]


def test_a_row_that_failed_goes_alone_and_the_others_together(house) -> None:
    house.batch, house.window = 4, 3
    first, *_ = [house.waiting(number) for number in range(4)]
    submitter = house.submitter()
    submitter.submit()
    [flight] = house.resolves.in_flight()
    house.resolves.settle(flight.hash, [RowOutcome(None, "contract_error")] + [RowOutcome(None)] * 3)
    submitter.submit()
    assert house.resolves.in_flight()[0].data_ids == (first,)
    assert carried(house) == [1, 2, 1]


def test_a_key_that_may_not_resolve_is_passed_over_and_looked_at_again_after_a_while(house, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(keyring.log, "error", lambda sentence, **_: told.append(sentence))
    house.waiting(1)
    house.rpc.full_access, house.rpc.contract = False, "other.test"
    submitter = house.submitter()
    assert [submitter.submit(), submitter.submit()] == [0, 0]
    assert len(told) == 1
    assert "may call resolve_execution of other.test alone. Put a key here that may call resolve_execution of vm.test" in told[0]
    house.rpc.contract = "vm.test"
    monkeypatch.setattr(keyring, "LOOK_AGAIN_SECONDS", 0.0)
    submitter._keyring._unfit_until.clear()
    assert submitter.submit() == 1


def test_a_key_that_the_chain_refused_signs_nothing_until_a_new_process_finds_it_fit(house) -> None:
    [key] = house.keys
    nonces = Nonces(house.redis, network="devnet", account_id="operator.test")
    submitter = house.submitter()
    house.waiting(1)
    submitter.submit()
    assert [nonces.disable(key.public_key, "RequiresFullAccess"), nonces.disable(key.public_key, "again")] == [True, False]
    house.waiting(2)
    assert (submitter.submit(), house.resolves.waiting_count()) == (0, 1)
    assert house.submitter().submit() == 1
    assert nonces.held() == {}


def test_a_hold_for_another_reason_outlives_a_restart(house) -> None:
    nonces = Nonces(house.redis, network="devnet", account_id="operator.test")
    nonces.hold(house.keys[0].public_key, "settler: its lowest transaction in flight is unseen")
    house.waiting(1)
    assert house.submitter().submit() == 0
    assert len(nonces.held()) == 1


def test_limits_of_the_chain_that_are_lower_than_what_we_send_are_named_all_at_once() -> None:
    check_limits(USUAL_LIMITS, gas=300 * 10**12, resume_bytes=1024, deadline_blocks=200)
    lower = replace(USUAL_LIMITS, max_resume_bytes=1000, yield_timeout_blocks=100)
    with pytest.raises(SettingsError) as refused:
        check_limits(lower, gas=301 * 10**12, resume_bytes=1024, deadline_blocks=200)
    gas, size, deadline = refused.value.problems
    assert "RESOLVE_GAS_TGAS: 301 is more" in gas
    assert "Set at most 300." in gas
    assert "1000 bytes in an answer" in size
    assert "100 blocks until" in deadline
