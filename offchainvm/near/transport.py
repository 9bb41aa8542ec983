"""HTTP to the chain's services: urllib3 pools, no proxies from the environment, no retries of its own."""

from __future__ import annotations

import json
import math
import threading
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from offchainvm import metrics
from offchainvm.authorities import tls_context
from offchainvm.near.rpc_answers import RpcRefused, RpcTimeout, RpcUnavailable, error_of

_JSON = {"Content-Type": "application/json"}
_PAUSE_SECONDS = 1.0
"""After a 429 that names no time."""
_BRISK_SECONDS, _SLOW_SECONDS = 0.1, 10.0
"""Between two requests, at least and at most, after a 429."""
_numbers = count(1)


class Pool:
    """A pool of connections with its time-outs, shared by the endpoints of one client."""

    def __init__(self, *, connect_seconds: float, read_seconds: float, connections: int, ca_bundle: Path | None = None) -> None:
        # A plain PoolManager reads no proxy from the environment, unlike requests.
        self._manager = urllib3.PoolManager(
            num_pools=16,
            maxsize=connections,
            timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
            retries=False,
            ssl_context=tls_context(ca_bundle),
        )

    def get(self, url: str) -> urllib3.BaseHTTPResponse:
        return self._manager.request("GET", url, redirect=False)

    def post(self, url: str, body: bytes) -> urllib3.BaseHTTPResponse:
        return self._manager.request("POST", url, body=body, headers=_JSON, redirect=False)


class Gate:
    """Keeps a service that answered 429 from being asked before the time it named."""

    def __init__(self) -> None:
        self._closed_until = -math.inf

    def close(self, wished_seconds: float | None) -> float:
        """Close for the time that the service wishes, else for a second; returns that time."""
        seconds = _PAUSE_SECONDS if wished_seconds is None else wished_seconds
        self._closed_until = time.monotonic() + seconds
        return seconds

    def seconds_left(self) -> float:
        """0 when open."""
        return max(0.0, self._closed_until - time.monotonic())


class Pace:
    """Keeps requests to a rate, evenly spread: to half of it after each 429, and back as the service bears it."""

    def __init__(self, per_minute: float) -> None:
        self._least = self._interval = 60 / per_minute
        self._due = -math.inf
        self._lock = threading.Lock()

    @property
    def per_minute(self) -> float:
        return 60 / self._interval

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._due)
            self._due = turn + self._interval
        time.sleep(turn - now)

    def slower(self) -> None:
        with self._lock:
            self._interval = min(max(self._interval * 2, _BRISK_SECONDS), max(_SLOW_SECONDS, self._least))

    def faster(self) -> None:
        if self._interval > self._least:
            with self._lock:
                self._interval = max(self._least, self._interval * 0.99)


class Endpoint:
    """One RPC endpoint, how long it is passed over after a failure, and how long it must be left alone after a 429."""

    def __init__(self, url: str, pool: Pool, *, rest_seconds: float) -> None:
        self._url, self._pool, self._rest_seconds = url, pool, rest_seconds
        self.name = f"{host_of(url)}#{next(_numbers)}"
        self.resting_until = -math.inf
        self.chain_id = ""
        """As it told, or as the others did where it tells none; empty: it was not asked."""
        self._gate = Gate()

    def rest(self, seconds: float | None = None) -> None:
        """Pass it over for so long, or for its usual rest, where there is another."""
        self.resting_until = time.monotonic() + (self._rest_seconds if seconds is None else seconds)

    def ask(self, method: str, body: bytes, *, optional: bool = False) -> dict[str, Any]:
        """The ``result`` of one JSON-RPC call; where it is ``optional``, a failure says nothing of other calls.

        Raises:
            RpcRefused, RpcUnavailable: by the table in ``rpc_answers``.
        """
        if left := self._gate.seconds_left():
            raise RpcUnavailable(self.name, f"{method}: asked us to wait (HTTP 429)", retry_after_seconds=left)
        outcome, began = "ok", time.monotonic()
        try:
            return self._asked(method, body, optional=optional)
        except RpcRefused:
            outcome = "refused"
            raise
        except RpcTimeout:
            outcome = "timeout"
            raise
        except RpcUnavailable as error:
            outcome = "unavailable"
            if not optional:
                self.rest(error.retry_after_seconds)
            raise
        finally:
            metrics.RPC_SECONDS.observe(time.monotonic() - began, method=method, outcome=outcome)

    def _asked(self, method: str, body: bytes, *, optional: bool) -> dict[str, Any]:
        try:
            response = self._pool.post(self._url, body)
        except (HTTPError, OSError) as error:
            raise RpcUnavailable(self.name, f"{method}: {what_failed(error)}") from error
        reply = _object(response.data)
        result = reply.get("result")
        if "error" not in reply and isinstance(result, dict):
            return result
        wished = retry_after(response)
        if response.status == 429:
            wished = self._gate.close(wished)
        raise error_of(
            reply.get("error"),
            status=response.status,
            method=method,
            endpoint=self.name,
            retry_after_seconds=wished,
            optional=optional,
        )


def host_of(url: str) -> str:
    """Scheme and host: all of an URL that may be shown, since paths and queries of providers hold API keys."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or '?'}" + (f":{parts.port}" if parts.port else "")


def what_failed(error: Exception) -> str:
    """A transport error in words of its class alone: its text would hold the URL, and a key in that."""
    names = {
        "ConnectTimeoutError": "no connection within the time-out",
        "ReadTimeoutError": "no answer within the time-out",
        "NewConnectionError": "connection refused or host unreachable",
        "NameResolutionError": "the host's name does not resolve",
        "SSLError": "TLS failed (an unknown certificate authority? see CA_BUNDLE)",
    }
    return names.get(type(error).__name__, f"the connection broke ({type(error).__name__})")


def retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds of a ``Retry-After`` header, which holds seconds or a date; at most five minutes."""
    text = response.headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    return min(300.0, max(0.0, seconds)) if math.isfinite(seconds) else None


def _object(untrusted_body: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(untrusted_body)
    except (ValueError, RecursionError):
        return {}
    return reply if isinstance(reply, dict) else {}
