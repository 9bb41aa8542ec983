"""How an operator writes the address of a Redis: one server, or the Sentinels that know the master."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from redis import ConnectionPool

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


def has_shape(url: str) -> bool:
    """Whether it can name a server, by its shape alone: what the query may hold differs between clients.

    An unescaped ``/``, ``?`` or ``#`` in a password ends the host early: what stands there is then no host, or no port.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port if SentinelUrl.parse(url) is None else None
    except ValueError:
        return False
    if parts.scheme in {"redis", "rediss"} and not (parts.path.strip("/") or "0").isdecimal():
        return False
    names_host = parts.hostname and parts.scheme != "unix"
    return not parts.fragment and bool(names_host or "@" not in parts.path + parts.query)


def is_readable(url: str) -> bool:
    """Whether a client of redis-py can be made of it, and none of it would be passed over in silence."""
    if not has_shape(url):
        return False
    try:
        if SentinelUrl.parse(url) is None:
            ConnectionPool.from_url(url).make_connection()
    except Exception:  # whatever it says may hold the password
        return False
    return True
