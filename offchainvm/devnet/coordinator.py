"""The local Coordinator: every endpoint of the real one, with its habits, in memory.

Read in the anchor's server, first public version (``coordinator/src/{main,auth,handlers/*}.rs``): a task popped by a
poll is gone, ``create`` queues twice when called twice, ``complete`` knows no unknown id, locks have neither owner nor
renewal, and the body limit of its HTTP library (2 MiB) is everybody's.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote

from offchainvm.devnet import multipart, schema
from offchainvm.devnet.http import HttpError, Reply, Request, Service

POLL_CAP_SECONDS = 120
BODY_LIMIT_BYTES = 2 * 1024 * 1024
_EMPTY_OK = Reply()


@dataclass
class CoordinatorSettings:
    """What a test may turn, at start or through ``POST /control/settings``."""

    body_limit_bytes: int = BODY_LIMIT_BYTES
    lossy_poll: bool = False
    """A task handed to a poll whose client went away is lost, as on the real server."""
    always_compile: bool = False
    """Every task is a Compile task, as on the anchor's first server."""
    execute_with_input: bool = False
    """Execute tasks carry ``input_data``, as on later servers."""


@dataclass(frozen=True)
class Module:
    """One entry of the module cache."""

    wasm: bytes
    repo_url: str = ""
    commit_hash: str = ""


