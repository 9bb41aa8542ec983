"""Submit against a real Redis and a real journal; the RPC alone is scripted, so that each line can be the last one."""

from __future__ import annotations

from dataclasses import replace

import base58
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr
from redis import Redis

from offchainvm.errors import SettingsError, Unavailable
from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.record import Stage, ToResolve, Verdict
from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.rows import RowOutcome, parse_journal_body
from offchainvm.jobs.store import JobStore
from offchainvm.journal import Journal
from offchainvm.models import CodeSource, CompileTask, ExecutionReport, ExecutionResponse, ResourceLimits
from offchainvm.near import keyring, payload
from offchainvm.near.keyring import USUAL_LIMITS, check_gas
from offchainvm.near.nonces import Nonces
from offchainvm.near.rpc import AccessKey, ProtocolLimits, RpcRefused, RpcUnavailable
from offchainvm.near.signer import OperatorKey
from offchainvm.near.transaction import BlockRef
from offchainvm.tasks import resolve
from offchainvm.tasks.resolve import Policy, Submitter

HEIGHT = 500


class Died(BaseException):
    """The process ends here."""


class ScriptedRpc:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.key_nonce: int | None = 5
        self.fault: BaseException | None = None
        self.before_send = lambda: None
        self.full_access = True
        self.contract = "vm.test"
        self.limits: ProtocolLimits | Exception = USUAL_LIMITS
        self.asked_for_limits = 0

    def protocol_config(self) -> ProtocolLimits:
        self.asked_for_limits += 1
        if isinstance(self.limits, Exception):
            raise self.limits
        return self.limits

    def final_block(self) -> BlockRef:
        return BlockRef(height=HEIGHT, hash=base58.b58encode(b"\1" * 32).decode())

    def access_key(self, account_id: str, public_key: str) -> AccessKey | None:
        if self.key_nonce is None:
            return None
        allowed = {} if self.full_access else {"receiver_id": self.contract, "methods": ("resolve_execution",)}
        return AccessKey(nonce=self.key_nonce, block_height=HEIGHT, full_access=self.full_access, **allowed)

    def send_tx(self, signed: bytes) -> None:
        self.before_send()
        if self.fault is not None:
            raise self.fault
        self.sent.append(signed)


def a_key() -> OperatorKey:
    seed = Ed25519PrivateKey.generate().private_bytes_raw()
    return OperatorKey(SecretStr("ed25519:" + base58.b58encode(seed).decode()))


@pytest.fixture
def house(redis_client: Redis, tmp_path):
    class House:
        redis, rpc, resolves, store = redis_client, ScriptedRpc(), Resolves(redis_client), JobStore(redis_client)
        keys, window, batch, folder = [a_key()], 2, 1, tmp_path

        def waiting(self, number: int) -> str:
            data_id = f"{number:064x}"
            task = CompileTask(request_id=number, data_id=data_id, code_source=CodeSource(repo="a/b", commit="main"), input_data="")
            self.store.accept(task, stage=Stage.EXECUTE, limits=ResourceLimits(), deadline_height=HEIGHT + 200)
            claim = self.store.claim(data_id, Stage.EXECUTE, owner="w", lease_seconds=60)
            fitted = payload.fit(data_id, ExecutionResponse(success=True, return_value=b"42"))
            report = ExecutionReport(request_id=number, success=True)
            assert self.store.commit(claim, ToResolve(arguments=fitted.arguments, response=fitted.response, report=report))
            return data_id

        def submitter(self) -> Submitter:
            return Submitter(
                resolves=self.resolves,
                nonces=Nonces(self.redis, network="devnet", account_id="operator.test"),
                rpc=self.rpc,
                journal=Journal(self.folder, "resolve"),
                keys=self.keys,
                policy=Policy(operator_id="operator.test", contract_id="vm.test", gas=30 * 10**12, window=self.window, batch=self.batch),
                redis_run_id=self.store.server_run_id,
            )

    return House()


