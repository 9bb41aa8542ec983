"""Blocks in their order, the next ones fetched side by side while the reader is behind."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from offchainvm.near.blocks import NOT_YET, Block, NoBlock

WIDTH = 16
_AHEAD_SECONDS = 2.0
"""What is fetched ahead must not wait for its turn for longer than this, or a stop would wait with it."""
_HELD_BACK_HEIGHTS = 10
"""So near to the head the service holds requests back: fetched ahead they would only wait side by side."""


def width_for(requests_per_minute: int) -> int:
    """How many heights to fetch at once, at a rate."""
    return min(WIDTH, max(1, int(requests_per_minute / 60 * _AHEAD_SECONDS)))


class Blocks(Protocol):
    """A source of blocks by height: ``BlockService``."""

    name: str

    def block(self, height: int) -> Block | NoBlock: ...


class ReadAhead:
    """Reads ahead on ``blocks``, at most ``width`` heights at once; 1 = not at all. For one reader."""

    def __init__(self, blocks: Blocks, *, width: int = WIDTH) -> None:
        self._blocks, self._width = blocks, width
        self.name = blocks.name
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="read-ahead")
        self._asked: dict[int, Future[Block | NoBlock]] = {}

    def block(self, height: int, *, newest: int) -> Block | NoBlock:
        """The final block at ``height``; heights up to ``newest`` are known to exist.

        Raises:
            As the source; then nothing that was fetched ahead is kept.
        """
        last = min(height + self._width - 1, newest - _HELD_BACK_HEIGHTS)
        if self._width == 1 or last < height:
            self.forget()
            return self._blocks.block(height)
        self._ask(range(height, last + 1))
        try:
            found = self._asked.pop(height).result()
        except Exception:
            self.forget()
            raise
        if found is NOT_YET:
            self.forget()
        return found

    def forget(self) -> None:
        """Drop what was fetched ahead."""
        self._ask(range(0))

    def _ask(self, heights: range) -> None:
        """Have exactly these heights under way."""
        for height in [height for height in self._asked if height not in heights]:
            self._asked.pop(height).cancel()
        for height in heights:
            if height not in self._asked:
                self._asked[height] = self._pool.submit(self._blocks.block, height)
