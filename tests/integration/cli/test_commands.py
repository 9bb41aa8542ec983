"""The commands that look at a running stack, as their user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from offchainvm.cli import world
from offchainvm.cli.replay import EXIT_DIFFERS
from offchainvm.cli.stack import Stack
from offchainvm.compiler.local import BRANCH
from offchainvm.jobs.connection import connect


def offchainvm(*words: str, env_file: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(env_file.parent), "OFFCHAINVM_ENV_FILE": str(env_file), "COLUMNS": "200"}
    command = [sys.executable, "-m", "offchainvm", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=env_file.parent)


def test_jobs_shows_a_job_and_its_stages(stack: Stack, settings_file: Path) -> None:
    requested = stack.client.request_execution(world.REPOSITORY, BRANCH, world.TARGET, "count me")
    stack.client.result(requested.request_id, 60)
    listed = json.loads(offchainvm("jobs", "list", "--json", env_file=settings_file).stdout)
    assert requested.data_id in [job["data_id"] for job in listed]
    shown = offchainvm("jobs", "show", requested.data_id[:16], env_file=settings_file)
    assert shown.returncode == 0
    for text in (requested.data_id, "execute", "signed", '"words":2'):
        assert text in shown.stdout


def test_a_job_whose_answer_was_carried_is_not_run_again(stack: Stack, settings_file: Path) -> None:
    requested = stack.client.request_execution(world.REPOSITORY, BRANCH, world.TARGET, "once only")
    stack.client.result(requested.request_id, 60)
    refused = offchainvm("jobs", "retry", str(requested.request_id), env_file=settings_file)
    assert (refused.returncode, "must never follow" in refused.stdout) == (1, True)


def test_doctor_finds_a_running_stack_well_and_names_the_queue_that_nobody_serves(stack: Stack, settings_file: Path) -> None:
    examined = offchainvm("doctor", "--role", "bridge", "--role", "resolve", "--json", env_file=settings_file)
    rows = {row["name"]: row for row in json.loads(examined.stdout)["checks"]}
    assert examined.returncode == 1
    assert [name for name, row in rows.items() if row["ok"] is False] == ["queue compile"]
    assert [name for name, row in rows.items() if row["ok"] is None] == ["broker"], "it is the Redis of REDIS_URL"
    assert rows["queue compile"]["remedy"] == "Start one: celery -A offchainvm worker -Q compile"
    assert rows["operator role"]["detail"].startswith("operator.devnet is the operator")
    assert "function-call key" in rows["access keys"]["detail"]
    # The Coordinator tells whole seconds.
    assert re.fullmatch(r"(agrees with|\d s (ahead of|behind)) the Coordinator, agrees with the newest block", rows["clock"]["detail"])
    assert rows["network"]["detail"].endswith(" is on devnet")
    assert re.match(r"(9999|10000)\.\d{3} NEAR", rows["balance"]["detail"])
    assert re.fullmatch(r"none of \d+ settled jobs met a limit", rows["limits"]["detail"])
    assert rows["queue execute"]["detail"] == f"execute@{stack.worker_id('execute')}"
    assert rows["event monitor"]["detail"].endswith(f"active: {stack.worker_id('bridge')}")
    assert stack.keys.function_call_keys[0].secret_text not in examined.stdout + examined.stderr
    assert stack.api_token not in examined.stdout + examined.stderr


def test_doctor_tells_a_wrong_token_a_wrong_account_and_a_dead_redis_apart(stack: Stack, settings_file: Path) -> None:
    wrong = {"API_AUTH_TOKEN": "wrong", "OPERATOR_ACCOUNT_ID": "client.devnet", "REDIS_URL": "redis://127.0.0.1:1/0"}
    lines = [line for line in settings_file.read_text().splitlines() if line.partition("=")[0] not in wrong]
    settings_file.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in wrong.items())]))
    examined = offchainvm("doctor", "--role", "bridge", "--role", "resolve", "--json", env_file=settings_file)
    rows = {row["name"]: row for row in json.loads(examined.stdout)["checks"]}
    assert examined.returncode == 1
    assert (rows["settings"]["ok"], rows["RPC"]["ok"]) == (True, True)
    assert "API_AUTH_TOKEN" in rows["Coordinator"]["detail"] + rows["Coordinator"]["remedy"]
    assert "has no key" in rows["access keys"]["detail"]
    assert "not client.devnet" in rows["operator role"]["detail"]
    assert "REDIS_URL" in rows["Redis"]["remedy"]
    assert "BROKER_URL" in rows["queue execute"]["remedy"]


def test_a_finished_job_is_replayed_and_agrees_until_its_record_says_something_else(stack: Stack, settings_file: Path) -> None:
    requested = stack.client.request_execution(world.REPOSITORY, BRANCH, world.TARGET, "count me again")
    stack.client.result(requested.request_id, 60)
    words = ("jobs", "replay", str(requested.request_id))
    again = offchainvm(*words, "--json", env_file=settings_file)
    told = json.loads(again.stdout)
    assert (again.returncode, told["status"], told["replay"]["agrees"]) == (0, "ok", True), again.stderr
    assert '"words":3' in told["stdout"]
    assert {row["name"]: row["agrees"] for row in told["replay"]["compared"]}["module"] is True
    record, redis = f"ovm:job:{requested.data_id}", connect(stack.redis_url)
    response = json.loads(str(redis.hget(record, "response"), "ascii"))  # type: ignore[arg-type]
    response["resources_used"]["instructions"] += 1
    redis.hset(record, "response", json.dumps(response))
    differing = offchainvm(*words, env_file=settings_file)
    assert differing.returncode == EXIT_DIFFERS
    for text in ("ok", "compared with the record", "DIFFERS", '"words":3'):
        assert text in differing.stdout


def test_a_replay_says_when_the_module_or_the_input_is_gone(stack: Stack, settings_file: Path) -> None:
    requested = stack.client.request_execution(world.REPOSITORY, BRANCH, world.TARGET, "soon gone")
    stack.client.result(requested.request_id, 60)
    record, redis = f"ovm:job:{requested.data_id}", connect(stack.redis_url)
    words = ("jobs", "replay", requested.data_id)
    fixed = json.loads(str(redis.hget(record, "fixed"), "utf-8"))  # type: ignore[arg-type]
    redis.hset(record, "fixed", json.dumps({**fixed, "input": None}))
    redis.hdel(record, "event")
    redis.delete(f"ovm:input:{requested.data_id}")
    without_input = offchainvm(*words, env_file=settings_file)
    assert (without_input.returncode, "The input of this job is gone" in without_input.stderr) == (1, True), without_input.stderr
    redis.hset(record, "module", "0" * 64)
    without_module = offchainvm(*words, env_file=settings_file)
    assert (without_module.returncode, "The module of this job is gone" in without_module.stderr) == (1, True), without_module.stderr
    assert "offchainvm build" in without_module.stderr
