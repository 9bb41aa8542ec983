"""Rows of `offchainvm doctor`: ok, wrong with a remedy, or not looked at."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from offchainvm import cli, logs
from offchainvm.bridge.watch import Cursor
from offchainvm.cli import doctor as command
from offchainvm.cli.checks import chain, fleet, needs, services
from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.near.rpc_answers import AccessKey
from offchainvm.settings import Role

Run = Callable[..., tuple[int, str, str]]
NOBODY = frozenset({Role.DASHBOARD})


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_BASE_URL", "API_AUTH_TOKEN", "NEAR_RPC_URL", "OPERATOR_ACCOUNT_ID", "OFFCHAINVM_CONTRACT_ID", "OPERATOR_PRIVATE_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert "PATH" in os.environ


def checks(monkeypatch: pytest.MonkeyPatch, **named: Callable[[], str]) -> None:
    monkeypatch.setattr(command, "CHECKS", [(NOBODY, name, check) for name, check in named.items()])


def raising(error: Exception) -> Callable[[], str]:
    def check() -> str:
        raise error

    return check


def test_nothing_wrong_is_exit_code_0(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checks(monkeypatch, Redis=lambda: "version 9", RPC=raising(needs.NotLookedAt("not looked at: X is not set")))
    code, out, _ = run("doctor", "--role", "dashboard", "--json")
    told = json.loads(out)
    assert (code, told["ok"]) == (0, True)
    assert [(row["name"], row["ok"]) for row in told["checks"]] == [("settings", True), ("Redis", True), ("RPC", None)]


def test_something_wrong_is_exit_code_1_with_its_remedy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checks(monkeypatch, Redis=raising(Unavailable("redis", "Redis is away.", remedy="Start it.")), RPC=lambda: "fine")
    code, out, _ = run("doctor", "--role", "dashboard")
    assert code == 1
    assert "Redis is away." in out
    assert "→ Start it." in out
    assert "1 of 3 are wrong." in out


def test_a_check_that_breaks_ends_neither_the_examination_nor_a_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checks(monkeypatch, odd=raising(KeyError("s3cret")), RPC=lambda: "fine")
    code, out, _ = run("doctor", "--role", "dashboard", "--json")
    assert code == 1
    assert [row["ok"] for row in json.loads(out.splitlines()[-1])["checks"]] == [True, False, True]
    assert "s3cret" not in out


def test_the_way_to_what_broke_a_check_is_shown_at_debug_level(monkeypatch: pytest.MonkeyPatch) -> None:
    checks(monkeypatch, odd=raising(KeyError("what")))
    levels, told = list[str](), list[dict[str, object]]()
    monkeypatch.setattr(logs, "configure", lambda *, level, **_: levels.append(level))
    monkeypatch.setattr(command, "log", SimpleNamespace(debug=lambda _event, **more: told.append(more)))
    for level in ("debug", "info"):
        monkeypatch.setenv("LOG_LEVEL", level)
        with pytest.raises(SystemExit):
            cli.main(["doctor", "--role", "dashboard"])
    assert levels == ["debug", "warn"]
    assert [(one["check"], one["error"], "test_doctor.py" in str(one["way"])) for one in told] == [("odd", "KeyError", True)] * 2


def test_a_problem_of_the_settings_is_told_once_for_all_roles(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checks(monkeypatch)
    code, out, _ = run("doctor", "--role", "compile", "--role", "execute", "--role", "dashboard", "--json")
    (row,) = json.loads(out)["checks"]
    assert (code, row["ok"]) == (1, False)
    assert row["detail"].count("API_BASE_URL: is missing") == 1
    assert row["detail"].endswith("complete for: dashboard")


def test_a_check_without_its_settings_is_not_looked_at() -> None:
    with pytest.raises(needs.NotLookedAt, match="API_BASE_URL, API_AUTH_TOKEN is not set"):
        services.check_coordinator()


@pytest.mark.parametrize(
    ("hours", "tasks", "messages", "remedies"),
    [(1, 2, 0, ("jobs rejected", "Upgrade")), (1, 0, 1, ("jobs rejected", "BROKER_URL")), (25, 2, 1, ()), (1, 0, 0, ())],
)
def test_what_was_set_aside_lately_is_wrong(
    monkeypatch: pytest.MonkeyPatch, hours: float, tasks: int, messages: int, remedies: tuple[str, ...]
) -> None:
    then = SimpleNamespace(at=time.time() - hours * 3600)
    monkeypatch.setattr(services, "connect", lambda _url: nullcontext())
    monkeypatch.setattr(services, "JobStore", lambda _client: SimpleNamespace(rejected=lambda _limit: [then] * tasks))
    monkeypatch.setattr(services, "Outbox", lambda _client: SimpleNamespace(aside=lambda _limit: [then] * messages))
    if not remedies:
        assert services.check_set_aside() == "nothing in the last 24 hours"
        return
    with pytest.raises(OffchainVMError, match=f"{tasks} tasks that cannot be read and {messages} messages") as caught:
        services.check_set_aside()
    assert all(text in caught.value.remedy for text in remedies)
    assert ("BROKER_URL" in caught.value.remedy, "Upgrade" in caught.value.remedy) == (bool(messages), bool(tasks))


def key(**values: object) -> AccessKey:
    return AccessKey(**{"nonce": 1, "block_height": 1, "full_access": False, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("access_key", "text"),
    [
        (key(full_access=True), "full access"),
        (key(receiver_id="vm.near", methods=("resolve_execution",)), "allowance without limit"),
        (key(receiver_id="vm.near", allowance_yocto=25 * 10**22), "0.250 NEAR left"),
    ],
)
def test_a_key_that_may_resolve_is_described(access_key: AccessKey, text: str) -> None:
    assert text in chain._permission(access_key, "vm.near")


@pytest.mark.parametrize("access_key", [key(receiver_id="other.near"), key(receiver_id="vm.near", methods=("pause",))])
def test_a_key_that_may_not_resolve_is_wrong(access_key: AccessKey) -> None:
    with pytest.raises(OffchainVMError, match=r"not resolve_execution of vm\.near"):
        chain._permission(access_key, "vm.near")


@pytest.mark.parametrize(
    ("holder", "newest", "problem", "remedy"),
    [
        ("bridge-1", 1010, "", ""),
        ("", 1010, "No event monitor is active: cursor 1007, 3 blocks", "offchainvm monitor"),
        ("bridge-1", 1500, r"493 blocks \(9\d s\) behind", "NEARDATA_REQUESTS_PER_MINUTE"),
    ],
)
def test_an_event_monitor_that_is_gone_or_far_behind_is_wrong(
    monkeypatch: pytest.MonkeyPatch, holder: str, newest: int, problem: str, remedy: str
) -> None:
    monkeypatch.setenv("OFFCHAINVM_CONTRACT_ID", "vm.near")
    cursor = Cursor(1007, block_at=time.time() - (95 if newest == 1500 else 4))
    monkeypatch.setattr(chain, "connect", lambda _url: nullcontext())
    monkeypatch.setattr(chain, "look_at_watch", lambda *_: (holder, cursor))
    monkeypatch.setattr(chain, "newest_height", lambda _sources: newest)
    if not problem:
        assert re.fullmatch(r"cursor 1007, 3 blocks \(\d+ s\) behind the newest height; active: bridge-1", chain.check_monitor())
        return
    with pytest.raises(OffchainVMError, match=problem) as caught:
        chain.check_monitor()
    assert remedy in caught.value.remedy


def test_a_contract_that_no_monitor_ever_watched_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFCHAINVM_CONTRACT_ID", "vm.near")
    monkeypatch.setattr(chain, "connect", lambda _url: nullcontext())
    monkeypatch.setattr(chain, "look_at_watch", lambda *_: ("", None))
    with pytest.raises(needs.NotLookedAt, match="no event monitor"):
        chain.check_monitor()


def test_a_queue_without_workers_names_the_command_that_starts_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_consumers", lambda: {"execute@one": ["execute"]})
    monkeypatch.setattr(fleet, "_registered", lambda _queue: [])
    assert fleet.check_queue("execute") == "execute@one"
    with pytest.raises(OffchainVMError, match="No worker serves") as caught:
        fleet.check_queue("resolve")
    assert caught.value.remedy == "Start one: celery -A offchainvm worker -Q resolve"


def test_a_worker_that_answers_too_late_serves_its_queue_by_its_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = {"compile": [SimpleNamespace(member=SimpleNamespace(id="compile@busy"))]}
    monkeypatch.setattr(fleet, "_consumers", dict)
    monkeypatch.setattr(fleet, "connect", lambda _url: nullcontext())
    monkeypatch.setattr(fleet, "Registry", lambda _client: SimpleNamespace(alive=lambda role: alive.get(role, [])))
    assert fleet.check_queue("compile") == "compile@busy"
    with pytest.raises(OffchainVMError, match="No worker serves"):
        fleet.check_queue("resolve")


def test_a_broker_that_is_away_is_asked_once_for_all_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()
    away = SimpleNamespace(connection_for_write=lambda: asked.append(1) or 1 / 0)
    monkeypatch.setattr("offchainvm.app.app", away)
    fleet._answers.cache_clear()
    for queue in fleet.QUEUES:
        with pytest.raises(OffchainVMError, match="broker does not answer"):
            fleet.check_queue(queue)
    fleet._answers.cache_clear()
    assert len(asked) == 1


def test_each_role_is_examined_by_what_it_needs() -> None:
    names = {role: [name for roles, name, _ in command.CHECKS if role in roles] for role in Role}
    assert "access keys" in names[Role.RESOLVE]
    assert "access keys" not in names[Role.EXECUTE]
    assert "Docker" in names[Role.COMPILE]
    assert "Docker" not in names[Role.BRIDGE]
    assert all("Redis" in checks for checks in names.values())
