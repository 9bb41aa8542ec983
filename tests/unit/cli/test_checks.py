"""Rows of `offchainvm doctor` about the host, its clock, the network, the broker, builds, the balance and limits."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from redis.exceptions import NoPermissionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from offchainvm.cli.checks import builds, chain, clock, host, limits, network, services
from offchainvm.cli.checks.needs import NotLookedAt
from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.models import ExecutionResponse
from offchainvm.near.rpc import ViewFailed
from offchainvm.near.rpc_answers import AccessKey
from offchainvm.settings import Settings, setting_table

NEAR = 10**24


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFCHAINVM_ENV_FILE", "")
    for row in setting_table():
        monkeypatch.delenv(row.name, raising=False)


def wrong(check: Callable[[], str], *texts: str) -> None:
    """The row is wrong; what it says and its remedy hold ``texts``."""
    with pytest.raises(OffchainVMError) as caught:
        check()
    assert caught.value.remedy
    assert [text for text in texts if text not in f"{caught.value.sentence} {caught.value.remedy}"] == []


def test_a_state_folder_that_cannot_be_written_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIR", "/proc/no/such/folder")
    monkeypatch.setattr(os, "access", lambda *_: False)
    wrong(host.check_state_dir, "cannot be written", "STATE_DIR")


def test_a_full_disk_below_the_state_folder_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "not" / "there"))
    for free_mb in (1024, 1023):
        asked = list[Path]()
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path, free=free_mb, asked=asked: asked.append(path) or SimpleNamespace(free=free << 20)
        )
        if free_mb == 1024:
            assert host.check_disk() == f"1024 MiB free below {tmp_path / 'not' / 'there'}"
        else:
            wrong(host.check_disk, "has 1023 MiB left", "STATE_DIR")
        assert asked == [tmp_path]


@pytest.mark.parametrize(
    ("coordinator_off", "block_off", "told"),
    [
        (0.0, -2.0, "agrees with the Coordinator, agrees with the newest block"),
        (None, -2.0, "agrees with the newest block"),
        (-4.0, None, "3 s ahead of the Coordinator"),
        (60.0, 58.0, "WRONG 60 s behind the Coordinator, 58 s behind the newest block"),
        (-61.0, -90.0, "WRONG 60 s ahead of the Coordinator, 60 s ahead of the newest block"),
        (0.0, -90.0, "WRONG agrees with the Coordinator, 60 s ahead of the newest block"),
    ],
)
def test_a_clock_that_is_off_by_more_than_some_seconds_is_wrong(
    monkeypatch: pytest.MonkeyPatch, coordinator_off: float | None, block_off: float | None, told: str
) -> None:
    def reading(off: float | None) -> Callable[[], float]:
        def read() -> float:
            if off is None:
                raise Unavailable("clock", "away")
            return time.time() + off

        return read

    clocks = [("the Coordinator", 1.0, reading(coordinator_off)), ("the newest block", 30.0, reading(block_off))]
    monkeypatch.setattr(clock, "_clocks", lambda: iter(clocks))
    if told.startswith("WRONG "):
        wrong(clock.check_clock, told.removeprefix("WRONG "), "timedatectl")
    else:
        assert clock.check_clock() == told


def test_a_clock_that_nobody_can_be_asked_about_is_not_looked_at() -> None:
    with pytest.raises(NotLookedAt, match="neither the Coordinator"):
        clock.check_clock()


class FakeRpc:
    """A chain by its name, the accounts on it, and the balance of each."""

    endpoint = "https://rpc.invalid"

    def __init__(self, chain_id: str = "testnet", **accounts: int) -> None:
        self.chain_id = lambda: chain_id
        self.accounts = accounts

    def view_account(self, account_id: str) -> dict[str, Any]:
        if account_id not in self.accounts:
            raise ViewFailed("no such account", cause="UNKNOWN_ACCOUNT")
        return {"amount": str(self.accounts[account_id])}


@pytest.mark.parametrize(
    ("chain_id", "contract_id", "operator_id", "told"),
    [
        ("testnet", "vm.testnet", "op.testnet", "vm.testnet is on testnet"),
        ("mainnet", "ab" * 32, "op.near", f"{'ab' * 32} is on mainnet"),
        ("devnet", "vm.near", "", "WRONG vm.near is an account of mainnet|OFFCHAINVM_CONTRACT_ID"),
        ("devnet", "vm.devnet", "op.devnet", "vm.devnet is on devnet"),
        ("mainnet", "vm.testnet", "op.near", "WRONG vm.testnet is an account of testnet|serves mainnet|OFFCHAINVM_CONTRACT_ID"),
        ("testnet", "vm.testnet", "op.near", "WRONG op.near is an account of mainnet|serves testnet|OPERATOR_ACCOUNT_ID"),
        ("testnet", "gone.testnet", "op.testnet", "WRONG gone.testnet is not on testnet|NEAR_RPC_URL"),
    ],
)
def test_an_account_of_another_network_is_wrong(
    monkeypatch: pytest.MonkeyPatch, chain_id: str, contract_id: str, operator_id: str, told: str
) -> None:
    accounts = dict.fromkeys(("vm.testnet", "vm.devnet", "ab" * 32), NEAR)
    monkeypatch.setenv("OPERATOR_ACCOUNT_ID", operator_id)
    monkeypatch.setattr(
        network, "rpc_with", lambda *_: (FakeRpc(chain_id, **accounts), SimpleNamespace(offchainvm_contract_id=contract_id))
    )
    if told.startswith("WRONG "):
        wrong(network.check_network, *told.removeprefix("WRONG ").split("|"))
    else:
        assert network.check_network() == told


@pytest.mark.parametrize(
    ("url", "contract_id", "rpc", "told"),
    [
        ("", "vm.testnet", "", "https://testnet.neardata.xyz (testnet)"),
        ("https://mainnet.neardata.xyz/v0/block", "vm.near", "", "https://mainnet.neardata.xyz (mainnet)"),
        ("http://127.0.0.1:8/v0/block", "vm.devnet", "", "http://127.0.0.1:8: its name tells no network"),
        ("", "vm.near", "", "WRONG serves blocks of testnet|vm.near is on mainnet|NEARDATA_API_URL"),
        ("", "ab" * 32, "https://rpc.invalid", "WRONG serves blocks of testnet|is on mainnet|NEARDATA_API_URL"),
        ("", "ab" * 32, "", "https://testnet.neardata.xyz (testnet)"),
    ],
)
def test_a_block_service_of_another_network_is_wrong(
    monkeypatch: pytest.MonkeyPatch, url: str, contract_id: str, rpc: str, told: str
) -> None:
    monkeypatch.setattr(network, "Rpc", lambda *_, **__: FakeRpc("mainnet"))
    for name, value in (("NEARDATA_API_URL", url), ("OFFCHAINVM_CONTRACT_ID", contract_id), ("NEAR_RPC_URL", rpc)):
        if value:
            monkeypatch.setenv(name, value)
    if told.startswith("WRONG "):
        wrong(network.check_block_service, *told.removeprefix("WRONG ").split("|"))
    else:
        assert network.check_block_service() == told


@pytest.mark.parametrize(
    ("balance", "spent", "told"),
    [
        (12 * NEAR, 0, "12.000 NEAR"),
        (12 * NEAR, None, "12.000 NEAR"),
        (12 * NEAR, 2 * NEAR, "12.000 NEAR, enough for 9.0 days at the rate of today and yesterday (1.3333 NEAR a day)"),
        (12 * NEAR, 8 * NEAR, "WRONG op.testnet has 12.000 NEAR, enough for 2.2 days"),
        (NEAR - 1, 0, "WRONG op.testnet has 1.000 NEAR."),
    ],
)
def test_a_balance_that_ends_soon_is_wrong(monkeypatch: pytest.MonkeyPatch, balance: int, spent: int | None, told: str) -> None:
    def spent_lately(_client: object) -> tuple[int, float]:
        if spent is None:
            raise Unavailable("redis", "away")
        return spent, 1.5 * 86_400

    settings = SimpleNamespace(operator_account_id="op.testnet", redis_url="")
    monkeypatch.setattr(chain, "rpc_with", lambda *_: (FakeRpc(**{"op.testnet": balance}), settings))
    monkeypatch.setattr(chain, "connect", lambda _url: nullcontext())
    monkeypatch.setattr(chain, "spent_lately", spent_lately)
    if told.startswith("WRONG "):
        wrong(chain.check_balance, told.removeprefix("WRONG "), "Top up OPERATOR_ACCOUNT_ID")
    else:
        assert chain.check_balance() == told


@pytest.mark.parametrize(
    ("allowances", "spent", "told"),
    [
        ([NEAR // 10], 0, "ed25519:1; function-call key, allowance 0.100 NEAR left"),
        ([None], 10 * NEAR, "ed25519:1; function-call key, allowance without limit"),
        ([0], 0, "WRONG ed25519:1 has 0.0000 NEAR left|8 transactions in flight need 0.0240 NEAR|Add a key"),
        ([NEAR, NEAR // 50], 0, "WRONG ed25519:2 has 0.0200 NEAR left|Add a key"),
        ([NEAR, NEAR], 2 * NEAR, "WRONG last for 1.5 days|2.000 NEAR left, 1.3333 NEAR a day|Add a key"),
        ([NEAR, None], 2 * NEAR, "allowance without limit"),
    ],
)
def test_an_allowance_that_ends_soon_is_wrong(monkeypatch: pytest.MonkeyPatch, allowances: list[int | None], spent: int, told: str) -> None:
    keys = {
        f"ed25519:{number}": AccessKey(1, 1, full_access=False, allowance_yocto=allowance, receiver_id="vm.testnet")
        for number, allowance in enumerate(allowances, 1)
    }
    settings = Settings.model_construct(operator_account_id="op.testnet", offchainvm_contract_id="vm.testnet")
    rpc = SimpleNamespace(access_key=lambda _account, public_key: keys[public_key])
    monkeypatch.setattr(chain, "rpc_with", lambda *_, **__: (rpc, settings))
    monkeypatch.setattr(chain, "operator_keys", lambda _: [SimpleNamespace(public_key=key) for key in keys])
    monkeypatch.setattr(chain, "connect", lambda _url: nullcontext())
    monkeypatch.setattr(chain, "spent_lately", lambda _client: (spent, 1.5 * 86_400))
    if told.startswith("WRONG "):
        wrong(chain.check_access_keys, *told.removeprefix("WRONG ").split("|"))
    else:
        assert all(text in chain.check_access_keys() for text in told.split("; "))


class FakeRedis(contextlib.nullcontext[None]):
    """A server by its configuration; an error instead of it is raised."""

    def __init__(self, answer: dict[str, str] | Exception) -> None:
        self.answer = answer

    def __enter__(self) -> Any:
        return self

    def info(self, _section: str) -> dict[str, str]:
        if isinstance(self.answer, RedisTimeoutError):
            raise self.answer
        return {"redis_version": "8.1"}

    def config_get(self, *_names: str) -> dict[str, str]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(("check", "setting"), [(services.check_redis, "REDIS_URL"), (services.check_broker, "BROKER_URL")])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"appendonly": "yes", "maxmemory-policy": "noeviction"}, "version 8.1, append-only file on"),
        (NoPermissionError("no CONFIG"), "version 8.1; its persistence cannot be read"),
        ({"appendonly": "no"}, "WRONG forgets its data|appendonly yes"),
        ({"appendonly": "yes", "maxmemory-policy": "allkeys-lru"}, "WRONG drops data|noeviction"),
        (RedisTimeoutError("late"), "WRONG Redis does not|{setting}"),
    ],
)
def test_a_redis_that_forgets_is_wrong_as_store_and_as_broker(
    monkeypatch: pytest.MonkeyPatch, check: Callable[[], str], setting: str, answer: dict[str, str] | Exception, told: str
) -> None:
    monkeypatch.setenv(setting, "redis://of-this-test")
    asked = list[str]()
    monkeypatch.setattr(services, "connect", lambda url: asked.append(url) or FakeRedis(answer))
    if told.startswith("WRONG "):
        wrong(check, *told.removeprefix("WRONG ").format(setting=setting).split("|"))
    else:
        assert check() == told
    assert asked == ["redis://of-this-test"]


def test_a_broker_that_is_the_redis_of_the_jobs_is_not_asked_twice_and_rabbitmq_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "connect", lambda _url: pytest.fail("asked"))
    with pytest.raises(NotLookedAt, match="the Redis of REDIS_URL: see its row"):
        services.check_broker()
    monkeypatch.setenv("BROKER_URL", "amqp://user:s3cret@rabbit/vhost")
    with pytest.raises(NotLookedAt, match="RabbitMQ") as caught:
        services.check_broker()
    assert "s3cret" not in str(caught.value)


def test_a_broker_whose_address_celery_alone_can_read_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "rediss://h:6380/0?ssl_cert_reqs=CERT_REQUIRED")
    with pytest.raises(NotLookedAt, match="written for Celery alone"):
        services.check_broker()


def test_builds_that_need_more_memory_than_the_machine_has_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"MemTotal": 8 << 30, "NCPU": 2, "Runtimes": {"runc": {}}, "DefaultRuntime": "runc"}
    monkeypatch.setattr(builds.engine, "connect", lambda: SimpleNamespace(info=lambda: machine, close=lambda: None))
    assert builds.check_memory() == "a build may take 5456 of the machine's 8192 MiB, all its files included: at most 1 at once"
    monkeypatch.setenv("BUILD_DISK_MB", "6145")
    wrong(builds.check_memory, "8193 MiB", "8192 MiB", "COMPILE_MEMORY_LIMIT_MB", "BUILD_DISK_MB")


@pytest.mark.parametrize(
    ("url", "status", "told"),
    [
        ("", 200, "https://github.com answers"),
        ("https://reader:s3cret@mirror.invalid/git", 404, "https://mirror.invalid answers"),
        ("https://reader:s3cret@mirror.invalid/git", 401, "WRONG https://mirror.invalid answers HTTP 401|SOURCE_MIRROR_URL"),
        ("https://reader:s3cret@mirror.invalid/git", 502, "WRONG answers HTTP 502|SOURCE_MIRROR_URL"),
        ("https://reader:s3cret@mirror.invalid/git", None, "WRONG https://mirror.invalid does not answer|SOURCE_MIRROR_URL"),
        ("file:///no/such/folder", None, "WRONG /no/such/folder is not there|SOURCE_MIRROR_URL"),
        ("file:///", None, "/"),
    ],
)
def test_a_source_host_that_does_not_answer_is_wrong_and_its_password_is_not_told(
    monkeypatch: pytest.MonkeyPatch, url: str, status: int | None, told: str
) -> None:
    def head(_session: requests.Session, asked: str, **_options: object) -> SimpleNamespace:
        assert asked == (url or "https://github.com/")
        if status is None:
            raise requests.ConnectionError(asked)
        return SimpleNamespace(status_code=status)

    monkeypatch.setenv("SOURCE_MIRROR_URL", url)
    monkeypatch.setattr(requests.Session, "head", head)
    if told.startswith("WRONG "):
        wrong(builds.check_source_host, *told.removeprefix("WRONG ").split("|"))
    else:
        assert builds.check_source_host() == told


def test_limits_that_executions_met_are_told_with_the_setting_that_raises_them(
    monkeypatch: pytest.MonkeyPatch, make_job: Callable[..., Any]
) -> None:
    def ended(code: str, **changes: Any) -> Any:
        return make_job(response=ExecutionResponse(success=False, error=f"{code}: a sentence"), **changes)

    jobs = [make_job(), ended("trap"), ended("timeout", module_sha256=None)]
    monkeypatch.setattr(limits, "connect", lambda _url: nullcontext())
    monkeypatch.setattr(limits, "JobStore", lambda _client: SimpleNamespace(list_jobs=lambda _state, limit: jobs[:limit]))
    assert limits.check_limits() == "none of 3 settled jobs met a limit"
    asked = jobs[0].limits
    jobs += [
        ended("memory_limit"),  # make_job's limits are clamped
        ended("memory_limit"),
        ended("timeout", limits=asked.model_copy(update={"max_execution_seconds": 60})),
        ended("out_of_fuel"),
    ]
    told = limits.check_limits()
    assert told.startswith("of 7 settled jobs 2 ended by memory_limit (raise MAX_MEMORY_MB:")
    assert "1 ended by timeout (raise DEFAULT_MAX_EXECUTION_SECONDS," in told
    assert told.endswith("1 ended by out_of_fuel (the request's own max_instructions)")
