"""The block service: final blocks by height (wire.md §3).

A height that consensus skipped and one that is not there yet are told apart: the first is passed, the second waited for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import urllib3
from pydantic import SecretStr
from urllib3.exceptions import HTTPError, ReadTimeoutError

from offchainvm.errors import Refused, Unauthorized, Unavailable
from offchainvm.near.transport import Gate, Pace, Pool, host_of, retry_after, what_failed

_REDIRECTS = 5
_NO_BLOCK = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
_FOR_EVER = frozenset({"BLOCK_HEIGHT_TOO_LOW", "BLOCK_HEIGHT_TOO_HIGH"})


class NoBlock(str, Enum):
    """Why a height has no block to read."""

    SKIPPED = "skipped"
    """Consensus skipped it: there will never be one."""
    NOT_YET = "not_yet"
    """Not produced or not indexed yet: ask again."""


SKIPPED, NOT_YET = NoBlock.SKIPPED, NoBlock.NOT_YET


@dataclass(frozen=True)
class Block:
    """One final block, its shards still unread."""

    height: int
    hash: str
    prev_hash: str
    at: float = 0.0
    """When it was made, in seconds since 1970; 0 = not told."""
    untrusted_shards: Sequence[Any] = field(repr=False, default=())


class BlockService:
    """A client of the block service; safe to share between threads.

    Args:
        url: ``NEARDATA_API_URL``, to which ``/{height}`` is appended.
        api_key: goes into the query, since a header would be lost on redirects; to no other host, never logged.
        requests_per_minute: ``NEARDATA_REQUESTS_PER_MINUTE``; callers are made to wait for their turn.
        read_seconds: near the head the service holds a request back; no answer in this time means not yet.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: SecretStr | None = None,
        requests_per_minute: int = 180,
        connect_seconds: float = 3.0,
        read_seconds: float = 6.0,
        connections: int = 16,
        ca_bundle: Path | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key.get_secret_value() if api_key else ""
        self._pool = Pool(connect_seconds=connect_seconds, read_seconds=read_seconds, connections=connections, ca_bundle=ca_bundle)
        self.name = f"block service {host_of(url)}"
        self._gate, self._pace = Gate(), Pace(requests_per_minute)

    def block(self, height: int) -> Block | NoBlock:
        """The final block at ``height``.

        Raises:
            Unavailable: no statement (unreachable, 429, 5xx, a broken body); Unauthorized: the API key;
            Refused: no block of this chain has such a height, a wrong setting.
        """
        try:
            response = self._get(f"{self.url}/{height}")
        except _NoAnswerYet:
            return NOT_YET
        if response.status == 404:
            return self._absent(height, response.data)
        return self._block(height, response.data)

    def last_final_height(self) -> int:
        """Height of the newest final block that the service has.

        Raises:
            Unavailable, Unauthorized, Refused.
        """
        try:
            response = self._get(f"{self.url.rpartition('/')[0]}/last_block/final", stop=re.compile(r"/block/(\d+)$"))
        except _NoAnswerYet:
            raise Unavailable(self.name, "no answer within the time-out") from None
        if response.status == 302:
            return _height_in(response.headers["Location"])
        if response.status == 404:
            raise Refused("the block service knows no last block", status=404, remedy="Check NEARDATA_API_URL.")
        return self._header(self._json(response.data)).height

    def _absent(self, height: int, untrusted_body: bytes) -> NoBlock:
        try:
            reply = json.loads(untrusted_body)
        except ValueError:
            return NOT_YET
        if isinstance(reply, dict) and reply.get("type") in _FOR_EVER:
            raise Refused(
                f"height {height}: {reply['type']}", status=404, remedy="Check START_BLOCK_HEIGHT, and NEARDATA_API_URL for the network."
            )
        return NOT_YET

    def _block(self, height: int, untrusted_body: bytes) -> Block | NoBlock:
        reply = self._json(untrusted_body)
        if reply is None:
            return SKIPPED
        block = self._header(reply)
        if block.height != height:
            raise Unavailable(self.name, f"asked for height {height}, got {block.height}")
        return block

    def _header(self, untrusted_block: Any) -> Block:
        try:
            return _parsed(untrusted_block)
        except _NO_BLOCK:
            raise Unavailable(self.name, "the body is no block") from None

    def _json(self, untrusted_body: bytes) -> Any:
        try:
            reply = json.loads(untrusted_body)
        except (ValueError, RecursionError):
            raise Unavailable(self.name, "the body is not JSON, or was cut off") from None
        if reply is not None and not isinstance(reply, dict):
            raise Unavailable(self.name, "the body is no block")
        return reply

    def _get(self, url: str, *, stop: re.Pattern[str] | None = None) -> urllib3.BaseHTTPResponse:
        """A response of 200 or 404, redirects followed; or the redirect to a path that ``stop`` matches."""
        for _ in range(_REDIRECTS):
            response = self._once(url)
            if response.status not in {301, 302, 303, 307, 308}:
                return self._checked(response)
            url = self._target(url, response.headers.get("Location", ""))
            if stop and stop.search(urlsplit(url).path):
                return response
        raise Unavailable(self.name, "too many redirects")

    def _target(self, url: str, untrusted_location: str) -> str:
        try:
            target = urljoin(url, untrusted_location)
            urlsplit(target).port  # noqa: B018 -- it is read here for its error
        except ValueError:
            raise Unavailable(self.name, "redirects to what is no URL") from None
        return target

    def _once(self, url: str) -> urllib3.BaseHTTPResponse:
        self._refuse_while_closed()
        self._pace.wait()
        self._refuse_while_closed()
        try:
            return self._pool.get(self._with_api_key(url))
        except ReadTimeoutError:
            raise _NoAnswerYet from None
        except (HTTPError, OSError) as error:
            # Without its cause: urllib3's texts may hold the URL, and the API key in it.
            raise Unavailable(self.name, what_failed(error), remedy="Check NEARDATA_API_URL.") from None

    def _refuse_while_closed(self) -> None:
        if left := self._gate.seconds_left():
            raise Unavailable(self.name, "asked us to wait (HTTP 429)", retry_after_seconds=left)

    def _checked(self, response: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
        status, wished = response.status, retry_after(response)
        if status in {200, 404}:
            self._pace.faster()
            return response
        if status in {401, 403}:
            raise Unauthorized("the block service refuses our API key", status=status, remedy="Check NEARDATA_API_KEY.")
        if status == 429:
            if not self._gate.seconds_left():  # several may be under way: one word of the service slows us down once
                self._pace.slower()
            wished = self._gate.close(wished)
        elif status < 500:
            raise Refused(f"the block service answers HTTP {status}", status=status, remedy="Check NEARDATA_API_URL.")
        raise Unavailable(self.name, f"HTTP {status}", retry_after_seconds=wished)

    def _with_api_key(self, url: str) -> str:
        """``url`` with the API key, where it stays with the host that the key is for, or goes to one below it (an archive)."""
        parts, home = urlsplit(url), urlsplit(self.url)
        query = [item for item in parse_qsl(parts.query) if item[0] != "apiKey"]
        same = (parts.scheme, parts.port) == (home.scheme, home.port) and _is_below(parts.hostname or "", home.hostname or "")
        if not self._api_key or not same:
            return url
        return urlunsplit(parts._replace(query=urlencode([*query, ("apiKey", self._api_key)])))


class _NoAnswerYet(Exception):
    """The service held the request back for longer than we read."""


def _parsed(untrusted_block: Any) -> Block:
    """Raises: _NO_BLOCK."""
    header, shards = untrusted_block["block"]["header"], untrusted_block.get("shards") or []
    if not isinstance(shards, list):
        raise TypeError("the shards are no list")
    return Block(
        height=int(header["height"]),
        hash=str(header["hash"]),
        prev_hash=str(header["prev_hash"]),
        at=int(header.get("timestamp_nanosec") or header.get("timestamp") or 0) / 1e9,
        untrusted_shards=shards,
    )


def _height_in(location: str) -> int:
    return int(urlsplit(location).path.rpartition("/")[2])


def _is_below(host: str, home: str) -> bool:
    """Whether a host is ``home``, or has a name below it: so much is surely its owner's."""
    return host == home or host.endswith(f".{home}")
