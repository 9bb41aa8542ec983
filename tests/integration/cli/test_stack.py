"""The stack: who holds what, and what is left after each way to end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from offchainvm.cli import world
from offchainvm.cli.process import session_members
from offchainvm.cli.stack import Stack, StackOptions
from offchainvm.compiler.local import BRANCH
from offchainvm.errors import Unavailable

KEY_HOLDERS = {"resolve"}
TOKEN_HOLDERS = {"bridge", "execute"}


def environment_of(pid: int | None) -> str:
    return Path(f"/proc/{pid}/environ").read_text(errors="replace")


def ask(stack: Stack, text: str) -> str | None:
    requested = stack.client.request_execution(world.REPOSITORY, BRANCH, world.TARGET, text)
    return stack.client.result(requested.request_id, 60).value


def test_a_request_is_answered(stack: Stack) -> None:
    assert ask(stack, "one two") == world.expected_answer("one two")


def test_each_process_holds_the_secrets_of_its_role_alone(stack: Stack) -> None:
    key = stack.keys.function_call_keys[0].secret_text
    for name in ("bridge", "execute", "resolve"):
        environment = environment_of(stack.processes[name].pid)
        assert (key in environment) == (name in KEY_HOLDERS), name
        assert (stack.api_token in environment) == (name in TOKEN_HOLDERS), name


def test_no_process_sees_the_callers_settings(stack: Stack) -> None:
    for name, process in stack.processes.items():
        environment = environment_of(process.pid)
        assert "callers-own" not in environment, name
        assert "nowhere.invalid" not in environment, name


def test_secrets_on_disk_are_their_owners_alone(stack: Stack, settings_file: Path) -> None:
    for file in (stack.folder / "coordinator-token", stack.folder / "chain-keys.json", settings_file):
        assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["execute", "resolve"])
def test_a_killed_process_comes_back_and_the_next_request_is_answered(stack: Stack, name: str) -> None:
    before = stack.processes[name].pid
    stack.kill(name)
    assert name not in stack.running()
    stack.restart(name)
    assert stack.processes[name].pid != before
    assert ask(stack, f"after {name}") == world.expected_answer(f"after {name}")


def test_redis_and_the_services_keep_their_places_over_a_restart(stack: Stack) -> None:
    urls = (stack.redis_url, stack.coordinator_url)
    stack.kill("redis")
    stack.restart("redis")
    stack.restart("coordinator")
    assert (stack.redis_url, stack.coordinator_url) == urls


def test_a_second_worker_of_a_role_has_a_name_of_its_own(stack: Stack) -> None:
    assert stack.add("execute") == ["execute-2"]
    assert stack.processes["execute-2"].running
    stack.processes.pop("execute-2").stop(15)


def test_stop_leaves_neither_process_nor_folder() -> None:
    stack = Stack(StackOptions(roles=("bridge",))).start()
    folder, sessions = stack.folder, [process.pid or 0 for process in stack.processes.values()]
    redis = stack.redis.pid if stack.redis else None
    stack.stop()
    assert not folder.exists()
    assert [pid for session in sessions for pid in session_members(session)] == []
    with pytest.raises(ProcessLookupError):
        os.kill(redis or 0, signal.SIG_DFL)


def test_a_part_that_does_not_come_up_is_named_with_its_log_and_nothing_is_left(tmp_path: Path) -> None:
    stack = Stack(StackOptions(roles=("bridge",), settings={"POLL_CONCURRENCY": "none"}), folder=tmp_path)
    with pytest.raises(Unavailable, match=r"(?s)The process bridge ended with exit code 2\..*POLL_CONCURRENCY"):
        stack.start()
    assert stack.processes == {}
