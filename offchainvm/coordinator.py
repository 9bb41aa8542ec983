"""The Coordinator's client: every endpoint of its HTTP API, typed errors that say what to check.

Polls and reports go over urllib3 pools, which cost a third of what ``requests`` costs a call; everything else,
where the rate does not matter, over one ``requests`` session. Neither reads proxies or passwords from the environment.
"""

from __future__ import annotations

import functools
import json
import random
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import requests
import urllib3
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from offchainvm import metrics
from offchainvm.authorities import TlsAdapter, tls_context
from offchainvm.errors import Refused, TooLarge, Unauthorized, Unavailable
from offchainvm.logs import get_logger
from offchainvm.models import ExecutionReport, NewTask

log = get_logger()

SERVICE = "coordinator"
POLL_SECONDS_MAX = 120
"""What the server caps a poll at; it takes 0 as "for ever"."""
USUAL_BODY_LIMIT_BYTES = 2 * 1024 * 1024
"""Body limit of the Coordinator's web framework, unless its operator raised it."""
_MULTIPART_BYTES = 4096
"""More than what the parts around a module take in an upload."""
POLL_MARGIN_SECONDS = 10.0
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
DOWNLOAD_SECONDS_MAX = 120.0
REPEAT_DELAYS_SECONDS = (0.2, 0.8)
_KEEPALIVE = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]

T = TypeVar("T")


@dataclass(frozen=True)
class _Reply:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise Refused("The Coordinator answered with something that is not JSON.", status=self.status, remedy=_CHECK_URL) from None


class _CutOff(Unavailable):
    """The connection ended in mid-upload of a large body: either the server died, or it refuses the size."""

    def __init__(self, sentence: str, *, body_bytes: int) -> None:
        super().__init__(SERVICE, sentence)
        self.body_bytes = body_bytes


_CHECK_URL = "Check that API_BASE_URL names the Coordinator, and nothing in front of it."


Send = Callable[..., _Reply]


def _measured(send: Send) -> Send:
    """Note how long a call took, by its route and what came of it."""

    @functools.wraps(send)
    def call(self: Coordinator, method: str, path: str, **options: Any) -> _Reply:
        outcome, began = "unavailable", time.monotonic()
        try:
            reply = send(self, method, path, **options)
            away = reply.status in (408, 429) or reply.status >= 500
            outcome = "unavailable" if away else "ok" if reply.status < 300 or reply.status == 404 else "refused"
            return reply
        finally:
            metrics.COORDINATOR_SECONDS.observe(time.monotonic() - began, route=_route(path), outcome=outcome)

    return call


def _route(path: str) -> str:
    """The path without what it names: ``tasks/poll``, ``wasm``."""
    route = "/".join(path.partition("?")[0].split("/")[1:3])
    return route if route in metrics.COORDINATOR_SECONDS.labels["route"] else route.partition("/")[0]