class CoordinatorApp(Service):
    """The ASGI application. ``token`` is what a client must show."""

    def __init__(self, *, token: str, settings: CoordinatorSettings | None = None, record_limit: int = 10_000) -> None:
        self.settings = settings or CoordinatorSettings()
        super().__init__(body_limit_bytes=self.settings.body_limit_bytes, record_limit=record_limit)
        self._bearer = f"Bearer {token}".encode()
        self.queue: deque[bytes] = deque()
        self.reports: list[dict[str, Any]] = []
        self.modules: dict[str, Module] = {}
        self.locks: dict[str, tuple[str, float]] = {}
        self.created = 0
        self._waiters: deque[asyncio.Future[bytes | None]] = deque()
        self._reported = asyncio.Event()
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = [
            ("GET", re.compile(r"/tasks/poll"), self._poll),
            ("POST", re.compile(r"/tasks/complete"), self._complete),
            ("POST", re.compile(r"/tasks/fail"), self._fail),
            ("POST", re.compile(r"/tasks/create"), self._create),
            ("GET", re.compile(r"/wasm/exists/([^/]+)"), self._exists),
            ("POST", re.compile(r"/wasm/upload"), self._upload),
            ("GET", re.compile(r"/wasm/([^/]+)"), self._download),
            ("POST", re.compile(r"/locks/acquire"), self._acquire),
            ("DELETE", re.compile(r"/locks/release/([^/]+)"), self._release),
        ]
        self._switches: dict[tuple[str, str], Callable[[Request, str], Reply]] = {
            ("DELETE", "reports"): self._forget_reports,
            ("GET", "tasks"): self._list_tasks,
            ("POST", "tasks"): self._push_raw,
            ("GET", "wasm"): self._list_modules,
            ("PUT", "wasm"): self._put_module,
            ("DELETE", "wasm"): self._drop_module,
            ("GET", "locks"): self._list_locks,
            ("DELETE", "locks"): self._clear_locks,
            ("GET", "settings"): self._get_settings,
            ("POST", "settings"): self._set_settings,
        }

    async def answer(self, request: Request) -> Reply:
        if request.raw_path == "/health":
            return Reply.text(200, "OK")
        shown = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(shown, self._bearer):
            return Reply(401)
        known = False
        for method, pattern, handler in self._routes:
            if match := pattern.fullmatch(request.raw_path):
                known = True
                if method == request.method:
                    reply: Reply = await handler(request, *(unquote(part) for part in match.groups()))
                    return reply
        return Reply(405 if known else 404)

    async def stop(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Tasks

    def push(self, task: bytes) -> None:
        """Queue one task as it is; the longest waiting poll gets it at once."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(task)
                return
        self.queue.append(task)

    async def _poll(self, request: Request) -> Reply:
        timeout = request.query.get("timeout", "60")
        if not re.fullmatch(r"\d{1,20}", timeout):
            raise HttpError(Reply.text(400, "Failed to deserialize query string: invalid digit found in string"))
        # BRPOP takes 0 as "for ever": the real server does too.
        task = self.queue.popleft() if self.queue else await self._next_task(request, min(int(timeout), POLL_CAP_SECONDS) or None)
        return Reply(204) if task is None else Reply.json(task)

    async def _next_task(self, request: Request, timeout_seconds: float | None) -> bytes | None:
        waiter: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        gone = asyncio.ensure_future(request.gone())
        watched: set[asyncio.Future[Any]] = {waiter} if self.settings.lossy_poll else {waiter, gone}
        await asyncio.wait(watched, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        left, _ = gone.done(), gone.cancel()
        if not waiter.done():
            waiter.cancel()
            self._waiters.remove(waiter)
            return None
        task = waiter.result()
        if left and task is not None and not self.settings.lossy_poll:
            self.queue.appendleft(task)
            return None
        return task

    async def _create(self, request: Request) -> Reply:
        new = schema.new_task(self._json(request))
        self.created += 1
        source = new["code_source"]
        checksum = hashlib.sha256((source["repo"] + source["commit"] + source["build_target"]).encode()).hexdigest()
        task = {"type": "Compile", **new}
        if checksum in self.modules and not self.settings.always_compile:
            ids = {"request_id": new["request_id"], "data_id": new["data_id"]}
            task = {"type": "Execute", **ids, "wasm_checksum": checksum, "resource_limits": new["resource_limits"]}
            if self.settings.execute_with_input:
                task["input_data"] = new["input_data"]
        self.push(json.dumps(task, separators=(",", ":"), ensure_ascii=False).encode())
        return Reply(201)

    async def _complete(self, request: Request) -> Reply:
        return self._report("complete", schema.completion(self._json(request)))

    async def _fail(self, request: Request) -> Reply:
        return self._report("fail", schema.failure(self._json(request)))

    def _report(self, kind: str, report: dict[str, Any]) -> Reply:
        self.reports.append({"kind": kind, **report})
        self._reported.set()
        self._reported = asyncio.Event()
        return _EMPTY_OK

    def _json(self, request: Request) -> Any:
        """The body of a JSON endpoint, refused as the server's HTTP library (axum) refuses it."""
        if request.too_large:
            raise HttpError(Reply.text(413, "Failed to buffer the request body: length limit exceeded"))
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise HttpError(Reply.text(415, "Expected request with `Content-Type: application/json`"))
        return request.json()

    # Modules

    async def _exists(self, _: Request, checksum: str) -> Reply:
        return Reply.json({"exists": checksum in self.modules})

    async def _download(self, _: Request, checksum: str) -> Reply:
        module = self.modules.get(checksum)
        return Reply(404) if module is None else Reply(200, module.wasm, "application/octet-stream")

    async def _upload(self, request: Request) -> Reply:
        if request.too_large:
            return Reply(400)  # the server's loop over the parts ends at the limit: a part is missing
        try:
            parts = multipart.parse(request.body, request.headers.get("content-type", ""))
        except ValueError as error:
            raise HttpError(Reply.text(400, str(error))) from None
        names = ("checksum", "repo_url", "commit_hash")
        checksum, repo_url, commit_hash = (parts.get(name, b"").decode(errors="replace") for name in names)
        if "wasm_file" not in parts or not checksum or not repo_url or not commit_hash:
            return Reply(400)
        self.modules[checksum] = Module(parts["wasm_file"], repo_url, commit_hash)
        return Reply(201)

    # Locks

    async def _acquire(self, request: Request) -> Reply:
        wanted = schema.lock(self._json(request))
        now = time.monotonic()
        held = self.locks.get(wanted["lock_key"])
        # SET … NX EX 0 is an error on Redis, and the server answers every error with "not acquired".
        free = (held is None or held[1] <= now) and wanted["ttl_seconds"] > 0
        if free:
            self.locks[wanted["lock_key"]] = (wanted["worker_id"], now + wanted["ttl_seconds"])
        return Reply.json({"acquired": free})

    async def _release(self, _: Request, lock_key: str) -> Reply:
        self.locks.pop(lock_key, None)
        return _EMPTY_OK

    # Our own switches

    async def control(self, request: Request, rest: str) -> Reply:
        name, _, argument = rest.partition("/")
        if (request.method, name) == ("GET", "reports"):
            return await self._list_reports(request)
        handler = self._switches.get((request.method, name))
        return handler(request, argument) if handler else await super().control(request, rest)

    async def _list_reports(self, request: Request) -> Reply:
        """All reports, or those of ``?request_id=``; ``?wait=S`` waits up to S seconds for the first such one."""
        deadline = time.monotonic() + float(request.query.get("wait", "0"))
        wanted = request.query.get("request_id")
        while True:
            found = [report for report in self.reports if wanted is None or str(report["request_id"]) == wanted]
            left = deadline - time.monotonic()
            if found or left <= 0:
                return Reply.json(found)
            await asyncio.wait({asyncio.ensure_future(self._reported.wait())}, timeout=left)

    def _forget_reports(self, _: Request, __: str) -> Reply:
        self.reports.clear()
        return Reply.json({})

    def _list_tasks(self, _: Request, __: str) -> Reply:
        queued = [task.decode(errors="replace") for task in self.queue]
        return Reply.json({"queued": queued, "waiting_polls": len(self._waiters), "created": self.created})

    def _push_raw(self, request: Request, _: str) -> Reply:
        self.push(request.body)
        return Reply(201)

    def _list_modules(self, _: Request, checksum: str) -> Reply:
        if checksum:
            module = self.modules.get(checksum)
            return Reply(404) if module is None else Reply(200, module.wasm, "application/wasm")
        return Reply.json({key: _described(module) for key, module in self.modules.items()})

    def _put_module(self, request: Request, checksum: str) -> Reply:
        self.modules[checksum] = Module(request.body)
        return Reply(201)

    def _drop_module(self, _: Request, checksum: str) -> Reply:
        if checksum:
            self.modules.pop(checksum, None)
        else:
            self.modules.clear()
        return Reply.json({})

    def _list_locks(self, _: Request, __: str) -> Reply:
        now = time.monotonic()
        held = {key: {"worker_id": owner, "ttl_seconds": round(end - now, 3)} for key, (owner, end) in self.locks.items() if end > now}
        return Reply.json(held)

    def _clear_locks(self, _: Request, __: str) -> Reply:
        self.locks.clear()
        return Reply.json({})

    def _get_settings(self, _: Request, __: str) -> Reply:
        return Reply.json(asdict(self.settings))

    def _set_settings(self, request: Request, _: str) -> Reply:
        for key, value in request.json().items():
            if key not in asdict(self.settings):
                raise HttpError(Reply.text(422, f"there is no setting {key!r}"))
            setattr(self.settings, key, value)
        self.body_limit_bytes = self.settings.body_limit_bytes
        return Reply.json(asdict(self.settings))


def _described(module: Module) -> dict[str, Any]:
    return {
        "size": len(module.wasm),
        "sha256": hashlib.sha256(module.wasm).hexdigest(),
        "repo_url": module.repo_url,
        "commit_hash": module.commit_hash,
    }
