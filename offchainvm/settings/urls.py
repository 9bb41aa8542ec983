"""Which addresses a setting may hold. What is wrong with one is told without the address: a password or a key may stand in it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import SplitResult, urlsplit

from offchainvm.redis_url import has_shape, is_readable

_ESCAPE = "cannot be read; percent-encode what is special in its user and password (`/` is %2F, `#` is %23)"


def base(value: Any) -> Any:
    """The base URL of a service, without a slash at its end."""
    if not isinstance(value, str):
        return value
    url = value.strip()
    if "@" in _parts_of(url, "http", "https").netloc:
        raise ValueError("must hold no user and no password; a token has a setting of its own")
    return url.rstrip("/")


def mirror(url: str) -> str:
    """Empty, or where repositories are cloned from."""
    if url and not url.startswith("file://"):
        _parts_of(url, "http", "https", "file")
    return url


def index(url: str) -> str:
    """Empty, or a sparse index of crates; it is written into a file of cargo's, between quotes."""
    if url:
        _parts_of(url.removeprefix("sparse+"), "http", "https")
    if re.search(r"[\s\"\\]", url):
        raise ValueError("must hold no space, quote or backslash")
    return url


def redis(url: str) -> str:
    """One server, or its Sentinels."""
    _check_scheme(url, "redis", "rediss", "unix", "sentinel")
    if not is_readable(url):
        raise ValueError(_ESCAPE)
    return url


def broker(url: str) -> str:
    """Empty, Redis or RabbitMQ (several nodes with ``;`` between them), as Celery writes it."""
    if url.startswith(("amqp://", "amqps://")):
        for node in url.split(";"):
            _check_node(node if "://" in node else f"amqp://{node}")
    elif url:
        _check_scheme(url, "redis", "rediss", "unix", "sentinel", "amqp", "amqps")
        if not has_shape(url):
            raise ValueError(_ESCAPE)
    return url


def _check_node(url: str) -> None:
    if _read(url, "amqp", "amqps").fragment:
        raise ValueError(_ESCAPE)


def _check_scheme(url: str, *schemes: str) -> None:
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        *others, last = (f"{scheme}://" for scheme in schemes)
        raise ValueError(f"must start with {', '.join(others)} or {last}")


def _parts_of(url: str, *schemes: str) -> SplitResult:
    parts = _read(url, *schemes)
    if not parts.hostname:
        raise ValueError("must name a host")
    return parts


def _read(url: str, *schemes: str) -> SplitResult:
    """Its parts; it may leave the host to a default."""
    _check_scheme(url, *schemes)
    parts = _split(url)
    if parts is None or (not parts.hostname and "@" in parts.path + parts.query + parts.fragment):
        raise ValueError(_ESCAPE)
    if re.search(r"\s", parts.netloc):
        raise ValueError("must name a host")
    return parts


def _split(url: str) -> SplitResult | None:
    """None where it cannot be read: what the library says of it holds a part of it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
