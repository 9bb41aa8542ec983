"""The small HTTP layer both local services share: plain ASGI, recording of requests, and faults on demand.

No framework between the server and the handlers: a request costs some 30 µs here, and both services share
the cores with what is measured against them. Paths under ``/control/`` are ours; all else is the wire.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from offchainvm.devnet.faults import Fault, Faults

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_CONTROL_LIMIT_BYTES = 256 * 1024 * 1024
_SECRET_QUERY = frozenset({"apikey", "api_key", "token"})


@dataclass(frozen=True)
class Request:
    """One HTTP request, its body read whole; ``raw_path`` keeps percent-encoding, ``path`` does not."""

    method: str
    path: str
    raw_path: str
    query: dict[str, str]
    query_text: str
    headers: dict[str, str]
    body: bytes
    too_large: bool = False
    _receive: Receive | None = None

    def json(self) -> Any:
        """The body as JSON; ``HttpError`` 400 when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HttpError(Reply.text(400, f"The body is not JSON: {error}")) from None

    async def gone(self) -> None:
        """Return when the client has closed the connection."""
        while self._receive is not None:
            if (await self._receive())["type"] == "http.disconnect":
                return
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Reply:
    """What is answered; ``body`` is sent as it is."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def json(value: Any, status: int = 200) -> Reply:
        body = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        return Reply(status, body, "application/json")

    @staticmethod
    def text(status: int, text: str) -> Reply:
        return Reply(status, text.encode(), "text/plain; charset=utf-8")


class HttpError(Exception):
    """Ends a handler with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass
class Recorded:
    """One request as it came, without the value of its token."""

    seq: int
    request: Request
    status: int | None = None

    def as_json(self) -> dict[str, Any]:
        body = self.request.body
        try:
            text: str | None = body.decode()
        except UnicodeDecodeError:
            text = None
        return {
            "seq": self.seq,
            "method": self.request.method,
            "path": self.request.raw_path,
            "query": {key: "***" if key.lower() in _SECRET_QUERY else value for key, value in self.request.query.items()},
            "headers": {key: _redacted(key, value) for key, value in self.request.headers.items()},
            "body": text,
            "body_base64": base64.b64encode(body).decode(),
            "status": self.status,
        }


def _redacted(header: str, value: str) -> str:
    if header not in {"authorization", "x-api-key", "cookie"}:
        return value
    scheme, space, _ = value.partition(" ")
    return f"{scheme} ***" if space else "***"


Handler = Callable[[Request], Awaitable[Reply]]