class Coordinator:
    """Client of one Coordinator; may be shared by threads, not by forked processes.

    Raises, from every call: ``Unavailable`` (unreachable, 408, 429, 5xx), ``Unauthorized`` (401, 403),
    ``TooLarge`` (413, or a body over the usual limit that was cut off), ``Refused`` (anything else).
    """

    def __init__(self, base_url: str, token: SecretStr, *, worker_id: str = "", ca_bundle: Path | None = None, pool_size: int = 16) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._worker_id = worker_id
        context = tls_context(ca_bundle)
        # Redirects are not followed: they would carry the token elsewhere.
        self._pool = urllib3.PoolManager(
            maxsize=pool_size, retries=False, ssl_context=context, socket_options=_KEEPALIVE, timeout=_timeout(READ_SECONDS)
        )
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.mount("https://", TlsAdapter(context, pool_maxsize=pool_size))
        self._session.mount("http://", HTTPAdapter(pool_maxsize=pool_size))

    def __repr__(self) -> str:
        return f"Coordinator({self._base_url!r})"

    def close(self) -> None:
        """Close every pooled connection."""
        self._pool.clear()
        self._session.close()

    def poll(self, timeout_seconds: float) -> bytes | None:
        """One long poll: the untrusted body of a task, None when none came. The server has forgotten the task after this."""
        asked = max(1, min(int(timeout_seconds), POLL_SECONDS_MAX))
        reply = self._hot("GET", f"/tasks/poll?timeout={asked}", read_seconds=asked + POLL_MARGIN_SECONDS)
        return None if reply.status == 204 else _accepted(reply).body

    def create(self, task: NewTask) -> None:
        """Queue a task, once: a repeat would queue a second one, so a lost reply is left to the caller."""
        _accepted(self._sent("POST", "/tasks/create", json=task.model_dump()))

    def complete(self, report: ExecutionReport) -> None:
        """Report an answer that is final on chain; without its output, and saying so, where the Coordinator finds it too large."""
        try:
            self._report("/tasks/complete", report.as_json())
        except TooLarge as error:
            size = len(report.output or b"")
            if not size:
                raise
            log.warning("report sent without its output", action="report_without_output", request_id=report.request_id, bytes=size)
            note = f"output of {size} bytes left out of this report: {error.sentence}"
            text = note if report.error is None else f"{report.error} ({note})"
            self._report("/tasks/complete", report.model_copy(update={"output": None, "error": text}).as_json())

    def fail(self, request_id: int, error: str) -> None:
        """Report that no answer of ours can be final on chain."""
        self._report("/tasks/fail", {"request_id": request_id, "error": error})

    def wasm_exists(self, checksum: str) -> bool:
        """Whether something is stored under a source key: perhaps rubbish."""
        reply = _repeated(lambda: _accepted(self._sent("GET", f"/wasm/exists/{_segment(checksum)}"))).json()
        if not isinstance(reply, dict) or not isinstance(reply.get("exists"), bool):
            raise Refused("The Coordinator's answer says nothing about the module.", status=200, remedy=_CHECK_URL)
        return bool(reply["exists"])

    def download(self, checksum: str, *, max_bytes: int) -> bytes | None:
        """The untrusted bytes under a source key, None when there are none; ``TooLarge`` over ``max_bytes``."""
        reply = _repeated(lambda: _accepted(self._sent("GET", f"/wasm/{_segment(checksum)}", max_bytes=max_bytes), absence=404))
        return None if reply.status == 404 else reply.body

    def upload(self, checksum: str, repo_url: str, commit_hash: str, wasm: bytes) -> None:
        """Store a module under its source key."""
        fields = {"checksum": checksum, "repo_url": repo_url, "commit_hash": commit_hash}
        files = {"wasm_file": (f"{checksum}.wasm", wasm, "application/wasm")}
        _repeated(lambda: _accepted_upload(self._sent("POST", "/wasm/upload", body_bytes=len(wasm), data=fields, files=files), len(wasm)))

    def acquire_lock(self, key: str, ttl_seconds: int) -> bool:
        """Ask for an advisory lock, once: it is not re-entrant, so a repeat after a lost reply would find our own lock."""
        wanted = {"lock_key": key, "worker_id": self._worker_id, "ttl_seconds": ttl_seconds}
        reply = _accepted(self._sent("POST", "/locks/acquire", json=wanted)).json()
        return isinstance(reply, dict) and reply.get("acquired") is True

    def release_lock(self, key: str) -> None:
        """Release a lock, whoever holds it; also when there is none."""
        _repeated(lambda: _accepted(self._sent("DELETE", f"/locks/release/{_segment(key)}")))

    def health(self) -> None:
        """Return when the Coordinator says that it is well."""
        _accepted(self._sent("GET", "/health"))

    def server_time(self) -> float:
        """Its clock, by the Date header of any answer: whole seconds since 1970."""
        untrusted_date = self._sent("GET", "/health").headers.get("Date", "")
        try:
            return parsedate_to_datetime(untrusted_date).timestamp()
        except ValueError:
            raise Refused("The Coordinator does not tell the time.", status=200, remedy=_CHECK_URL) from None

    def _report(self, path: str, value: object) -> None:
        body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        _repeated(lambda: _accepted(self._hot("POST", path, body=body), body_bytes=len(body)))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token.get_secret_value()}"}

    @_measured
    def _hot(self, method: str, path: str, *, body: bytes | None = None, read_seconds: float = READ_SECONDS) -> _Reply:
        headers = self._headers() if body is None else {**self._headers(), "Content-Type": "application/json"}
        url, timeout = self._base_url + path, _timeout(read_seconds)
        try:
            reply = self._pool.request(method, url, body=body, headers=headers, timeout=timeout, redirect=False)
        except urllib3.exceptions.ProtocolError as error:
            raise self._cut(error, 0 if body is None else len(body)) from error
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from error
        return _Reply(reply.status, reply.data, reply.headers)

    @_measured
    def _sent(self, method: str, path: str, *, body_bytes: int = 0, max_bytes: int = 0, **content: Any) -> _Reply:
        try:
            with self._session.request(
                method,
                self._base_url + path,
                headers=self._headers(),
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                stream=True,
                **content,
            ) as reply:
                limited = max_bytes and reply.status_code == 200
                body = _read_at_most(reply, max_bytes) if limited else reply.content
                return _Reply(reply.status_code, body, reply.headers)
        except requests.ConnectTimeout as error:
            raise self._unreachable(error) from error
        except requests.RequestException as error:
            if isinstance(error.args[0] if error.args else None, urllib3.exceptions.ProtocolError):
                raise self._cut(error, body_bytes) from error
            raise self._unreachable(error) from error

    def _cut(self, error: Exception, body_bytes: int) -> Unavailable:
        if body_bytes > USUAL_BODY_LIMIT_BYTES:
            return _CutOff("The Coordinator closed the connection in mid-upload.", body_bytes=body_bytes)
        return self._unreachable(error)

    def _unreachable(self, error: Exception) -> Unavailable:
        return Unavailable(
            SERVICE,
            f"The Coordinator does not answer at {self._base_url} ({_reason(error)}).",
            remedy="Check API_BASE_URL, and that the Coordinator runs and can be reached from here.",
        )