def test_each_waiting_row_is_sent_once_with_its_exact_arguments(house) -> None:
    house.window = 8
    ids = [house.waiting(number) for number in range(3)]
    assert house.submitter().submit() == 3
    assert house.submitter().submit() == 0
    for data_id in ids:
        arguments = payload.fit(data_id, ExecutionResponse(success=True, return_value=b"42")).arguments
        assert sum(arguments in signed for signed in house.rpc.sent) == 1


def test_no_key_has_more_in_flight_than_its_window(house) -> None:
    for number in range(5):
        house.waiting(number)
    assert house.submitter().submit() == 2
    assert house.resolves.waiting_count() == 3


def test_a_window_that_was_full_and_empties_rings_again(house) -> None:
    for number in range(5):
        house.waiting(number)
    submitter = house.submitter()
    submitter.submit()
    house.waiting(5)  # its ring is heard while the window is full
    assert submitter.submit() == 0
    outbox = Outbox(house.redis)
    outbox.done([message.entry_id for message in outbox.read(100, 0, "relay")])
    [first, _] = house.resolves.in_flight()
    house.resolves.settle(first.hash, [RowOutcome(Verdict.ACCEPTED)])
    assert [message.stage for message in outbox.read(100, 0, "relay")] == [Stage.RESOLVE]


def test_more_keys_carry_more(house) -> None:
    house.keys = [a_key(), a_key(), a_key()]
    for number in range(6):
        house.waiting(number)
    assert house.submitter().submit() == 6
    assert {len(house.resolves.in_flight(key.public_key)) for key in house.keys} == {2}


def test_nonces_of_a_key_rise_above_the_chains(house) -> None:
    house.rpc.key_nonce = HEIGHT * 10**6 + 50
    for number in range(2):
        house.waiting(number)
    house.submitter().submit()
    assert [tx.nonce for tx in house.resolves.in_flight()] == [HEIGHT * 10**6 + 51, HEIGHT * 10**6 + 52]


def test_bytes_are_in_redis_and_in_the_journal_before_the_first_is_sent(house) -> None:
    data_id, submitter = house.waiting(1), house.submitter()
    seen = []

    def look() -> None:
        [stored] = house.resolves.in_flight()
        [(_, key, body)] = submitter._journal.entries()
        seen.append((stored.data_ids, key == stored.hash, parse_journal_body(body)[0].signed == stored.signed))

    house.rpc.before_send = look
    submitter.submit()
    assert seen == [((data_id,), True, True)]


def test_death_between_store_and_send_leaves_bytes_for_the_settler_and_signs_nothing_new(house) -> None:
    house.waiting(1)
    house.rpc.fault = Died()
    with pytest.raises(Died):
        house.submitter().submit()
    [stored] = house.resolves.in_flight()
    house.rpc.fault = None
    assert house.submitter().submit() == 0
    assert house.resolves.in_flight()[0].signed == stored.signed


def test_an_rpc_that_is_away_leaves_the_sending_to_the_settler(house) -> None:
    house.waiting(1)
    house.rpc.fault = Unavailable("near rpc", "no answer")
    assert house.submitter().submit() == 1
    assert len(house.resolves.in_flight()) == 1


def test_what_redis_forgot_is_restored_from_the_journal_before_anything_new_is_signed(house) -> None:
    house.waiting(1)
    first = house.submitter()
    first.submit()
    [before] = house.resolves.in_flight()
    first._journal.close()
    house.redis.flushall()
    house.waiting(1)  # the same request again, as a replayed task would bring it
    assert house.submitter().submit() == 0
    [after] = house.resolves.in_flight()
    assert (after.hash, after.signed) == (before.hash, before.signed)
    assert len(house.rpc.sent) == 1


