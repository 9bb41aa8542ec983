"""Nonces and locks against a real Redis."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import pytest
import redis

from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.errors import Unavailable
from offchainvm.near.nonces import UNTIL_EMPTY, KeyBusy, KeyHeld, KeyLease, LeaseLost, NonceAhead, Nonces

KEY, OTHER = "ed25519:one", "ed25519:two"
HEIGHT = 200_000_000
BASE = 1_000_000 * HEIGHT


@pytest.fixture
def nonces(redis_client: Any) -> Nonces:
    return Nonces(redis_client, network="testnet", account_id="operator.testnet")


def take(nonces: Nonces, key: str = KEY, *, floor: int = 0, height: int = HEIGHT) -> int:
    with nonces.lock(key) as lease:
        return nonces.next(lease, floor=floor, final_height=height)


def test_first_nonce_is_that_of_the_height_and_each_further_one_is_the_next(nonces: Nonces) -> None:
    assert [take(nonces) for _ in range(3)] == [BASE, BASE + 1, BASE + 2]


def test_nonce_goes_over_the_chains_floor_and_rises_with_the_height(nonces: Nonces) -> None:
    assert take(nonces, floor=BASE + 50) == BASE + 51
    assert take(nonces, floor=5) == BASE + 52
    assert take(nonces, height=HEIGHT + 1) == BASE + 1_000_000


def test_floor_raised_by_an_answer_is_kept_and_never_lowered(nonces: Nonces) -> None:
    nonces.raise_floor(KEY, BASE + 700)
    nonces.raise_floor(KEY, BASE + 3)
    nonces.raise_floor(KEY, 2**64)
    assert take(nonces) == BASE + 701


def test_nonce_too_large_for_the_height_is_not_given_out(nonces: Nonces) -> None:
    with pytest.raises(NonceAhead) as caught:
        take(nonces, floor=BASE + 1_000_000 - 1_001)
    assert caught.value.retry_after_seconds
    assert take(nonces, floor=BASE + 1_000_000 - 1_002) == BASE + 1_000_000 - 1_001
    with pytest.raises(NonceAhead):
        take(nonces)
    assert take(nonces, height=HEIGHT + 1) == BASE + 1_000_000
    with pytest.raises(NonceAhead):
        take(nonces, floor=2**60)


def test_keys_accounts_and_networks_do_not_touch_each_other(nonces: Nonces, redis_client: Any) -> None:
    elsewhere = Nonces(redis_client, network="mainnet", account_id="operator.testnet")
    assert [take(nonces), take(nonces, OTHER), take(elsewhere)] == [BASE, BASE, BASE]
    nonces.hold(KEY, "here")
    assert elsewhere.held() == {}


def test_lost_redis_data_never_gives_an_old_height_again(nonces: Nonces, redis_client: Any) -> None:
    used = [take(nonces) for _ in range(5)]
    redis_client.flushall()
    nonces.raise_floor(KEY, max(used))
    assert take(nonces) == max(used) + 1


def test_two_signers_never_hold_one_key(nonces: Nonces) -> None:
    with nonces.lock(KEY) as first:
        with pytest.raises(KeyBusy), nonces.lock(KEY):
            pass
        with nonces.lock(OTHER):
            pass
    with nonces.lock(KEY) as second:
        assert second.token != first.token


def test_frozen_signer_that_wakes_after_its_time_gets_no_nonce(nonces: Nonces, redis_client: Any) -> None:
    with nonces.lock(KEY) as frozen:
        # As if its time had run out: the end of the lease lies in the past.
        redis_client.hset("ovm:key:testnet/operator.testnet/" + KEY, "lock_until", "1")
        assert not nonces.renew(frozen)
        with pytest.raises(LeaseLost):
            nonces.next(frozen, final_height=HEIGHT)
        with nonces.lock(KEY) as taken:
            with pytest.raises(LeaseLost):
                nonces.next(frozen, final_height=HEIGHT)
            assert nonces.next(taken, final_height=HEIGHT) == BASE
            assert nonces.renew(taken)
    assert take(nonces) == BASE + 1


def test_one_who_lost_the_key_does_not_give_back_anothers_lock(nonces: Nonces, redis_client: Any) -> None:
    with nonces.lock(KEY):
        redis_client.hset("ovm:key:testnet/operator.testnet/" + KEY, "lock_until", "1")
        second = nonces.lock(KEY)
        lease = second.__enter__()
    assert nonces.renew(lease)
    second.__exit__(None, None, None)


def test_lease_that_nobody_ever_took_gets_no_nonce(nonces: Nonces) -> None:
    with pytest.raises(LeaseLost):
        nonces.next(KeyLease(KEY, "made-up"), final_height=HEIGHT)
    assert not nonces.renew(KeyLease(KEY, "made-up"))


def test_held_key_signs_nothing_until_it_is_let_go(nonces: Nonces) -> None:
    assert nonces.hold(KEY, "settler: unseen for 10 s")
    assert not nonces.hold(KEY, "again")
    assert nonces.held() == {KEY: "settler: unseen for 10 s"}
    with pytest.raises(KeyHeld, match="unseen for 10 s"):
        take(nonces)
    assert take(nonces, OTHER) == BASE
    assert nonces.unhold(KEY, UNTIL_EMPTY)
    assert not nonces.unhold(KEY, UNTIL_EMPTY)
    assert take(nonces) == BASE


def test_a_hold_that_the_chains_refusal_replaced_is_not_ended_by_who_ends_the_first(nonces: Nonces) -> None:
    nonces.hold(KEY, f"{UNTIL_EMPTY}unseen for 10 s")
    assert nonces.disable(KEY, "the key is gone")
    assert not nonces.unhold(KEY, UNTIL_EMPTY)
    assert nonces.held() == {KEY: "refused: the key is gone"}
    assert nonces.enable(KEY)
    assert not nonces.enable(KEY)
    assert nonces.held() == {}


def test_answer_that_was_lost_is_given_again_to_the_same_call(nonces: Nonces) -> None:
    key, held = "ovm:key:testnet/operator.testnet/" + KEY, "ovm:keys-held:testnet/operator.testnet"
    with nonces.lock(KEY) as lease:
        arguments = [lease.token, "call-1", KEY, 0, BASE, BASE + 999_000]
        first = nonces._nonce(keys=[key, held], args=arguments)
        assert nonces._nonce(keys=[key, held], args=arguments) == first
        # A lock whose answer was lost is taken again by the same token.
        assert nonces._lock(keys=[key, "ovm:key-names"], args=[lease.token, 5000]) == 1


def test_processes_side_by_side_never_share_a_nonce(nonces: Nonces) -> None:
    taken: list[int] = []

    def give() -> bool:
        with suppress(KeyBusy), nonces.lock(KEY) as lease:
            taken.append(nonces.next(lease, final_height=HEIGHT))
            return True
        return False

    def work() -> None:
        for _ in range(25):
            while not give():
                time.sleep(0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == sorted(taken) == list(range(BASE, BASE + 100))


def test_redis_that_goes_away_is_unavailable_and_undoes_nothing_that_was_done() -> None:
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url, retry=None) as client:
        nonces = Nonces(client, network="testnet", account_id="operator.testnet")
        with nonces.lock(KEY) as lease:
            assert nonces.next(lease, final_height=HEIGHT) == BASE
            server.kill()
            with pytest.raises(Unavailable, match="REDIS_URL"):
                nonces.next(lease, final_height=HEIGHT)
        # Leaving the lock raised nothing: it runs out by itself.
        for call in (lambda: take(nonces), lambda: nonces.hold(KEY, "x"), nonces.held, lambda: nonces.raise_floor(KEY, 1)):
            with pytest.raises(Unavailable, match="Redis"):
                call()