def _timeout(read_seconds: float) -> urllib3.Timeout:
    return urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds)


def _segment(text: str) -> str:
    """One path segment: ``/`` and ``:`` are encoded too."""
    return quote(text, safe="")


def _repeated(call: Callable[[], T], delays_seconds: tuple[float, ...] | None = None) -> T:
    """The result of a call that is safe to repeat, after a few quick tries."""
    delays_seconds = REPEAT_DELAYS_SECONDS if delays_seconds is None else delays_seconds
    try:
        return call()
    except Unavailable as error:
        if not delays_seconds and isinstance(error, _CutOff):
            raise _too_large(error.body_bytes, status=413) from error
        if not delays_seconds:
            raise
        wish_seconds = min(error.retry_after_seconds or 0.0, 5.0)
        time.sleep(max(wish_seconds, delays_seconds[0] * random.uniform(0.5, 1.5)))  # noqa: S311 - jitter, not a secret
    return _repeated(call, delays_seconds[1:])


def _accepted(reply: _Reply, *, body_bytes: int = 0, absence: int = 204) -> _Reply:
    """The reply, when the Coordinator took the request; ``absence`` is the status that says that there is nothing."""
    if 200 <= reply.status < 300 or reply.status == absence:
        return reply
    if reply.status in (401, 403):
        sentence = f"The Coordinator does not accept our token (HTTP {reply.status})."
        raise Unauthorized(sentence, status=reply.status, remedy="Check API_AUTH_TOKEN.")
    if reply.status == 413:
        raise _too_large(body_bytes, status=413)
    if reply.status in (408, 429) or reply.status >= 500:
        raise Unavailable(
            SERVICE,
            f"The Coordinator answered HTTP {reply.status}{_said(reply)}.",
            remedy="Look at the Coordinator's log, and at its own Redis and database.",
            retry_after_seconds=_retry_after(reply.headers),
        )
    raise Refused(f"The Coordinator refused the request with HTTP {reply.status}{_said(reply)}.", status=reply.status, remedy=_CHECK_URL)


def _accepted_upload(reply: _Reply, body_bytes: int) -> _Reply:
    # A multipart body over the limit ends as a field that cannot be read: 400, not 413.
    if reply.status == 400 and body_bytes > USUAL_BODY_LIMIT_BYTES - _MULTIPART_BYTES:
        raise _too_large(body_bytes, status=400)
    return _accepted(reply, body_bytes=body_bytes)


def _too_large(body_bytes: int, *, status: int) -> TooLarge:
    return TooLarge(
        f"The Coordinator does not take {body_bytes} bytes; its usual limit is {USUAL_BODY_LIMIT_BYTES} bytes.",
        status=status,
        remedy="Make it smaller, or have the Coordinator's body limit raised.",
    )


def _said(reply: _Reply) -> str:
    text = reply.body[:200].decode("utf-8", "replace").strip()
    printable = "".join(character if character.isprintable() else " " for character in text)
    return f": {printable}" if printable else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line: libraries wrap it in texts that name objects and whole URLs."""
    inner: BaseException = error
    while isinstance(deeper := getattr(inner, "reason", None) or inner.__cause__ or _first_argument(inner), BaseException):
        inner = deeper
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return type(inner).__name__ if isinstance(inner, (TimeoutError, urllib3.exceptions.TimeoutError)) else str(inner)[:200]


def _first_argument(error: BaseException) -> BaseException | None:
    candidates = (value for value in error.args if isinstance(value, BaseException))
    return next(candidates, None)


def _read_at_most(reply: requests.Response, max_bytes: int) -> bytes:
    """The body, in pieces: neither its length nor its speed is trusted."""
    body, until = bytearray(), time.monotonic() + DOWNLOAD_SECONDS_MAX
    for piece in reply.iter_content(64 * 1024):
        body += piece
        if len(body) > max_bytes:
            raise TooLarge(f"The Coordinator sends a module of more than the {max_bytes} bytes that we take.", status=200)
        if time.monotonic() > until:
            raise Unavailable(SERVICE, f"The Coordinator sent {len(body)} bytes in {DOWNLOAD_SECONDS_MAX:.0f} seconds, and not all.")
    return bytes(body)
