"""How an operator writes the address of a Redis: one server, or the Sentinels that know the master."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from redis import ConnectionPool
from redis.connection import parse_url

_SENTINEL_PORT = 26379


@dataclass(frozen=True)
class SentinelUrl:
    """``sentinel://[user:password@]HOST[:PORT][,HOST…][/DB]?service=NAME``; user and password are those of the master."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int
    username: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> SentinelUrl | None:
        """None for every other kind of URL.

        Raises:
            ValueError: it cannot be read; the text may hold the password.
        """
        if not url.startswith("sentinel://"):
            return None
        parts = urlsplit(url)
        login, _, places = parts.netloc.rpartition("@")
        username, _, password = (unquote(part) for part in login.partition(":"))
        hosts = [place.partition(":") for place in places.split(",")]
        if not all(host for host, _, _ in hosts):
            raise ValueError("no host between two commas")
        return cls(
            hosts=tuple((host, int(port or _SENTINEL_PORT)) for host, _, port in hosts),
            service=parse_qs(parts.query).get("service", ["mymaster"])[0],
            db=int(parts.path.strip("/") or 0),
            username=username or None,
            password=password or None,
        )


def is_readable(url: str) -> bool:
    """Whether a client can be made of it, and none of it would be passed over in silence.

    An unescaped ``/``, ``?`` or ``#`` in a password ends the host early: what is left may even look like an address.
    """
    try:
        parts = urlsplit(url)
        if SentinelUrl.parse(url) is None:
            _try_server(url)
    except Exception:  # whatever it says may hold the password
        return False
    return not parts.fragment and "@" not in parts.path + parts.query


def _try_server(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        parse_url(url)  # type: ignore[no-untyped-call]
        return
    if not parts.hostname or not (parts.path.strip("/") or "0").isdecimal():
        raise ValueError("no host, or a database that is no number")
    ConnectionPool.from_url(url).make_connection()
