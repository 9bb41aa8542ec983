"""What a build printed, made safe: no terminal escapes, no control characters, no endless lines."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator

LINE_CHARS = 400
TAIL_LINES = 40
_BUFFER_BYTES = 64 * 1024
# CSI, OSC and the other escape sequences of ECMA-48, with 7-bit and 8-bit introducers.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]?"
)
# A mirror's address may hold a login, and cargo prints addresses as they are.
_LOGIN = re.compile(r"(?<=://)[^\s/@]+@")
# Control characters, and those that reorder or hide text.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")


def clean_line(untrusted_line: bytes) -> str:
    """One line as printable text of at most 400 characters."""
    text = _ESCAPE.sub("", untrusted_line[: LINE_CHARS * 8].decode("utf-8", "replace")).replace("\t", "    ")
    text = _LOGIN.sub("", HIDDEN.sub("", text)).rstrip()
    return text if len(text) <= LINE_CHARS else f"{text[: LINE_CHARS - 1]}…"


def clean_lines(untrusted_log: bytes) -> Iterator[str]:
    """The lines of a log, each cleaned; empty lines are dropped."""
    return _cleaned(re.split(rb"[\r\n]+", untrusted_log))


def clean_text(untrusted_log: bytes, *, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, each cleaned; empty lines are dropped."""
    last = re.split(rb"[\r\n]+", untrusted_log)[-lines * 4 :]
    return "\n".join(deque(_cleaned(last), maxlen=lines))


class LineSplitter:
    """Turns chunks of bytes into cleaned lines; a line that never ends is cut, never collected."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, untrusted_chunk: bytes) -> Iterator[str]:
        """The lines that are complete with this chunk."""
        *complete, self._rest = re.split(rb"[\r\n]+", self._rest + untrusted_chunk)
        if len(self._rest) > _BUFFER_BYTES:
            complete, self._rest = [*complete, self._rest], b""
        return _cleaned(complete)

    def finish(self) -> Iterator[str]:
        """What is left when the log ends without a line's end."""
        rest, self._rest = self._rest, b""
        return _cleaned([rest])


def _cleaned(untrusted_lines: Iterable[bytes]) -> Iterator[str]:
    return (line for line in map(clean_line, untrusted_lines) if line)
