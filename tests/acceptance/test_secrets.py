"""No secret of a run can be read anywhere but where it belongs: every place that people look at is searched for all of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import base58
import pytest
import urllib3
from celery import Celery
from redis import Redis
from workers import command_line
from world import World, echo_module

from offchainvm.cli.process import session_members

ROLES = ("bridge", "monitor", "execute", "resolve", "flower", "web")
NEARDATA_KEY = "neardata-key-of-this-run-4711"
MIRROR_PASSWORD = "mirror-password-of-this-run-4712"
PAGES = ("", "workers", "tasks", "broker", "workers?json=1", "task/{task}", "worker/{worker}")


@pytest.fixture(scope="module")
def world(make_world: Callable[..., Any]) -> Iterator[World]:
    settings = {
        "LOG_LEVEL": "trace",
        "TASK_EVENTS": "true",
        "NEARDATA_API_KEY": NEARDATA_KEY,
        "SOURCE_MIRROR_URL": f"https://reader:{MIRROR_PASSWORD}@mirror.invalid",
    }
    with make_world(settings=settings, roles=ROLES) as world:
        world.cache("secrets", echo_module())
        world.cache("rubbish", b"no module")
        for name in ("secrets", "rubbish"):
            request = world.ask(name, "an input")
            if name == "secrets":
                world.assert_answered_once(request, "an input")
        yield world


@pytest.fixture(scope="module")
def secrets(world: World) -> dict[str, bytes]:
    """What must not be found, by what it is; a key in every form that it has."""
    found = {"API token": world.stack.api_token.encode(), "API key": NEARDATA_KEY.encode(), "password": MIRROR_PASSWORD.encode()}
    for key in (*world.stack.keys.function_call_keys, *world.stack.keys.full_access_keys):
        text = key.secret_text.removeprefix("ed25519:")
        raw = base58.b58decode(text)
        seed = raw[:32]
        forms = {"base58": text.encode(), "raw": seed, "hex": seed.hex().encode(), "base64": base64.b64encode(seed)[:42]}
        found.update({f"{key!r} in {form}": value for form, value in forms.items()})
    return found


def found_in(secrets: dict[str, bytes], places: dict[str, bytes]) -> list[tuple[str, str]]:
    assert all(places.values()), [name for name, content in places.items() if not content]
    return [(place, name) for place, content in places.items() for name, secret in secrets.items() if secret in content]


def test_the_search_finds_them_where_they_belong(world: World, secrets: dict[str, bytes]) -> None:
    files = {name: (world.stack.folder / name).read_bytes() for name in ("coordinator-token", "chain-keys.json")}
    files["environment of the monitor"] = Path(f"/proc/{world.stack.processes['monitor'].pid}/environ").read_bytes()
    assert {place for place, _ in found_in(secrets, files)} == set(files)


def test_logs_tell_none(world: World, secrets: dict[str, bytes]) -> None:
    logs = {file.name: file.read_bytes() for file in (world.stack.folder / "logs").glob("*.log")}
    assert {"bridge.log", "monitor.log", "execute.log", "resolve.log", "flower.log"} <= set(logs)
    assert found_in(secrets, logs) == []


def test_command_lines_tell_none(world: World, secrets: dict[str, bytes]) -> None:
    sessions = [process.pid for process in world.stack.processes.values() if process.pid]
    lines = {str(pid): line for session in sessions for pid in session_members(session) if (line := command_line(pid))}
    assert len(lines) > len(ROLES)
    assert found_in(secrets, lines) == []


def test_redis_holds_none(world: World, secrets: dict[str, bytes]) -> None:
    with Redis.from_url(world.stack.redis_url) as client:
        content = {key.decode(): client.dump(key) or b"-" for key in client.scan_iter(count=1000)}
        values = {f"{key} (read)": _read(client, key) for key in content}
    assert any(key.startswith("ovm:") for key in content)
    assert found_in(secrets, {**content, **values}) == []


def _read(client: Redis, key: str) -> bytes:
    """Everything below a key: a dump may be compressed."""
    kind = client.type(key).decode()
    readers: dict[str, Callable[[], Any]] = {
        "string": lambda: client.get(key),
        "hash": lambda: client.hgetall(key),
        "list": lambda: client.lrange(key, 0, -1),
        "set": lambda: client.smembers(key),
        "zset": lambda: client.zrange(key, 0, -1),
        "stream": lambda: client.xrange(key),
    }
    content = readers[kind]() if kind in readers else b"gone"
    return content if isinstance(content, bytes) and content else repr(content).encode()


def test_flower_shows_none(world: World, secrets: dict[str, bytes]) -> None:
    task = next(job.data_id for job in world.store.list_jobs(limit=10))
    names = {"task": f"execute:{task}:0", "worker": f"execute@{world.stack.worker_id('execute')}"}
    http = urllib3.PoolManager(retries=False)
    pages = {page: http.request("GET", f"{world.stack.page_url('flower')}/{page.format(**names)}") for page in PAGES}
    assert {page for page, reply in pages.items() if reply.status == 200} >= {"", "workers", "tasks", "broker"}
    assert found_in(secrets, {page: reply.data for page, reply in pages.items()}) == []


def test_the_status_page_shows_none(world: World, secrets: dict[str, bytes]) -> None:
    jobs = [f"jobs/{job.data_id}" for job in world.store.list_jobs(limit=10)]
    http = urllib3.PoolManager(retries=False)
    pages = {page: http.request("GET", f"{world.stack.page_url('web')}/{page}") for page in ("", "fleet", "keys", "queues", *jobs)}
    assert {reply.status for reply in pages.values()} == {200}
    assert found_in(secrets, {page: reply.data for page, reply in pages.items()}) == []


def test_inspection_tells_none(world: World, secrets: dict[str, bytes]) -> None:
    task = next(job.data_id for job in world.store.list_jobs(limit=10))
    workers = [f"{role}@{world.stack.worker_id(role)}" for role in ("execute", "resolve")]
    with Celery(broker=world.stack.redis_url, set_as_current=False) as app:
        asked = app.control.inspect(destination=workers, timeout=10)
        told = {name: repr(getattr(asked, name)()).encode() for name in ("conf", "report", "stats", "reserved", "registered")}
        told["query_task"] = repr(asked.query_task(f"execute:{task}:0")).encode()
    assert all(worker.encode() in told["conf"] for worker in workers)
    assert found_in(secrets, told) == []


def test_health_and_metrics_tell_none(world: World, secrets: dict[str, bytes]) -> None:
    http, pages = urllib3.PoolManager(retries=False), {}
    for role in ("bridge", "monitor", "execute", "resolve"):
        for path in ("health/live", "health/ready", "metrics"):
            pages[f"{role}/{path}"] = http.request("GET", f"{world.stack.health_url(role)}/{path}").data
    assert json.loads(pages["bridge/health/live"])["ok"] is True
    assert found_in(secrets, pages) == []