def test_a_key_that_the_account_does_not_have_is_named_and_the_row_waits_on(house, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(keyring.log, "error", lambda sentence, **_: told.append(sentence))
    house.waiting(1)
    house.rpc.key_nonce = None
    assert house.submitter().submit() == 0
    assert house.resolves.waiting_count() == 1
    assert "has no key ed25519:" in told[0]


def test_a_key_that_the_account_does_not_have_stops_no_other(house, monkeypatch) -> None:
    bad, good = house.keys = [a_key(), a_key()]
    ask = house.rpc.access_key
    monkeypatch.setattr(house.rpc, "access_key", lambda account, key: None if key == bad.public_key else ask(account, key))
    for number in range(2):
        house.waiting(number)
    assert house.submitter().submit() == 2
    assert {transaction.public_key for transaction in house.resolves.in_flight()} == {good.public_key}


def test_one_message_ends_after_a_while_and_rings_for_the_rest(house, monkeypatch) -> None:
    monkeypatch.setattr(resolve, "LONGEST_SECONDS", 0.0)
    house.waiting(1)
    assert house.submitter().submit() == 0
    assert house.redis.exists("ovm:bell")


def test_after_one_send_that_failed_no_other_is_tried(house) -> None:
    house.keys, house.window = [a_key(), a_key()], 2
    for number in range(5):
        house.waiting(number)
    asked = []
    house.rpc.before_send = lambda: asked.append(1)
    house.rpc.fault = Unavailable("near rpc", "no answer")
    assert house.submitter().submit() == 2
    assert (len(asked), house.resolves.waiting_count()) == (1, 3)


def test_a_process_that_slept_after_storing_sends_nothing_that_is_over(house, monkeypatch) -> None:
    house.waiting(1)
    store = house.resolves.store

    def store_and_sleep(transaction, rows) -> bool:
        kept = store(transaction, rows)
        house.resolves.settle(transaction.hash, [RowOutcome(Verdict.ACCEPTED)])
        return kept

    monkeypatch.setattr(house.resolves, "store", store_and_sleep)
    house.submitter().submit()
    assert house.rpc.sent == []


def test_rows_are_given_back_whatever_went_wrong_before_they_were_signed(house, monkeypatch) -> None:
    house.waiting(1)
    monkeypatch.setattr(house.rpc, "final_block", lambda: BlockRef(height=HEIGHT, hash="not base58"))
    with pytest.raises(ValueError, match=r"base58|character"):
        house.submitter().submit()
    assert house.resolves.waiting_count() == 1


def test_what_a_living_process_beside_this_one_sent_is_restored_before_anything_new_is_signed(house) -> None:
    house.waiting(1)
    beside = house.submitter()
    beside.submit()
    [before] = house.resolves.in_flight()
    house.redis.flushall()
    house.waiting(1)
    assert house.submitter().submit() == 0
    [after] = house.resolves.in_flight()
    assert (after.hash, len(house.rpc.sent)) == (before.hash, 1)
    house.waiting(2)
    house.submitter().submit()
    assert sorted(transaction.nonce for transaction in house.resolves.in_flight()) == [before.nonce, before.nonce + 1]


def test_a_service_that_is_away_ends_the_message_and_not_with_an_error(monkeypatch) -> None:
    def away() -> None:
        raise Unavailable("near rpc", "no answer")

    monkeypatch.setattr(resolve, "_submitter", away)
    resolve.resolve_waiting({})


def test_what_is_settled_leaves_the_journal_at_the_second_look(house, monkeypatch) -> None:
    monkeypatch.setattr(resolve, "LOOK_EVERY_SECONDS", 0.0)
    house.waiting(1)
    submitter = house.submitter()
    submitter.submit()
    [transaction] = house.resolves.in_flight()
    house.resolves.settle(transaction.hash, [RowOutcome(Verdict.ACCEPTED)])
    submitter.submit()
    assert len(submitter._journal.entries()) == 1
    submitter.submit()
    assert submitter._journal.entries() == []


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
    assert [nonces.condemn(key.public_key, "RequiresFullAccess"), nonces.condemn(key.public_key, "again")] == [True, False]
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


def test_gas_over_the_chains_limit_is_named_with_the_limit() -> None:
    check_gas(USUAL_LIMITS, 300 * 10**12)
    with pytest.raises(SettingsError, match=r"RESOLVE_GAS_TGAS: 301 is more .* Set at most 300\."):
        check_gas(USUAL_LIMITS, 301 * 10**12)