class Service:
    """Base of both ASGI applications: ``answer`` serves the wire, ``control`` our own switches.

    ``record_limit``: how many requests are kept for ``/control/requests``; 0 keeps none.
    """

    def __init__(self, *, body_limit_bytes: int = 16 * 1024 * 1024, record_limit: int = 10_000) -> None:
        self.body_limit_bytes = body_limit_bytes
        self.faults = Faults()
        self.recorded: deque[Recorded] = deque(maxlen=record_limit)
        self._sequence = itertools.count(1)
        self._controls: dict[tuple[str, str], Handler] = {
            ("GET", "requests"): self._list_requests,
            ("DELETE", "requests"): self._forget_requests,
            ("GET", "faults"): self._list_faults,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
        }

    async def answer(self, request: Request) -> Reply:
        """Answer one request of the wire."""
        raise NotImplementedError

    async def control(self, request: Request, rest: str) -> Reply:
        """Answer ``/control/{rest}`` of this service's own."""
        raise HttpError(Reply.text(404, f"There is no control endpoint {request.method} /control/{rest}."))

    async def start(self) -> None:
        """Begin background work; called on the server's loop."""

    async def stop(self) -> None:
        """End background work and let waiting requests go."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        ours = scope["path"].startswith("/control/")
        request = await _read_request(scope, receive, _CONTROL_LIMIT_BYTES if ours else self.body_limit_bytes)
        try:
            if ours:
                reply = await self._answer_control(request)
            else:
                reply = await self._answer_wire(request, send)
        except HttpError as error:
            reply = error.reply
        except _Dropped:
            return
        await _send_reply(reply, send)

    async def _answer_control(self, request: Request) -> Reply:
        rest = request.path[len("/control/") :]
        if handler := self._controls.get((request.method, rest)):
            return await handler(request)
        return await self.control(request, rest)

    async def _answer_wire(self, request: Request, send: Send) -> Reply:
        record = Recorded(next(self._sequence), request)
        self.recorded.append(record)
        fault = self.faults.take(request.method, request.raw_path, request.body)
        if fault is not None and (early := await self._before(fault, request, send)):
            record.status = early.status
            return early
        try:
            reply = await self.answer(request)
        except HttpError as error:
            reply = error.reply
        if fault is not None and fault.kind == "drop_after":
            await _drop(request, send)
        record.status = reply.status
        return reply

    async def _before(self, fault: Fault, request: Request, send: Send) -> Reply | None:
        """What a fault does instead of, or ahead of, the real answer."""
        if fault.kind == "status":
            return Reply(fault.status, fault.body.encode(), fault.content_type, tuple(fault.headers.items()))
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        elif fault.kind == "hang":
            await asyncio.wait(
                {asyncio.ensure_future(request.gone()), asyncio.ensure_future(self.faults.cleared())},
                return_when=asyncio.FIRST_COMPLETED,
            )
            await _drop(request, send)
        elif fault.kind == "drop":
            await _drop(request, send)
        elif fault.kind not in ("drop_after", "none"):
            return self.special_fault(fault, request)
        return None

    def special_fault(self, fault: Fault, request: Request) -> Reply | None:  # noqa: ARG002 a service may bring kinds of its own
        """The answer of a fault kind of this service's own; None lets the request through."""
        return None

    async def _list_requests(self, request: Request) -> Reply:
        since, prefix = int(request.query.get("since", "0")), request.query.get("path", "")
        return Reply.json([r.as_json() for r in self.recorded if r.seq > since and r.request.raw_path.startswith(prefix)])

    async def _forget_requests(self, _: Request) -> Reply:
        self.recorded.clear()
        return Reply.json({})

    async def _list_faults(self, _: Request) -> Reply:
        return Reply.json([fault.as_json() for fault in self.faults.active])

    async def _add_fault(self, request: Request) -> Reply:
        try:
            self.faults.add(Fault(**request.json()))
        except TypeError as error:
            raise HttpError(Reply.text(422, str(error))) from None
        return Reply.json({})

    async def _clear_faults(self, _: Request) -> Reply:
        self.faults.clear()
        return Reply.json({})


class _Dropped(Exception):
    """The connection was closed without an answer."""


async def _drop(request: Request, send: Send) -> None:
    # ASGI has no way to cut a connection; uvicorn's `send` is a method of an object that has the transport.
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
        await request.gone()
    raise _Dropped


@dataclass
class _Body:
    limit_bytes: int
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size <= self.limit_bytes:
            self.chunks.append(chunk)


async def _read_request(scope: Scope, receive: Receive, limit_bytes: int) -> Request:
    body = _Body(limit_bytes)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body.add(message.get("body", b""))
        if not message.get("more_body", False):
            break
    raw_path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    query_text = scope["query_string"].decode("latin-1")
    return Request(
        method=scope["method"],
        path=unquote(raw_path),
        raw_path=raw_path,
        query=dict(parse_qsl(query_text, keep_blank_values=True)) if query_text else {},
        query_text=query_text,
        headers={key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]},
        body=b"".join(body.chunks),
        too_large=body.size > limit_bytes,
        _receive=receive,
    )


async def _send_reply(reply: Reply, send: Send) -> None:
    headers = [(b"content-length", str(len(reply.body)).encode())]
    if reply.content_type:
        headers.append((b"content-type", reply.content_type.encode()))
    headers += [(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
