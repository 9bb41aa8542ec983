"""The newest height of the chain, from whoever knows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from urllib3.exceptions import HTTPError

from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.logs import get_logger
from offchainvm.near.blocks import BlockService
from offchainvm.near.transport import Pool, host_of, what_failed

log = get_logger()


def fastnear_url(block_service_url: str) -> str:
    """The source of the newest height that belongs to a block service, where FASTNEAR_API_URL names none."""
    return "https://api.fastnear.com/status" if "mainnet" in host_of(block_service_url) else "https://test.api.fastnear.com/status"


class HeightService:
    """The newest height, from a ``status`` page with a ``sync_block_height`` (FASTNEAR_API_URL)."""

    def __init__(self, url: str, *, connect_seconds: float = 3.0, read_seconds: float = 5.0, ca_bundle: Path | None = None) -> None:
        self._url, self.name = url, f"height service {host_of(url)}"
        self._pool = Pool(connect_seconds=connect_seconds, read_seconds=read_seconds, connections=1, ca_bundle=ca_bundle)

    def newest_height(self) -> int:
        """Raises: Unavailable."""
        try:
            response = self._pool.get(self._url)
            return int(json.loads(response.data)["sync_block_height"])
        except (HTTPError, OSError) as error:
            raise Unavailable(self.name, what_failed(error)) from None
        except (ValueError, TypeError, KeyError, OverflowError):
            raise Unavailable(self.name, f"HTTP {response.status} without a sync_block_height") from None


def height_sources(blocks: BlockService, fastnear_api_url: str, *, ca_bundle: Path | None = None) -> list[Callable[[], int]]:
    """Who knows the newest height, in the order of wire.md §3: FASTNEAR_API_URL, or what belongs to the network; the block service."""
    status = HeightService(fastnear_api_url or fastnear_url(blocks.url), ca_bundle=ca_bundle)
    return [status.newest_height, blocks.last_final_height]


def newest_height(sources: Sequence[Callable[[], int]]) -> int:
    """The newest height, from the first of ``sources`` that answers.

    Raises:
        Unavailable: none answers; the error of the last.
    """
    first, *others = sources
    try:
        return first()
    except OffchainVMError as error:
        if not others:
            raise
        log.debug("Source of the newest height failed", action="height_source_failed", error=error.sentence)
    return newest_height(others)
